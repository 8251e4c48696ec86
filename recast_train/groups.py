"""Rollout groups of one step of the real trainer: sampled or left out, scored on ids, handed to the signal module.

Axis letters: P prompts, G rollouts, L levels, N kept rows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recast_sim.runs import derive_seed
from recast_sim.signal import (
    Constructor,
    Signal,
    SignalConfig,
    construct,
)
from recast_train.model import PromptTokens, SidModel, TrainError
from recast_train.rollout import RolloutConfig, ThoughtMarkers, Thoughts, sample_rollouts, sample_thoughts
from recast_train.targets import choose_anchors, needs_logprobs, path_logprobs, rewards


@dataclass(frozen=True)
class TrainPrompts:
    """All train prompts as tokens, and the leaves of each one's targets, -1 on the right where it has fewer."""

    tokens: PromptTokens
    target_leaf_NT: Tensor

    def __len__(self) -> int:
        return len(self.target_leaf_NT)


@dataclass(frozen=True)
class Groups:
    """Groups with everything that the signal needs.

    `drawn` counts every valid rollout, also those of groups that were thrown away. For a constructor that needs no rollouts
    the groups hold one dummy miss each, `sampled` is false and `drawn` is 0. `target_leaf_P` is the target that is the anchor.
    Where there are `thoughts`, `tokens` hold them, and the log-probabilities of rollouts and anchors are given them.
    """

    prompt_P: Tensor
    tokens: PromptTokens
    target_leaf_P: Tensor
    leaf_PG: Tensor
    logprob_PG: Tensor
    valid_PG: Tensor
    rewards_PG: Tensor
    structural_PG: Tensor
    anchor_logprob_P: Tensor | None
    thoughts: Thoughts | None
    drawn: int
    sampled: bool


def draw_groups(
    model: SidModel,
    train: TrainPrompts,
    constructor: Constructor,
    config: SignalConfig,
    size: tuple[int, int],
    max_draws: int,
    seed: int,
    rollout: RolloutConfig | None = None,
    markers: ThoughtMarkers | None = None,
) -> Groups:
    """Groups of one step, (P, G) = `size`; `seed` is the step's own. Prompts do not depend on the constructor.

    A constructor that redraws (dapo) gets only groups that it accepts, from at most `max_draws` draws; where it accepts
    none, the first group of the last draw.

    Args:
        rollout: default independent draws at temperature 1. Log-probabilities, the anchor's too, are at its temperature.
        markers: token ids around a thought, where `rollout` asks for thoughts.

    Raises:
        TrainError: thoughts without markers, or a probability that is not finite.
    """
    rollout = rollout or RolloutConfig()
    parts: list[tuple[Groups, Tensor]] = []
    for attempt in range(max_draws if constructor.redraws else 1):
        of_attempt = derive_seed(seed, attempt)
        generator = torch.Generator().manual_seed(of_attempt)
        prompt_P = torch.randint(len(train), size[:1], generator=generator)
        groups = _draw(model, train, prompt_P, constructor, config, size[1], generator, rollout, markers)
        if not constructor.redraws:
            return groups
        parts.append((groups, ~signal_of(groups, constructor.name, config, derive_seed(of_attempt, "redraw")).redraw_P.cpu()))
        if sum(int(kept.sum()) for _, kept in parts) >= size[0]:
            break
    return _join(parts, size[0])


def signal_of(groups: Groups, constructor: str, config: SignalConfig, seed: int) -> Signal:
    """The shared signal module on the groups; every prompt has an anchor. `seed` breaks random ties."""
    return construct(
        constructor,
        groups.rewards_PG,
        groups.structural_PG,
        valid_PG=groups.valid_PG,
        has_anchor_P=torch.ones(len(groups.prompt_P), dtype=torch.bool),
        logprob_PG=groups.logprob_PG,
        anchor_logprob_P=groups.anchor_logprob_P,
        length_PG=torch.ones_like(groups.rewards_PG),
        config=config,
        generator=torch.Generator().manual_seed(seed),
    )


def kept_leaves(groups: Groups, signal: Signal) -> Tensor:
    """Leaf of each kept row, the anchor's where it is one, (N,)."""
    group, row = signal.plan.rows_N // signal.group_size, signal.plan.rows_N % signal.group_size
    own = groups.leaf_PG[group, row.clamp(max=groups.leaf_PG.shape[1] - 1)]  # a row beyond the sampled ones is an anchor
    return torch.where(signal.plan.anchor_N, groups.target_leaf_P[group], own)


