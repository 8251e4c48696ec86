"""Rollout groups of one step of the real trainer: sampled or left out, scored on ids, handed to the signal module.

Axis letters: P prompts, G rollouts, L levels, N kept rows.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recast_sim.runs import derive_seed
from recast_sim.signal import (
    Constructor,
    Signal,
    SignalConfig,
    UpdatePlan,
    construct,
)
from recast_train.engine import Engine
from recast_train.model import PromptTokens, TrainError
from recast_train.rollout import Part, RolloutConfig, ThoughtMarkers, sample_rollouts, sample_thoughts
from recast_train.rollout.targets import choose_anchors, needs_logprobs, path_logprobs, rewards


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

    `drawn` counts every valid rollout and `thought_tokens` every token of a thought, also of groups that were thrown away.
    For a constructor that needs no rollouts the groups hold one dummy miss each, `sampled` is false and `drawn` is 0. `tokens`
    hold the thoughts where there are some, and the log-probabilities of rollouts and anchors are given them.
    `anchor_leaf_P` is the leaf of the target that is the anchor.
    `reward_seconds` is the time that rewards and structural scores took. The same on all ranks.
    """

    prompt_P: Tensor
    tokens: PromptTokens
    anchor_leaf_P: Tensor
    leaf_PG: Tensor
    logprob_PG: Tensor
    valid_PG: Tensor
    rewards_PG: Tensor
    structural_PG: Tensor
    anchor_logprob_P: Tensor | None
    drawn: int
    sampled: bool
    thought_tokens: int = 0
    reward_seconds: float = 0.0


def draw_groups(
    engine: Engine,
    model: nn.Module,
    train: TrainPrompts,
    constructor: Constructor,
    config: SignalConfig,
    size: tuple[int, int],
    max_draws: int,
    seed: int,
    rollout: RolloutConfig | None = None,
) -> Groups:
    """Groups of one step, (P, G) = `size`; `seed` is the step's own. Prompts do not depend on the constructor.

    Each rank rolls out its own share of the prompts, and all get all groups. A constructor that redraws (dapo) gets only groups
    that it accepts, from at most `max_draws` draws; where it accepts none, the first group of the last draw.

    Args:
        model: as `Engine.prepare` gave it.
        rollout: default independent draws at temperature 1. Log-probabilities, the anchor's too, are at its temperature.

    Raises:
        TrainError: P is not a multiple of the ranks, thoughts of a vocabulary without any, a probability that is not finite.
    """
    draw = _Draw(engine, model, train, constructor, config, size[1], rollout or RolloutConfig())
    parts: list[tuple[Groups, Tensor]] = []
    for attempt in range(max_draws if constructor.redraws else 1):
        of_attempt = derive_seed(seed, attempt)
        generator = torch.Generator().manual_seed(of_attempt)
        groups = draw(torch.randint(len(train), size[:1], generator=generator), generator)
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


