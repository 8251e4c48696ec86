"""The one entry to the samplers of a group."""

import torch

from recast_train.model import PromptTokens, SidModel, TrainError
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
) -> Rollouts:
    """Draw a group of G leaves for each prompt; default independent draws at temperature 1.

    The SID stage alone: a thought comes before it (`sample_thoughts`), since the anchor shares it. The prompt is computed
    once and the draws come from `generator` (on the CPU, so that a GPU samples from the same uniforms). `part` says which of
    a batch's prompts these are, default the whole batch.

    Raises:
        TrainError: a probability is not finite.
    """
    config, part = config or RolloutConfig(), part or Part(0, len(prompts.tokens_PT))
    cache = PromptCache(model, prompts)
    if config.method == "iid":
        found = sample_iid(model, cache, group_size, generator, config.temperature, part)
    elif config.method == "beam":
        found = sample_beam(model, cache, group_size, config.temperature)
    else:
        found = sample_stochastic_beam(model, cache, group_size, generator, config.temperature, part)
    if not bool(torch.isfinite(found.logprobs_PGL).all()):
        raise TrainError("probabilities: not finite; the model has diverged, lower learning_rate")
    return found
