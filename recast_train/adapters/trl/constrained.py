"""Trie-constrained decoding for TRL's `rollout_func`, by recast's own sampler on the trainer's model.

TRL's generate takes no logits processor, and a beam through the whole vocabulary would compute logits that no SID can use.
"""

from collections.abc import Callable
from typing import Any

import torch

from recast_sim.runs import derive_seed
from recast_train.adapters.trl.token_sids import SidTokens
from recast_train.model import PromptTokens, SidModel, require
from recast_train.model.pretrained import check_logits
from recast_train.rollout import Part, RolloutConfig, sample_rollouts

_REFUSED = {
    "mask_truncated_completions": (False, "would mask every SID, since none has an end token; set it to False"),
    "use_vllm": (False, "would have TRL correct for vLLM's sampling, which this is not; set it to False"),
    "off_policy_mask_threshold": (None, "would compare log-probabilities over legal tokens with those over all; leave it out"),
}

_NEUTRAL: dict[str, tuple[Any, ...]] = {  # settings of GRPOConfig, and the values at which they do nothing
    "top_k": (None, 0, -1),
    "top_p": (None, 1.0),
    "min_p": (None, 0.0),
    "repetition_penalty": (None, 1.0),
    "generation_kwargs": (None, {}),
}
_SHAPED = "would shape TRL's own sampling, which this is not: draws follow the model at `temperature`; leave it out"


def constrained_rollout(sids: SidTokens) -> Callable[[list[Any], Any], dict[str, list[Any]]]:
    """A `rollout_func` whose completions are SIDs of the catalog, their tokens and nothing else, drawn independently.

    A group's prompt is computed once, and logits of a level's codes alone. `logprobs` are those of the draw: the softmax over
    the legal tokens at the trainer's temperature. Draws depend on the run's seed, not on the number of processes.

    Raises (the function, when TRL calls it):
        TrainError: sharded weights, a setting of TRL that does not go with it, a model whose logits are not hidden state times
            output matrix, or probabilities that are not finite.
    """
    return _Rollout(sids)


class _Rollout:
    def __init__(self, sids: SidTokens) -> None:
        self._sids, self._calls = sids, 0
        self._model: SidModel | None = None

    def __call__(self, prompts: list[Any], trainer: Any) -> dict[str, list[Any]]:
        group = trainer.num_generations if trainer.model.training else trainer.num_generations_eval
        if any(prompt != prompts[row - row % group] for row, prompt in enumerate(prompts)) or len(prompts) % group:
            group = 1  # evaluation may cut a group in two
        ids = [[*row, *self._sids.begin] for row in trainer._tokenize_prompts(prompts[::group])[0]]
        _check(trainer, self._sids)
        accelerator, lm = trainer.accelerator, trainer.accelerator.unwrap_model(trainer.model)
        seed = derive_seed(trainer.args.seed, "rollout", trainer.state.global_step, self._calls)
        part = Part(accelerator.process_index * len(ids), accelerator.num_processes * len(ids))
        config, was_training = RolloutConfig(temperature=trainer.temperature), lm.training
        self._calls += 1
        lm.eval()
        try:
            with accelerator.autocast():
                tokens, generator = _padded(ids).to(accelerator.device), torch.Generator().manual_seed(seed)
                found = sample_rollouts(self._fitted(lm), tokens, group, generator, config, part)
        finally:
            lm.train(was_training)
        offset = torch.tensor(self._sids.offset, device=found.sids_PGL.device)
        return {
            "prompt_ids": [row for row in ids for _ in range(group)],
            "completion_ids": (found.sids_PGL + offset).flatten(0, 1).tolist(),
            "logprobs": found.logprobs_PGL.flatten(0, 1).tolist(),
        }

    def _fitted(self, lm: Any) -> SidModel:
        if self._model is None or self._model.lm is not lm:
            self._model = SidModel(lm, self._sids.catalog, self._sids.vocabulary(), dropout=0.0).to(lm.device).eval()
            check_logits(self._model, lm.config._name_or_path)
        return self._model


def _check(trainer: Any, sids: SidTokens) -> None:
    for name, (allowed, mend) in _REFUSED.items():
        value = getattr(trainer, name)
        require(value == allowed, name, value, mend)
    for name, neutral in _NEUTRAL.items():
        value = getattr(trainer.args, name, None)
        require(value in neutral, name, value, _SHAPED)
    levels, most = sids.catalog.levels, trainer.max_completion_length
    require(most is None or most >= levels, "max_completion_length", most, f"is shorter than a semantic ID; set it to {levels}")
    kind = str(getattr(trainer.accelerator.distributed_type, "value", trainer.accelerator.distributed_type))
    mend = "shards the weights, which constrained_rollout reads whole; use data-parallel processes"
    require(kind == "NO" or kind.startswith("MULTI_"), "accelerate.distributed_type", kind, mend)


def _padded(ids: list[list[int]]) -> PromptTokens:
    width = max(map(len, ids))
    tokens = torch.tensor([[0] * (width - len(row)) + row for row in ids])
    return PromptTokens(tokens, torch.arange(width) >= width - torch.tensor([len(row) for row in ids])[:, None])
