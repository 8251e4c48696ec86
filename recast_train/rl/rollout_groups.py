"""Rollout groups of one step of the real trainer: sampled or left out, scored on ids, handed to the signal module.

Axis letters: P prompts, G rollouts, L levels, N kept rows.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recast_sim.runs import derive_seed
from recast_sim.signal import Constructor, SignalConfig
from recast_sim.signal.groups import ScoredGroups, join, joined, level_codes, redraw, score_leaves, signal_of
from recast_train.engine import Engine
from recast_train.model import PromptTokens, TrainError, Vocabulary
from recast_train.rollout import Part, RolloutConfig, ThoughtMarkers, sample_rollouts, sample_thoughts
from recast_train.rollout.targets import choose_anchors, needs_logprobs, path_logprobs


@dataclass(frozen=True)
class TrainPrompts:
    """All train prompts as tokens, and the leaves of each one's targets, -1 on the right where it has fewer."""

    tokens: PromptTokens
    target_leaf_NT: Tensor

    def __len__(self) -> int:
        return len(self.target_leaf_NT)


@dataclass(frozen=True)
class Groups:
    """Groups of a step with the prompts' tokens; the same on all ranks.

    Attributes:
        scored: what the signal needs; `drawn` counts valid rollouts alone. For a constructor that needs no rollouts the groups
            hold one dummy miss each, `sampled` is false and `drawn` is 0.
        tokens: the prompts, with their thoughts where there are some; log-probabilities are given them.
        sampled: rollouts were generated.
        thought_tokens: every token of a thought, also of groups that were thrown away.
        reward_seconds: the time that rewards and structural scores took.
    """

    scored: ScoredGroups
    tokens: PromptTokens
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

    def attempt(number: int) -> Groups:
        generator = torch.Generator().manual_seed(derive_seed(seed, number))
        return draw(torch.randint(len(train), size[:1], generator=generator), generator)

    def refused(number: int, groups: Groups) -> Tensor:
        ties = torch.Generator().manual_seed(derive_seed(derive_seed(seed, number), "redraw"))
        return signal_of(groups.scored, constructor, config, ties).redraw_P.cpu()

    return _join(redraw(attempt, refused, size[0], max_draws), size[0]) if constructor.redraws else attempt(0)


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
        known = PromptTokens(tokens.tokens_PT[share], tokens.real_PT[share])
        logprob_PTL = self._target_logprobs(known, target_PT[share])
        of_anchors = derive_seed(generator.initial_seed(), "anchors")
        anchor_P, extras = choose_anchors(target_PT, self.config, logprob_PTL, of_anchors)
        if self.constructor.rollouts:
            hint_P = target_PT[share, 0] if self.rollout.hint_levels else None
            rollouts = self.model(sample_rollouts, own, self.group_size, generator, self.rollout, part, hint_P)
            drawn = tuple(map(self.engine.gather, (rollouts.leaf_PG, rollouts.logprob_PG, rollouts.valid_PG)))
        else:
            nothing = torch.zeros(len(prompt_P), 1)
            drawn = (torch.zeros_like(nothing, dtype=torch.int64), nothing, torch.ones_like(nothing, dtype=torch.bool))
        begun = time.perf_counter()
        scored = self._scored(prompt_P, target_PT, anchor_P, drawn, extras)
        return Groups(scored, tokens, self.constructor.rollouts, thought_tokens, time.perf_counter() - begun)

    def _scored(
        self,
        prompt_P: Tensor,
        target_PT: Tensor,
        anchor_P: Tensor,
        drawn: tuple[Tensor, ...],
        extras: dict[str, Tensor],
    ) -> ScoredGroups:
        leaf_PG, logprob_PG, valid_PG = drawn
        codes_YL = self.engine.unwrap(self.model).table("leaf_codes", index=leaf_PG)
        rewards_PG, structural_PG = score_leaves(codes_YL, leaf_PG, target_PT)
        if not self.constructor.rollouts:
            rewards_PG, structural_PG = torch.zeros_like(rewards_PG), torch.zeros_like(structural_PG)
        return ScoredGroups(
            prompt_P=prompt_P,
            leaf_PG=leaf_PG,
            logprob_PG=logprob_PG,
            valid_PG=valid_PG,
            rewards_PG=rewards_PG,
            structural_PG=structural_PG,
            anchor_leaf_P=anchor_P,
            levels=codes_YL.shape[1],
            drawn=int(valid_PG.sum()) if self.constructor.rollouts else 0,
            extras={**extras, **level_codes(self.constructor, codes_YL, leaf_PG, target_PT, anchor_P)},
        )

    def _think(self, own: PromptTokens, part: Part, generator: torch.Generator) -> tuple[PromptTokens, int]:
        """The prompts with their thoughts, as they are where none is asked for, and the tokens of all ranks' thoughts."""
        if not self.rollout.thought.max_tokens:
            return own, 0
        markers = thought_markers(self.engine.unwrap(self.model).vocabulary)
        longer, thoughts = self.model(sample_thoughts, own, self.rollout.thought, markers, generator, part)
        return longer, int(self.engine.all_sum(float(thoughts.sampled_PS.sum()))[0])

    def _gathered(self, own: PromptTokens) -> PromptTokens:
        """All ranks' prompts, which may differ in width."""
        width = int(self.engine.gather(torch.tensor([own.tokens_PT.shape[1]])).max())
        tokens, real = (self.engine.gather(padded(table_PT, width)) for table_PT in (own.tokens_PT, own.real_PT))
        return PromptTokens(tokens, real)

    def _target_logprobs(self, own: PromptTokens, target_PT: Tensor) -> Tensor | None:
        """Log-probability of each code of every prompt's targets, where the anchor's choice, the constructor or the weighting
        needs it."""
        if not needs_logprobs(target_PT, self.constructor, self.config):
            return None
        with torch.no_grad():
            return self.engine.gather(self.model(path_logprobs, own, target_PT, self.rollout.temperature))


def thought_markers(vocabulary: Vocabulary) -> ThoughtMarkers:
    """What stands around a thought. Raises TrainError for a vocabulary without any."""
    if vocabulary.thought_end is None:
        raise TrainError("rollout.thought: this vocabulary has no thoughts; it needs a chat template and </think>")
    return ThoughtMarkers(end=vocabulary.thought_end, begin=vocabulary.begin)


def padded(table_PT: Tensor, width: int) -> Tensor:
    """A table of prompts, padded on the left to a width."""
    return torch.nn.functional.pad(table_PT, (width - table_PT.shape[1], 0))


def _join(parts: Sequence[tuple[Groups, Tensor]], count: int) -> Groups:
    width = max(groups.tokens.tokens_PT.shape[1] for groups, _ in parts)
    tokens_PT, real_PT = (
        joined(parts, lambda groups, name=name: padded(getattr(groups.tokens, name), width), count)
        for name in ("tokens_PT", "real_PT")
    )
    return Groups(
        scored=join([(groups.scored, kept_P) for groups, kept_P in parts], count),
        tokens=PromptTokens(tokens_PT, real_PT),
        sampled=True,
        thought_tokens=sum(groups.thought_tokens for groups, _ in parts),
        reward_seconds=sum(groups.reward_seconds for groups, _ in parts),
    )
