"""What a newcomer writes: recast whose first code counts twice, and whose negative leaves shared codes alone."""

import torch

from recast_sim.signal import (
    GroupState,
    boundary_contrast,
    by_level,
    keep_nonzero,
    mask_shared_prefix,
    register,
    repair_all_zero,
)


@register(
    "first_code_twice",
    source="a newcomer",
    width="2",
    all_zero="repaired",
    anchors="all_zero",
    structural=True,
    needs=("sids_PGL", "targets_PTL"),
    level_wise=True,
)
def first_code_twice(state: GroupState) -> GroupState:
    pair = boundary_contrast(repair_all_zero(state))
    weight_L = 1.0 + (torch.arange(state.sids_PGL.shape[2]) == 0)
    return keep_nonzero(mask_shared_prefix(by_level(pair, pair.advantages_PG[..., None] * weight_L)))
