"""One rank's rows of an update plan. Groups stay on one rank, and every rank computes the same number of rows.

Axis letters: N rows of a plan, U groups that have rows, F filler rows, L levels.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from recast_sim.signal import Objective, ObjectiveConfig, UpdatePlan, plan_objective
from recast_train.model import beside, require


@dataclass(frozen=True)
class OwnRows:
    """Rows that a rank computes, on the CPU wherever the model is.

    Attributes:
        plan: the rank's own rows and fillers; `rows_N` counts from the rank's first prompt, `normaliser` is the whole batch's.
            Fillers have advantage and weight 0 and repeat rollout 0 of one of the rank's prompts.
        own_N: false on fillers.
    """

    plan: UpdatePlan
    own_N: Tensor

    @property
    def count(self) -> int:
        """The rank's own rows, fillers left out."""
        return int(self.own_N.sum())

    def objective(self, new_NL: Tensor, old_NL: Tensor, reference_NL: Tensor | None, config: ObjectiveConfig) -> Objective:
        """`plan_objective` of the own rows: the ranks' losses add up to the whole plan's.

        Without an own row the loss is 0, still a function of every parameter, and `kl` and `clip_share` are NaN; average them
        over the ranks by `Engine.mean(value, rows.count)`. Fillers are left out here since the KL term has no weights.
        """
        at_N = self.own_N.nonzero()[:, 0]  # on the CPU: a device would have to be asked how many there are
        own, at_N = self.plan.take(at_N).to(new_NL.device), beside(at_N, new_NL)
        reference_NL = None if reference_NL is None else reference_NL[at_N]
        return plan_objective(own, new_NL[at_N], old_NL[at_N], reference_NL, config)


def split_plan(plan: UpdatePlan, group_size: int, share: slice) -> OwnRows:
    """Rows of the whole batch's `plan` that belong to the prompts of `share`, filled up to the largest rank's number.

    Every rank holds the same plan, so nothing is communicated. Fillers go to the groups with the fewest rows, where a packed
    pass has empty places; a rank without a row of its own spreads them over its prompts. A plan without rows stays empty.

    Args:
        group_size: the signal's, by which `plan.rows_N` counts.
        share: prompts of this rank (`Engine.share`); the shares of all ranks are equally long.

    Raises:
        TrainError: `share` is not one of equally long slices.
    """
    prompts = share.stop - share.start
    fits = prompts >= 1 and share.start % prompts == 0
    require(fits, "share", share, "is not one of equally long slices of the prompts; take Engine.share")
    rank_N = plan.rows_N // (group_size * prompts)
    mine_N = rank_N == share.start // prompts
    own = plan.take(mine_N)
    rows_N = own.rows_N - share.start * group_size
    most = int(rank_N.bincount().max()) if len(rank_N) else 0
    filler_F = _filler_groups(rows_N // group_size, prompts, most - len(rows_N)) * group_size
    rows_N, order = torch.cat([rows_N, filler_F]).sort(stable=True)

    def padded(column_N: Tensor) -> Tensor:
        return torch.cat([column_N, column_N.new_zeros(len(filler_F), *column_N.shape[1:])])[order]

    columns = {name: padded(getattr(own, name)) for name in ("advantages_NL", "weights_N", "anchor_N")}
    return OwnRows(replace(own, rows_N=rows_N, **columns), padded(torch.ones_like(own.anchor_N)))


def _filler_groups(group_N: Tensor, prompts: int, fillers: int) -> Tensor:
    """Group of each filler (F,): the next one always goes where the fewest rows are, among the groups that have some."""
    if fillers == 0:
        return group_N[:0]
    used_U, count_U = group_N.unique(return_counts=True)
    if len(used_U) == 0:
        used_U = torch.arange(prompts, device=group_N.device)
        count_U = torch.zeros_like(used_U)
    height_UF = count_U[:, None] + torch.arange(fillers, device=group_N.device)
    return used_U[height_UF.flatten().argsort(stable=True)[:fillers] // fillers]
