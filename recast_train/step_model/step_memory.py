"""Bytes of a card in a step: what is held all the time, and the larger of the passes' peaks.

Beside it stand the allocator's own room and what operations need for a moment; neither is counted.
"""

from dataclasses import dataclass

from recast_train.step_model.setting import StepSetting

LOSS = 4  # bytes of an element of the logits that a pass keeps in fp32
HELD_COPIES = 4  # of a parameter: itself, its gradient, AdamW's two averages


@dataclass(frozen=True)
class StepMemory:
    """Bytes by what holds them.

    Attributes:
        states: parameters, gradients, AdamW's averages, the reference, and what `resident` says.
        gathered: the two largest units of a sharded model, whole.
        cache: keys and values of the rollouts.
        inference: logits of the largest old or reference pass, and a layer's tensors.
        actor: what the largest actor pass keeps for its backward, logits with it.
    """

    states: float
    gathered: float
    cache: float
    inference: float
    actor: float

    @property
    def peak(self) -> float:
        """The most at one time."""
        return self.states + self.gathered + max(self.cache, self.inference, self.actor)


def step_memory(step: StepSetting) -> StepMemory:
    """Bytes of the card that has most to do."""
    net = step.net
    copies = HELD_COPIES + (1 if step.reference else 0)
    gathered = step.computed * (2 * net.layer_weights + net.tables) if step.sharded and step.cards > 1 else 0
    tokens = step.groups * (step.before + step.group_size * step.response)
    return StepMemory(
        states=copies * step.held * net.parameters / step.shards + step.resident,
        gathered=gathered,
        cache=0 if step.engine else step.computed * net.cached * tokens,
        inference=_inference(step) if step.old or step.reference else 0,
        actor=_actor(step),
    )


def _logits(step: StepSetting, positions: float) -> float:
    """Bytes of logits of a pass that goes over some of the positions."""
    return LOSS * step.logits * step.states * positions / step.positions


def _inference(step: StepSetting) -> float:
    positions = step.pass_positions(step.positions)
    return _logits(step, positions) + step.computed * step.net.alive * positions


def _actor(step: StepSetting) -> float:
    """With gradient checkpointing a layer keeps its input, and one layer at a time all the rest."""
    positions, net = step.pass_positions(step.positions / step.mini_batches), step.net
    a_layer = net.hidden * net.layers + net.kept if step.recompute else net.kept * net.layers
    return _logits(step, positions) + step.computed * positions * a_layer