def kept_leaves(groups: Groups, plan: UpdatePlan, group_size: int, prompt_P: Tensor) -> Tensor:
    """Leaf of each row of a plan over some of the groups (their places in `prompt_P`), the anchor's where it is one."""
    group, row = prompt_P[plan.rows_N // group_size], plan.rows_N % group_size
    own = groups.leaf_PG[group, row.clamp(max=groups.leaf_PG.shape[1] - 1)]  # a row beyond the sampled ones is an anchor
    return torch.where(plan.anchor_N, groups.anchor_leaf_P[group], own)


@dataclass(frozen=True)
class _Draw:
    """One draw of a batch of prompts."""

    engine: Engine
    model: nn.Module
    train: TrainPrompts
    constructor: Constructor
    config: SignalConfig
    group_size: int
    rollout: RolloutConfig

    def __call__(self, prompt_P: Tensor, generator: torch.Generator) -> Groups:
        whole, share = self.train.tokens.take(prompt_P), self.engine.share(len(prompt_P))
        target_PT = self.train.target_leaf_NT[prompt_P]
        part = Part(share.start, len(prompt_P))
        own = PromptTokens(whole.tokens_PT[share], whole.real_PT[share]).to(self.engine.device)
        own, thought_tokens = self._think(own, part, generator)
        tokens = self._gathered(own) if self.rollout.thought.max_tokens else whole
        logprob_PT = self._target_logprobs(own, target_PT[share])
        of_anchors = derive_seed(generator.initial_seed(), "anchors")
        anchor_P, anchor_logprob_P = choose_anchors(target_PT, self.config, logprob_PT, of_anchors)
        if not self.constructor.rollouts:
            nothing = torch.zeros(len(prompt_P), 1)
            leaf = torch.zeros_like(nothing, dtype=torch.int64)
            valid = torch.ones_like(leaf, dtype=torch.bool)
            scores = (nothing, nothing, anchor_logprob_P, 0, False, thought_tokens)
            return Groups(prompt_P, tokens, anchor_P, leaf, nothing, valid, *scores)
        rollouts = self.model(sample_rollouts, own, self.group_size, generator, self.rollout, part)
        leaf_PG, logprob_PG, valid_PG = map(self.engine.gather, (rollouts.leaf_PG, rollouts.logprob_PG, rollouts.valid_PG))
        begun = time.perf_counter()
        codes = self.engine.unwrap(self.model).table("leaf_codes").cpu()
        rewards_PG, structural_PG = rewards(codes, leaf_PG, target_PT)
        return Groups(
            prompt_P=prompt_P,
            tokens=tokens,
            anchor_leaf_P=anchor_P,
            leaf_PG=leaf_PG,
            logprob_PG=logprob_PG,
            valid_PG=valid_PG,
            rewards_PG=rewards_PG,
            structural_PG=structural_PG,
            anchor_logprob_P=anchor_logprob_P,
            drawn=int(valid_PG.sum()),
            sampled=True,
            thought_tokens=thought_tokens,
            reward_seconds=time.perf_counter() - begun,
        )

    def _think(self, own: PromptTokens, part: Part, generator: torch.Generator) -> tuple[PromptTokens, int]:
        """The prompts with their thoughts, as they are where none is asked for, and the tokens of all ranks' thoughts."""
        if not self.rollout.thought.max_tokens:
            return own, 0
        vocabulary = self.engine.unwrap(self.model).vocabulary
        if vocabulary.thought_end is None:
            raise TrainError("rollout.thought: this vocabulary has no thoughts; it needs a chat template and </think>")
        markers = ThoughtMarkers(end=vocabulary.thought_end, begin=vocabulary.begin)
        longer, thoughts = self.model(sample_thoughts, own, self.rollout.thought, markers, generator, part)
        return longer, int(self.engine.all_sum(float(thoughts.sampled_PS.sum()))[0])

    def _gathered(self, own: PromptTokens) -> PromptTokens:
        """All ranks' prompts, which may differ in width."""
        width = int(self.engine.gather(torch.tensor([own.tokens_PT.shape[1]])).max())
        tokens, real = (self.engine.gather(padded(table_PT, width)) for table_PT in (own.tokens_PT, own.real_PT))
        return PromptTokens(tokens, real)

    def _target_logprobs(self, own: PromptTokens, target_PT: Tensor) -> Tensor | None:
        """Log-probability of every prompt's targets, where the anchor's choice, the constructor or the weighting needs it."""
        if not needs_logprobs(target_PT, self.constructor, self.config):
            return None
        with torch.no_grad():
            rows = (own, target_PT.to(self.engine.device), self.rollout.temperature)
            return self.engine.gather(self.model(path_logprobs, *rows))


def padded(table_PT: Tensor, width: int) -> Tensor:
    """A table of prompts, padded on the left to a width."""
    return torch.nn.functional.pad(table_PT, (width - table_PT.shape[1], 0))


def _join(parts: Sequence[tuple[Groups, Tensor]], count: int) -> Groups:
    if not any(bool(kept.any()) for _, kept in parts):
        parts[-1][1][0] = True

    def rows(column: Callable[[Groups], Tensor]) -> Tensor:
        return torch.cat([column(groups)[kept] for groups, kept in parts])[:count]

    first, width = parts[0][0], max(groups.tokens.tokens_PT.shape[1] for groups, _ in parts)
    tokens = PromptTokens(
        rows(lambda g: padded(g.tokens.tokens_PT, width)),
        rows(lambda g: padded(g.tokens.real_PT, width)),
    )
    return Groups(
        prompt_P=rows(lambda g: g.prompt_P),
        tokens=tokens,
        anchor_leaf_P=rows(lambda g: g.anchor_leaf_P),
        leaf_PG=rows(lambda g: g.leaf_PG),
        logprob_PG=rows(lambda g: g.logprob_PG),
        valid_PG=rows(lambda g: g.valid_PG),
        rewards_PG=rows(lambda g: g.rewards_PG),
        structural_PG=rows(lambda g: g.structural_PG),
        anchor_logprob_P=None if first.anchor_logprob_P is None else rows(lambda g: _known(g.anchor_logprob_P)),
        drawn=sum(groups.drawn for groups, _ in parts),
        sampled=True,
        thought_tokens=sum(groups.thought_tokens for groups, _ in parts),
        reward_seconds=sum(groups.reward_seconds for groups, _ in parts),
    )


def _known(value: Tensor | None) -> Tensor:
    assert value is not None  # all parts share one config
    return value
