"""Rollout groups over the leaves of a catalog, for the simulator and the trainer alike: scored, redrawn, kept and logged.

Axes: P prompts, G rollouts, T targets (-1 on the right where a prompt has fewer), Y leaves, L levels, N kept rows.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from recast_sim.signal.construct import Signal, construct
from recast_sim.signal.plan import UpdatePlan
from recast_sim.signal.regime import regime_codes
from recast_sim.signal.registry import Constructor
from recast_sim.signal.signal_config import SignalConfig
from recast_sim.signal.structural import structural_score

Part = TypeVar("Part")


@dataclass(frozen=True)
class ScoredGroups:
    """Groups with everything that the signal needs.

    Attributes:
        prompt_P: the prompts' numbers.
        leaf_PG, logprob_PG, valid_PG: the sampled leaves, their log-probabilities, and which of them count.
        rewards_PG, structural_PG: exact hits, and structural scores.
        anchor_leaf_P: leaf of the target that is the anchor.
        levels: of a semantic ID, the tokens of a row.
        drawn: every rollout that was generated for them, also those thrown away.
        extras: further arguments of `construct` by name, prompts first.
    """

    prompt_P: Tensor
    leaf_PG: Tensor
    logprob_PG: Tensor
    valid_PG: Tensor
    rewards_PG: Tensor
    structural_PG: Tensor
    anchor_leaf_P: Tensor
    levels: int
    drawn: int
    extras: Mapping[str, Tensor] = field(default_factory=dict)


def score_leaves(codes_YL: Tensor, leaf_PG: Tensor, target_PT: Tensor) -> tuple[Tensor, Tensor]:
    """Exact hits of any target, and structural scores against the best target, both float (P, G)."""
    there_PT = target_PT >= 0
    hits_PG = ((leaf_PG[:, :, None] == target_PT[:, None]) & there_PT[:, None]).any(2).float()  # a leaf is an SID
    return hits_PG, structural_score(codes_YL[leaf_PG], codes_YL[target_PT.clamp(min=0)], target_mask_PT=there_PT)


def level_codes(
    constructor: Constructor, codes_YL: Tensor, leaf_PG: Tensor, target_PT: Tensor, anchor_P: Tensor
) -> dict[str, Tensor]:
    """The codes that a level-wise constructor reads, as arguments of `construct`; none for one that says it needs none."""
    if not {"sids_PGL", "targets_PTL"} & set(constructor.needs):
        return {}
    targets_PTL = codes_YL[target_PT.clamp(min=0)].masked_fill((target_PT < 0)[..., None], -1)
    return {"sids_PGL": codes_YL[leaf_PG], "targets_PTL": targets_PTL, "anchor_sids_PL": codes_YL[anchor_P]}


def signal_of(groups: ScoredGroups, constructor: Constructor, config: SignalConfig, generator: torch.Generator) -> Signal:
    """The signal of groups in which every prompt has an anchor; `generator` breaks random ties."""
    return construct(
        constructor,
        groups.rewards_PG,
        groups.structural_PG,
        valid_PG=groups.valid_PG,
        has_anchor_P=torch.ones(len(groups.prompt_P), dtype=torch.bool),
        logprob_PG=groups.logprob_PG,
        length_PG=groups.levels,
        config=config,
        generator=generator,
        **groups.extras,
    )


def redraw(
    draw: Callable[[int], Part], refused: Callable[[int, Part], Tensor], groups: int, max_draws: int
) -> list[tuple[Part, Tensor]]:
    """Batches from `draw(attempt)` with the groups of each that are kept, bool (P,), until `groups` are or draws run out.

    Where none was accepted, the first group of the last draw is kept.

    Args:
        refused: the signal's `redraw_P` of an attempt's batch.
    """
    parts: list[tuple[Part, Tensor]] = []
    for attempt in range(max_draws):
        part = draw(attempt)
        parts.append((part, ~refused(attempt, part)))
        if sum(int(kept.sum()) for _, kept in parts) >= groups:
            break
    if not any(bool(kept.any()) for _, kept in parts):
        parts[-1][1][0] = True
    return parts


def joined(parts: Sequence[tuple[Part, Tensor]], column: Callable[[Part], Tensor], groups: int) -> Tensor:
    """A column of the kept groups of several batches, at most `groups` of them."""
    return torch.cat([column(part)[kept] for part, kept in parts])[:groups]


def join(parts: Sequence[tuple[ScoredGroups, Tensor]], groups: int) -> ScoredGroups:
    """The kept groups of several batches as one; every rollout of all batches was drawn for them."""
    first = parts[0][0]
    names = ("prompt_P", "leaf_PG", "logprob_PG", "valid_PG", "rewards_PG", "structural_PG", "anchor_leaf_P")
    columns = {name: joined(parts, lambda part, name=name: getattr(part, name), groups) for name in names}
    extras = {name: joined(parts, lambda part, name=name: part.extras[name], groups) for name in first.extras}
    return ScoredGroups(**columns, levels=first.levels, drawn=sum(part.drawn for part, _ in parts), extras=extras)


def kept_leaves(groups: ScoredGroups, plan: UpdatePlan, group_size: int, own_P: Tensor | None = None) -> Tensor:
    """Leaf of each row of a plan, (N,), the anchor's where it is one.

    Args:
        group_size: the signal's, by which `plan.rows_N` counts.
        own_P: where the plan is over some of the groups, their places among all.
    """
    group, row = plan.rows_N // group_size, plan.rows_N % group_size
    group = group if own_P is None else own_P[group]
    sampled = groups.leaf_PG[group, row.clamp(max=groups.leaf_PG.shape[1] - 1)]  # a row beyond the sampled ones is an anchor
    return torch.where(plan.anchor_N, groups.anchor_leaf_P[group], sampled)


def signal_row(signal: Signal, sampled: bool = True) -> dict[str, float]:
    """A step's columns: regimes before and after (none where nothing was `sampled`), learnable and repaired shares, width."""
    row: dict[str, float] = {}
    if sampled:
        row |= {f"before_{name}": share for name, share in asdict(signal.regime_before).items()}
        row |= {f"after_{name}": share for name, share in asdict(signal.regime_after).items()}
    row["learnable"] = float(signal.learnable_P.float().mean())
    row["repaired"] = float(signal.repaired_P.float().mean())
    row["update_width"] = len(signal.plan.rows_N) / len(signal.learnable_P)
    return row


def group_rows(step: int, prompt_P: Tensor, signal: Signal) -> dict[str, Any]:
    """A step's groups as columns: step, prompt, hits, valid rollouts, regime, repaired, learnable."""
    valid_P = signal.before.valid_PG.sum(1)
    return {
        "step": [step] * len(valid_P),
        "prompt": prompt_P.numpy(),
        "hits": signal.hits_before_P.numpy(),
        "valid": valid_P.numpy(),
        "regime": regime_codes(signal.hits_before_P, valid_P).numpy(),
        "repaired": signal.repaired_P.numpy(),
        "learnable": signal.learnable_P.numpy(),
    }
