"""Which kind of signal acts on which groups and prompts, and how many rollouts its first signal takes.

Axis letters: N points as in `hit_rates`, M nodes of the quadrature over prompts.
"""

import importlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import betaincinv

from recast_analysis.planner.hit_rates import Bounded, Estimate, Fitted, Floats, HitRates

MOST = 1_000_000  # rollouts a prompt beyond which nothing is said
_NODES = 256
_ALIKE = 1e-7  # theta below which prompts count as all alike


@dataclass(frozen=True)
class Kind:
    """Constructors that act on the same groups.

    Attributes:
        names: the constructors.
        all_zero, all_hit: whether they make an update of groups without a hit, and of hits alone; of a hit and a miss all do.
        anchors: they take a ground truth for that.
        redraws: other groups are replaced by new ones.
        rollouts: they need rollouts at all.
    """

    names: tuple[str, ...]
    all_zero: bool
    all_hit: bool
    anchors: bool
    redraws: bool
    rollouts: bool

    @property
    def words(self) -> str:
        if not self.rollouts:
            return "every prompt with an anchor, no rollout drawn"
        where = "every group" if self.all_zero and self.all_hit else "all but all-hit groups" if self.all_zero else ""
        where = where or ("groups with a hit" if self.all_hit else "groups with a hit and a miss")
        return where + (", by an anchor" if self.anchors else "") + (", others drawn anew" if self.redraws else "")


@dataclass(frozen=True)
class Acting:
    """What a kind of signal does with groups of one G.

    Attributes:
        groups: share of groups that it makes an update of.
        prompts: share of the log's prompts that have had one when the budget is spent evenly on them; None: cannot be told.
        first: rollouts to the first one of a run, on average.
        half, most: rollouts of a prompt until half of the prompts, and 90 % of them, have had one; infinite above `MOST`.
    """

    kind: Kind
    groups: Estimate
    prompts: Estimate | None
    first: Estimate
    half: Estimate | None
    most: Estimate | None


def kinds() -> tuple[tuple[Kind, ...], tuple[str, ...]]:
    """All registered constructors by what they do with groups made for the purpose (`declared.acting_shares`), and the names
    of those that act on some groups with one hit only.

    They are loaded by name: the analysis itself knows neither the signal module nor torch.
    """
    registry, declared = (importlib.import_module(f"recast_sim.signal.{name}") for name in ("registry", "declared"))
    found: dict[tuple[Any, ...], list[str]] = {}
    partial = []
    for constructor in registry.list_constructors():
        zero, one, *_, full = declared.acting_shares(constructor)
        flags = (zero == 1, full == 1, constructor.anchors != "never" and zero == 1, constructor.redraws, constructor.rollouts)
        if one < 1:
            partial.append(constructor.name)
        else:
            found.setdefault(flags, []).append(constructor.name)
    listed = [Kind(tuple(names), *flags) for flags, names in found.items()]
    return tuple(sorted(listed, key=lambda kind: (kind.all_zero, kind.all_hit, kind.redraws, not kind.rollouts))), tuple(
        partial
    )


def acting(kind: Kind, rates: HitRates, group_size: int, rollouts: int, prompts: int) -> Acting:
    """A kind at one G, with a budget of rollouts for so many prompts."""
    if not kind.rollouts:
        return Acting(kind, _known(1.0), _known(1.0), _known(0.0), _known(0.0), _known(0.0))
    visits = min(1.0, rollouts / (group_size * prompts))
    if kind.all_zero and kind.all_hit:
        size = _known(float(group_size))
        return Acting(kind, _known(1.0), _known(visits), size, size, size)
    groups = _share(kind, rates, group_size)
    first = groups.map(lambda share: group_size / share if share else np.inf)
    if isinstance(rates, Bounded):
        return Acting(kind, groups, None, first, None, None)
    waiting = Waiting(kind, rates, group_size)
    return Acting(
        kind, groups, waiting.reached(rollouts / prompts), first, waiting.rollouts_until(0.5), waiting.rollouts_until(0.1)
    )


def _share(kind: Kind, rates: HitRates, group_size: int) -> Estimate:
    zero, full, learnable = rates.flat(group_size)
    if kind.all_zero:
        return full.map(lambda share: 1 - share)
    return zero.map(lambda share: 1 - share) if kind.all_hit else learnable


def _known(value: float) -> Estimate:
    return Estimate(value, value, value)


class Waiting:
    """Prompts that have had no signal yet after some groups, by quadrature over their hit rates."""

    def __init__(self, kind: Kind, rates: Fitted, group_size: int) -> None:
        self._size = group_size
        p_NM = nodes(rates.mean_N, rates.theta_N)
        silent_NM = np.zeros_like(p_NM)
        if not kind.all_zero:
            silent_NM += (1 - p_NM) ** group_size
        if not kind.all_hit:
            silent_NM += p_NM**group_size
        self._log_NM = np.log(np.clip(silent_NM, 1e-300, 1.0))

    def reached(self, rollouts: float) -> Estimate:
        """Share of the prompts that have had a signal after so many rollouts each; below one group, of those that had one."""
        groups = rollouts / self._size
        share_N = (1 - self._left(np.full(len(self._log_NM), max(1.0, groups)))) * min(1.0, groups)
        return Estimate.over(share_N)

    def rollouts_until(self, left: float) -> Estimate:
        """Rollouts of a prompt until no more than this share of the prompts has had no signal."""
        most = max(1, MOST // self._size)
        low_N, high_N = np.zeros(len(self._log_NM)), np.full(len(self._log_NM), float(most))
        for _ in range(int(np.log2(most)) + 2):
            middle_N = np.ceil((low_N + high_N) / 2)
            done_N = self._left(middle_N) <= left
            low_N, high_N = np.where(done_N, low_N, middle_N), np.where(done_N, middle_N, high_N)
        never_N = self._left(np.full_like(high_N, float(most))) > left
        return Estimate.over(np.where(never_N, np.inf, high_N * self._size))

    def _left(self, groups_N: Floats) -> Floats:
        return np.exp(groups_N[:, None] * self._log_NM).mean(1)


def nodes(mean_N: Floats, theta_N: Floats) -> Floats:
    """Hit rates at the middles of equal shares of the prompts, (N, M)."""
    theta_N1, mean_N1 = np.maximum(theta_N, _ALIKE)[:, None], mean_N[:, None]
    share_M = (np.arange(_NODES) + 0.5) / _NODES
    p_NM = betaincinv(mean_N1 / theta_N1, (1 - mean_N1) / theta_N1, share_M)
    return np.where(theta_N[:, None] < _ALIKE, mean_N1, p_NM)
