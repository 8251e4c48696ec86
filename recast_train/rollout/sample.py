"""The one entry to the samplers of a group."""

import torch
from torch import Tensor

from recast_train.model import PromptTokens, SidModel, TrainError, on
from recast_train.model.shared_prompts import PromptCache
from recast_train.rollout.beam import sample_beam, sample_stochastic_beam
from recast_train.rollout.iid import sample_iid
from recast_train.rollout.rollout_config import RolloutConfig
from recast_train.rollout.rollouts import Part, Rollouts


@torch.no_grad()
def sample_rollouts(
    model: SidModel,
    prompts: PromptTokens,
    group_size: int,
    generator: torch.Generator,
    config: RolloutConfig | None = None,
    part: Part | None = None,
    hint_P: Tensor | None = None,
) -> Rollouts:
    """Draw a group of G leaves for each prompt; default independent draws at temperature 1.

    The SID stage alone: a thought comes before it (`sample_thoughts`), since the anchor shares it. The prompt is computed
    once and the draws come from `generator` (on the CPU, so that a GPU samples from the same uniforms). `part` says which of
    a batch's prompts these are, default the whole batch.

    Args:
        hint_P: the leaf of each prompt whose first `config.hint_levels` codes its rollouts are given, with log-probability 0.

    Raises:
        TrainError: a probability is not finite, or hints leave no code to draw.
    """
    config, part = config or RolloutConfig(), part or Part(0, len(prompts.tokens_PT))
    cache = PromptCache(model, prompts)
    if config.method == "iid":
        given_PL = None if hint_P is None else model.table("leaf_nodes")[on(hint_P, model.device), : config.hint_levels]
        found = sample_iid(model, cache, group_size, generator, config.temperature, part, given_PL)
    elif config.method == "beam":
        found = sample_beam(model, cache, group_size, config.temperature)
    else:
        found = sample_stochastic_beam(model, cache, group_size, generator, config.temperature, part)
    if not bool(torch.isfinite(found.logprobs_PGL).all()):
        raise TrainError("probabilities: not finite; the model has diverged, lower learning_rate")
    return found