def _draw(
    model: SidModel,
    train: TrainPrompts,
    prompt_P: Tensor,
    constructor: Constructor,
    config: SignalConfig,
    group_size: int,
    generator: torch.Generator,
    rollout: RolloutConfig,
    markers: ThoughtMarkers | None,
) -> Groups:
    tokens, target_PT = train.tokens.take(prompt_P), train.target_leaf_NT[prompt_P]
    on_device, thoughts = _think(model, tokens.to(model.device), rollout, markers, generator)
    tokens = on_device.to(tokens.tokens_PT.device)
    logprob_PT = None
    if needs_logprobs(target_PT, constructor, config):
        with torch.no_grad():
            logprob_PT = path_logprobs(model, on_device, target_PT.to(model.device), rollout.temperature).cpu()
    of_anchors = derive_seed(generator.initial_seed(), "anchors")
    target_P, anchor_logprob_P = choose_anchors(target_PT, config, logprob_PT, of_anchors)
    if not constructor.rollouts:
        nothing = torch.zeros(len(prompt_P), 1)
        leaf = torch.zeros_like(nothing, dtype=torch.int64)
        valid = torch.ones_like(leaf, dtype=torch.bool)
        logprob_P = anchor_logprob_P
        return Groups(prompt_P, tokens, target_P, leaf, nothing, valid, nothing, nothing, logprob_P, thoughts, 0, False)
    rollouts = sample_rollouts(model, on_device, group_size, generator, rollout)
    rewards_PG, structural_PG = rewards(model.table("leaf_codes").cpu(), rollouts.leaf_PG.cpu(), target_PT)
    return Groups(
        prompt_P=prompt_P,
        tokens=tokens,
        target_leaf_P=target_P,
        leaf_PG=rollouts.leaf_PG.cpu(),
        logprob_PG=rollouts.logprob_PG.cpu(),
        valid_PG=rollouts.valid_PG.cpu(),
        rewards_PG=rewards_PG,
        structural_PG=structural_PG,
        anchor_logprob_P=anchor_logprob_P,
        thoughts=thoughts,
        drawn=int(rollouts.valid_PG.sum()),
        sampled=True,
    )


def _think(
    model: SidModel,
    tokens: PromptTokens,
    rollout: RolloutConfig,
    markers: ThoughtMarkers | None,
    generator: torch.Generator,
) -> tuple[PromptTokens, Thoughts | None]:
    """The prompts with their thoughts, which are on the CPU; as they are where none is asked for."""
    if not rollout.thought.max_tokens:
        return tokens, None
    if markers is None:
        raise TrainError("markers: None, and rollout.thought asks for thoughts; pass the end token and what begins a SID")
    tokens, thoughts = sample_thoughts(model, tokens, rollout.thought, markers, generator)
    return tokens, Thoughts(thoughts.tokens_PS.cpu(), thoughts.sampled_PS.cpu(), thoughts.logprobs_PS.cpu())


def _join(parts: Sequence[tuple[Groups, Tensor]], count: int) -> Groups:
    if not any(bool(kept.any()) for _, kept in parts):
        parts[-1][1][0] = True

    def rows(column: Callable[[Groups], Tensor]) -> Tensor:
        return torch.cat([column(groups)[kept] for groups, kept in parts])[:count]

    width = max(groups.tokens.tokens_PT.shape[1] for groups, _ in parts)

    def padded(table_PT: Tensor) -> Tensor:
        return torch.nn.functional.pad(table_PT, (width - table_PT.shape[1], 0))

    first = parts[0][0]
    thoughts = None
    if first.thoughts is not None:
        names = ("tokens_PS", "sampled_PS", "logprobs_PS")
        thoughts = Thoughts(*(rows(lambda g, name=name: getattr(g.thoughts, name)) for name in names))
    return Groups(
        prompt_P=rows(lambda g: g.prompt_P),
        tokens=PromptTokens(rows(lambda g: padded(g.tokens.tokens_PT)), rows(lambda g: padded(g.tokens.real_PT))),
        target_leaf_P=rows(lambda g: g.target_leaf_P),
        leaf_PG=rows(lambda g: g.leaf_PG),
        logprob_PG=rows(lambda g: g.logprob_PG),
        valid_PG=rows(lambda g: g.valid_PG),
        rewards_PG=rows(lambda g: g.rewards_PG),
        structural_PG=rows(lambda g: g.structural_PG),
        anchor_logprob_P=None if first.anchor_logprob_P is None else rows(lambda g: _known(g.anchor_logprob_P)),
        thoughts=thoughts,
        drawn=sum(groups.drawn for groups, _ in parts),
        sampled=True,
    )


def _known(value: Tensor | None) -> Tensor:
    assert value is not None  # all parts share one config
    return value
