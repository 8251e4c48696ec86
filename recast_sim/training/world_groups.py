"""Groups for one step of training or analysis: sampled, scored, turned into a signal by the shared module.

Axes: P prompts, G rollouts, N kept rows.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from recast_sim.signal import (
    Signal,
    SignalConfig,
    choose_anchor,
    construct,
    exact_hit,
    get_constructor,
    structural_score,
)
from recast_sim.world.environment import Environment
from recast_sim.world.generators import torch_generator
from recast_sim.world.policy import TreePolicy
from recast_sim.world.sampling import Sampler, WorldRollouts, sample


@dataclass(frozen=True)
class Batch:
    """Groups with everything the signal needs; `rollouts_drawn` counts every rollout, also those thrown away.

    `extras` are further arguments of `construct`, for the constructors that need them.
    """

    prompt_P: Tensor
    rollouts: WorldRollouts
    rewards_PG: Tensor
    structural_PG: Tensor
    anchor_leaf_P: Tensor
    anchor_logprob_P: Tensor
    rollouts_drawn: int
    extras: Mapping[str, Tensor] = field(default_factory=dict)


def roll_out(
    policy: TreePolicy,
    environment: Environment,
    prompt_P: Tensor,
    group_size: int,
    sampler: Sampler,
    config: SignalConfig,
    generator: torch.Generator,
) -> Batch:
    """Sample a group for each of the given train prompts and score it on ids."""
    x, targets_PT = environment.train.x_ND[prompt_P], environment.train.target_NT[prompt_P]
    rollouts = sample(policy, x, group_size, sampler, generator)
    codes = torch.from_numpy(environment.catalog.leaf_codes)
    with torch.no_grad():
        target_logprob_PT = policy.path_logprobs(x, targets_PT).sum(2)
    everything = torch.ones_like(targets_PT, dtype=torch.bool)
    chosen = choose_anchor(everything, config.anchor_choice, target_logprob_PT, generator)[:, None]
    return Batch(
        prompt_P=prompt_P,
        rollouts=rollouts,
        rewards_PG=exact_hit(codes[rollouts.leaf_PG], codes[targets_PT]),
        structural_PG=structural_score(codes[rollouts.leaf_PG], codes[targets_PT]),
        anchor_leaf_P=targets_PT.gather(1, chosen)[:, 0],
        anchor_logprob_P=target_logprob_PT.gather(1, chosen)[:, 0],
        rollouts_drawn=rollouts.leaf_PG.numel(),
    )


def signal_of(batch: Batch, constructor: str, config: SignalConfig, generator: torch.Generator) -> Signal:
    """The shared signal module on a batch; every prompt has an anchor."""
    return construct(
        constructor,
        batch.rewards_PG,
        batch.structural_PG,
        valid_PG=batch.rollouts.valid_PG,
        has_anchor_P=torch.ones_like(batch.prompt_P, dtype=torch.bool),
        logprob_PG=batch.rollouts.logprob_PG,
        anchor_logprob_P=batch.anchor_logprob_P,
        length_PG=torch.ones_like(batch.rollouts.leaf_PG),
        config=config,
        generator=generator,
        **batch.extras,
    )


def draw_batch(
    draw: Callable[[int], Batch], constructor: str, config: SignalConfig, groups: int, max_draws: int, seed: int
) -> Batch:
    """Groups for one step. A constructor that redraws gets only groups it accepts, from at most `max_draws` draws.

    Args:
        draw: gives the batch of the n-th attempt.
        seed: of the random ties in the redraw decision.
    """
    if not get_constructor(constructor).redraws:
        return draw(0)
    parts: list[tuple[Batch, Tensor]] = []
    for attempt in range(max_draws):
        part = draw(attempt)
        signal = signal_of(part, constructor, config, torch_generator(seed, "redraw", attempt))
        parts.append((part, ~signal.redraw_P))
        if sum(int(kept.sum()) for _, kept in parts) >= groups:
            break
    return _join(parts, groups)


def kept_leaves(batch: Batch, signal: Signal) -> Tensor:
    """Leaf of each kept row, the anchor's where one was placed, (N,)."""
    group, row = signal.plan.rows_N // signal.group_size, signal.plan.rows_N % signal.group_size
    own = batch.rollouts.leaf_PG[group, row.clamp(max=batch.rollouts.leaf_PG.shape[1] - 1)]  # beyond the sampled: an anchor
    return torch.where(signal.plan.anchor_N, batch.anchor_leaf_P[group], own)


def _join(parts: Sequence[tuple[Batch, Tensor]], groups: int) -> Batch:
    """The accepted groups of several draws, at most `groups`; where none was accepted, the first group of the last draw."""
    if not any(bool(kept.any()) for _, kept in parts):
        parts[-1][1][0] = True

    def rows(column: Callable[[Batch], Tensor]) -> Tensor:
        return torch.cat([column(batch)[kept] for batch, kept in parts])[:groups]

    return Batch(
        prompt_P=rows(lambda b: b.prompt_P),
        rollouts=WorldRollouts(
            rows(lambda b: b.rollouts.leaf_PG), rows(lambda b: b.rollouts.logprob_PG), rows(lambda b: b.rollouts.valid_PG)
        ),
        rewards_PG=rows(lambda b: b.rewards_PG),
        structural_PG=rows(lambda b: b.structural_PG),
        anchor_leaf_P=rows(lambda b: b.anchor_leaf_P),
        anchor_logprob_P=rows(lambda b: b.anchor_logprob_P),
        rollouts_drawn=sum(batch.rollouts_drawn for batch, _ in parts),
        extras={name: rows(lambda b, name=name: b.extras[name]) for name in parts[0][0].extras},
    )
