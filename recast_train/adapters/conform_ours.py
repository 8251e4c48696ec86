"""recast's own constructors and loss as targets of `recast-report conform`: `recast:grpo`, `recast:loss`."""

from typing import Any

import torch

from recast_sim.signal import (
    ObjectiveConfig,
    SignalConfig,
    SignalError,
    UpdatePlan,
    get_constructor,
    list_constructors,
    plan_objective,
)
from recast_train.adapters.flat_rows import select_rows

CONFIG = SignalConfig(pass_k=3, pods_width=3)  # as the kit asks; all else at its defaults
TARGETS = (*(constructor.name for constructor in list_constructors() if not constructor.inputs), "loss")


def target(make: Any, error: Any, name: str) -> Any:
    """The target of a constructor that reads rewards alone, or of the loss; `make` and `error` are the kit's classes."""
    if name == "loss":
        return make("recast:loss", loss, kind="loss", notes=("every row kept, normaliser active_rows",))
    try:
        needs = get_constructor(name).inputs
    except SignalError as unknown:
        raise error(f"target: recast:{name} is not known; choose from {', '.join(TARGETS)}") from unknown
    if needs:
        raise error(f"target: recast:{name} needs {', '.join(needs)} beside the rewards; choose one that reads rewards alone")
    notes = {"pass_at_k": (f"pass_k {CONFIG.pass_k}",), "pods": (f"pods_width {CONFIG.pods_width}",)}.get(name, ())
    return make(f"recast:{name}", lambda rewards, ids: advantages(name, rewards, ids), method=name, notes=notes)


def advantages(name: str, rewards_R: Any, group_R: Any) -> Any:
    kept = select_rows(name, group_R, rewards_R, config=CONFIG)
    return torch.zeros(len(group_R)).scatter(0, kept.row_N, kept.coefficient_N.float())


def loss(new_NS: Any, old_NS: Any, reference_NS: Any, advantages_N: Any, mask_NS: Any) -> float:
    """The objective of a plan that keeps every row. Raises ValueError for a mask: a row of a plan has all its tokens."""
    if not mask_NS.all():
        raise ValueError("a semantic ID has all its levels; recast's loss takes no mask")
    new, old, reference, numbers = (torch.from_numpy(table) for table in (new_NS, old_NS, reference_NS, advantages_N))
    N = len(numbers)
    plan = UpdatePlan(torch.arange(N), numbers[:, None], torch.ones(N), torch.zeros(N, dtype=torch.bool), float(N))
    return float(plan_objective(plan, new, old, reference, ObjectiveConfig(clip_low=0.2, clip_high=0.28, kl=0.1)).loss)
