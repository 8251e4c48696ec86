"""Seconds of a step by phase: counts over a machine's constants, added up; communication is taken as not hidden."""

from collections.abc import Mapping
from dataclasses import dataclass

from recast_train.step_model.machine import Machine
from recast_train.step_model.setting import StepSetting
from recast_train.step_model.step_work import model_flops, step_work
from recast_train.step_model.traffic import step_traffic
from recast_train.step_model.work import Work


@dataclass(frozen=True)
class StepSeconds:
    """What a step takes.

    Attributes:
        computing: seconds by phase (PHASES), without communication.
        sending: seconds of communication by phase, as if nothing were computed meanwhile.
        flops: of the actor over all cards, as MFU counts them.
    """

    computing: Mapping[str, float]
    sending: Mapping[str, float]
    flops: float

    def phase(self, name: str) -> float:
        """Seconds of a phase with its communication."""
        return self.computing[name] + self.sending[name]

    @property
    def actor(self) -> float:
        """Forward, backward, optimiser and what they send: verl's update_actor."""
        return self.phase("actor") + self.phase("optimiser")

    @property
    def whole(self) -> float:
        """All phases. Rewards, the signal and what an engine needs to wake are not in the model."""
        return sum(map(self.phase, self.computing))


def step_seconds(step: StepSetting, machine: Machine) -> StepSeconds:
    """Seconds of a step on so many cards of a machine."""
    work = step_work(step)
    traffic = step_traffic(step, work)
    width = {"optimiser": step.held}
    return StepSeconds(
        {name: work_seconds(part, machine, width.get(name, step.computed)) for name, part in work.items()},
        {name: sent.sent / machine.wire(step.cards) + sent.messages * machine.latency for name, sent in traffic.items()},
        model_flops(step),
    )


def work_seconds(work: Work, machine: Machine, width: int) -> float:
    """Seconds of some work whose elements have `width` bytes."""
    parts = columns(work, width)
    return parts[0] / machine.flops + parts[1] / machine.bandwidth + parts[2] * machine.call + parts[3] * machine.one_pass


def columns(work: Work, width: int) -> tuple[float, float, float, float]:
    """What the four constants of a machine are multiplied by: FLOPs, bytes, operations, passes."""
    return work.flops, width * work.moved, work.calls, work.passes
