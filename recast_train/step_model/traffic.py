"""What a step sends between cards: bytes over a card's link and the number of collectives.

FSDP2 gathers every unit (each layer, and the rest) in a forward pass and again in its backward pass, and scatters the sum of
its gradients in fp32. Of a tensor in n parts a card receives (n - 1) / n in either. DDP sums gradients, which takes both.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from recast_train.step_model.setting import StepSetting
from recast_train.step_model.work import Work

GRADIENT = 4  # bytes of a gradient on the wire


@dataclass(frozen=True)
class Traffic:
    """Bytes that a card receives, and collectives."""

    sent: float = 0.0
    messages: float = 0.0


def step_traffic(step: StepSetting, work: Mapping[str, Work]) -> dict[str, Traffic]:
    """Traffic of each phase of `step_work`, by its passes."""
    weights, units = step.net.parameters * (step.cards - 1) / step.cards, step.net.layers + 1
    if step.cards == 1:
        return dict.fromkeys(work, Traffic())
    if not step.sharded:
        summed = Traffic(GRADIENT * weights * work["actor"].passes, units * work["actor"].passes)
        return {name: summed if name == "actor" else Traffic() for name in work}
    gathers = {name: work[name].passes for name in ("old", "reference")} | {"rollout": 1}
    found = {name: Traffic(step.computed * weights * count, units * count) for name, count in gathers.items()}
    if not step.engine:  # the token tables stay in one piece while a group is drawn
        again, count = 1 - step.net.tables / step.net.parameters, work["rollout"].passes
        found["rollout"] = Traffic(step.computed * weights * (1 + again * (count - 1)), units * count)
    actor = work["actor"].passes  # half of them backward
    found["actor"] = Traffic((step.computed + GRADIENT / 2) * weights * actor, 1.5 * units * actor)
    return found | {"optimiser": Traffic()}
