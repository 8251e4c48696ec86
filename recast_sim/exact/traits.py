"""What a constructor's coefficients depend on, found by trying it on random groups.

Axes: N groups, G rollouts, C classes (0 is the hits).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from recast_sim.exact.group_sums import ExactError, GroupSums, sums_of
from recast_sim.signal import SignalConfig, get_constructor
from recast_sim.world.generators import torch_generator

_SUPPLIED = {"logprob_PG", "anchor_logprob_P", "anchor_logprob_PL", "sids_PGL", "targets_PTL"}
_PROBES = 96  # groups that a constructor is tried on


@dataclass(frozen=True)
class Traits:
    """What a constructor depends on: the structural scores; the class of the last slot's row; and whether it is level-wise."""

    structural: bool
    last_slot: bool
    level_wise: bool


def traits_of(constructor: str, config: SignalConfig, group_size: int, scores_C: Tensor, levels: int) -> Traits:
    """Try a constructor on random groups and see what its coefficients depend on.

    Raises:
        ExactError: other groups of the batch, log-probabilities of the rollouts, codes beyond those that a rollout shares with
            the target, or the order of the rows (beyond the last slot) matter, so that class counts do not determine a
            group's estimate.
    """
    if unknown := set(get_constructor(constructor).needs) - _SUPPLIED:
        raise ExactError(f"{constructor}: needs {', '.join(sorted(unknown))}")
    generator = torch_generator(0, "probes", group_size)
    class_NG = probe_groups(group_size, len(scores_C), generator)
    flat_C = torch.zeros_like(scores_C).index_fill(0, torch.tensor(0), 1.0)

    def run(classes: Tensor, scores: Tensor, draws: tuple[int, int, int] = (0, 0, 0)) -> GroupSums:
        return sums_of(constructor, config, classes, scores, levels, draws=draws)

    def sums(classes: Tensor, scores: Tensor) -> Tensor:
        return run(classes, scores).coefficients()

    structural = not equal(sums(class_NG, scores_C), sums(class_NG, flat_C))
    if not structural:
        class_NG, scores_C = class_NG.clamp(max=1), flat_C[:2]
    first = run(class_NG, scores_C)
    whole, rows_NGW = first.coefficients(), first.sampled_NGW
    for draws, what in (
        ((1, 0, 0), "the rollouts' log-probabilities"),
        ((0, 0, 1), "codes beyond those shared with the target"),
    ):
        if not equal(rows_NGW, run(class_NG, scores_C, draws).sampled_NGW):
            raise ExactError(f"{constructor}: depends on {what}")
    if not equal(whole, run(class_NG, scores_C, (0, 1, 0)).coefficients()):
        raise ExactError(f"{constructor}: depends on chance beyond ties within a class")
    if not all(equal(whole[part], sums(class_NG[part], scores_C)) for part in _other_batches(class_NG, generator)):
        raise ExactError(f"{constructor}: depends on the other groups of the batch")
    last_slot = not equal(whole, sums(_shuffled(class_NG, generator), scores_C))
    if last_slot:
        but_last = torch.cat([_shuffled(class_NG[:, :-1], generator), class_NG[:, -1:]], dim=1)
        if not equal(whole, sums(but_last, scores_C)):
            raise ExactError(f"{constructor}: depends on the order of the rows")
    return Traits(structural, last_slot, rows_NGW.shape[2] > 1)


def probe_groups(group_size: int, classes: int, generator: torch.Generator) -> Tensor:
    """Random groups with 0, 1, .. G hits and misses of few or many classes, int64 (N, G)."""
    hits = torch.arange(_PROBES) % (group_size + 1)
    hits[::4] = 0
    kinds = torch.randint(1, classes, (_PROBES, 1), generator=generator)
    start = torch.randint(classes - 1, (_PROBES, 1), generator=generator)
    draw = torch.randint(classes - 1, (_PROBES, group_size), generator=generator)
    miss = 1 + (start + draw % kinds) % (classes - 1)
    return _shuffled(torch.where(torch.arange(group_size) < hits[:, None], 0, miss), generator)


def _other_batches(class_NG: Tensor, generator: torch.Generator) -> list[Tensor]:
    """Indices of some of the groups, for each of several batches that differ in share of hits, spread and size."""
    hit_N = (class_NG == 0).any(1)
    half = torch.randperm(len(class_NG), generator=generator)[: len(class_NG) // 2]
    return [hit_N.nonzero()[:, 0], (~hit_N).nonzero()[:, 0], half, *hit_N.nonzero()[:4]]


def _shuffled(rows_NG: Tensor, generator: torch.Generator) -> Tensor:
    return rows_NG.gather(1, torch.rand(rows_NG.shape, generator=generator).argsort(1))


def equal(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-9, atol=1e-12)
