"""From a process's rollouts and TRL's rewards to the signal over all processes' groups, the same on each.

Axis letters: P groups of all processes, G rollouts, R rows of this process, C columns.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor
from trl.trainer.utils import pad

from recast_sim.runs import derive_seed
from recast_sim.signal import Signal, construct
from recast_train.adapters.trl.batch_checks import bad_row, checked_anchor
from recast_train.adapters.trl.contract import Generated
from recast_train.adapters.trl.process_rows import Tokens
from recast_train.adapters.trl.signal_settings import Example, SignalSettings
from recast_train.adapters.trl.unscored import scored_groups, signal_of_scored
from recast_train.model import require


def group_signal(
    trainer: Any,
    settings: SignalSettings,
    examples: list[Example],
    generated: Generated,
    anchors: Sequence[Tokens | None],
    rewards: Tensor,
) -> Signal:
    """The constructor's signal.

    `examples`, `generated` and `anchors` (one a group) are this process's, `rewards` those of all processes.
    A row that no reward function scores is not valid; a group without a valid one, or with an infinite reward, is left out.

    Raises:
        SignalError: an input that the constructor refuses.
    """
    rule, G = settings.constructor, trainer.num_generations
    structural, logprob = torch.zeros(2, len(examples))
    anchor_logprob_PL = torch.zeros(len(anchors), 1)
    if rule.structural and settings.structural is not None:
        scores = settings.structural(generated.completion_ids, examples)
        mend = f"scores came back for {len(examples)} completions; give one each"
        require(len(scores) == len(examples), "structural", len(scores), mend)
        structural = torch.as_tensor(scores, dtype=torch.float32).cpu()
    if settings.reads_logprobs and generated.logprobs is not None:
        logprob = torch.tensor([sum(math.nan if x is None else x for x in row) for row in generated.logprobs])
    if settings.reads_anchor_logprobs:
        anchor_logprob_PL = _anchor_logprobs(trainer, settings, generated.prompt_ids[::G], anchors, examples[::G])
    has_anchor = torch.tensor([float(anchor is not None) for anchor in anchors]).repeat_interleave(G)
    own_RC = torch.stack([structural, logprob, has_anchor], 1)
    own_RC = torch.cat([own_RC, anchor_logprob_PL.repeat_interleave(G, 0)], 1).to(trainer.accelerator.device)
    every_PGC = trainer.accelerator.gather(own_RC).cpu().view(-1, G, own_RC.shape[1])
    structural, logprob, has_anchor = every_PGC[..., :3].unbind(2)
    anchor_logprob_PL = every_PGC[:, 0, 3:]
    by_level = _codes(settings, examples, generated, G) if settings.reads_levels else {}
    total_PG = (rewards * trainer.reward_weights.to(rewards.device)).nansum(1).cpu().view(-1, G)
    valid_PG, scored_P = ~rewards.isnan().all(1).cpu().view(-1, G), scored_groups(rewards.cpu(), G)
    if not scored_P.any():  # the first group stands in for all, and is left out as well
        total_PG, valid_PG = torch.zeros_like(total_PG), torch.ones_like(valid_PG)
    given = {
        "valid_PG": valid_PG,
        "has_anchor_P": has_anchor[:, 0] > 0,
        "logprob_PG": logprob if settings.reads_logprobs and generated.logprobs is not None else None,
        "anchor_logprob_P": anchor_logprob_PL.sum(1) if settings.reads_anchor_logprobs else None,
        "anchor_logprob_PL": anchor_logprob_PL if settings.reads_anchor_logprobs and settings.reads_levels else None,
        **by_level,
    }

    def build(at_K: Tensor) -> Signal:
        return construct(
            rule,
            total_PG[at_K],
            structural[at_K] if rule.structural else None,
            **{name: None if table is None else table[at_K] for name, table in given.items()},
            config=settings.config,
            generator=torch.Generator().manual_seed(derive_seed(trainer.args.seed, "ties", trainer._step)),
        )

    trainer._metrics["train"]["recast/unscored"].append(float((~scored_P).sum()))
    return signal_of_scored(scored_P, build)


def anchor_tokens(trainer: Any, settings: SignalSettings, example: Example, row: int) -> Tokens | None:
    """Token ids of an example's anchor, None where it has none. Raises TrainError, naming the row, for what is no anchor."""
    anchor, prompt = settings.anchor, example.get("prompt")
    known = not isinstance(anchor, str) or anchor in example
    require(known, "anchor", repr(anchor), f"is no column of the data set, which has {', '.join(example)}")
    found = example[anchor] if isinstance(anchor, str) else anchor and anchor(example)
    if found is None:
        return None
    tokens = checked_anchor(trainer, found, row, prompt)
    targets = settings.first_sid_and_targets(tokens, example)
    if targets is not None and targets[0] not in targets[1]:
        mend = f"is {targets[0] or 'no semantic ID'}, none of the row's targets {targets[1]}; give the target's own tokens"
        raise bad_row("anchor", row, prompt, tokens, mend)
    return tokens


def _codes(settings: SignalSettings, examples: list[Example], generated: Generated, G: int) -> dict[str, Tensor]:
    """Codes of all processes' rollouts and targets."""
    assert settings.levels is not None  # the settings have seen to it
    own = settings.levels(generated.completion_ids, examples)
    sids, targets = gather_object(own.sids), gather_object(own.targets)[::G]
    width = max([1, *map(len, targets)])
    padded = [[*row, *([[-1] * len(sids[0])] * (width - len(row)))] for row in targets]
    return {"sids_PGL": torch.tensor(sids).view(-1, G, len(sids[0])), "targets_PTL": torch.tensor(padded)}


def _anchor_logprobs(
    trainer: Any,
    settings: SignalSettings,
    prompt_ids: list[Tokens],
    anchors: Sequence[Tokens | None],
    examples: Sequence[Example],
) -> Tensor:
    """Log-probability of each group's anchor under the policy at TRL's temperature, 0 where it has none: (P, 1), or where
    levels are read (P, L), which leaves out the anchor's other tokens."""
    prompts, completions = ([torch.tensor(ids) for ids in side] for side in (prompt_ids, [a or [0] for a in anchors]))
    ids = torch.cat([pad(prompts, padding_side="left"), pad(completions)], 1)
    ones = [[torch.ones_like(row) for row in side] for side in (prompts, completions)]
    mask = torch.cat([pad(ones[0], padding_side="left"), pad(ones[1])], 1)
    length, device = max(map(len, completions)), trainer.accelerator.device
    with torch.no_grad():
        scores = trainer._get_per_token_logps_and_entropies(
            trainer.model, ids.to(device), mask.to(device), length, batch_size=trainer.args.per_device_train_batch_size
        )[0]
    there = torch.tensor([anchor is not None for anchor in anchors])
    scores_PS = scores.cpu().masked_fill(mask[:, -length:] == 0, 0.0).masked_fill(~there[:, None], 0.0)
    if not settings.reads_levels or settings.levels is None:
        return scores_PS.sum(1, keepdim=True)
    own = settings.levels([anchor or [] for anchor in anchors], examples)
    place_PL = torch.tensor(own.first)[:, None] + torch.arange(len(own.sids[0]))
    return scores_PS.gather(1, place_PL.clamp(max=length - 1)).masked_fill(~there[:, None], 0.0)
