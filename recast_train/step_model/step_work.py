"""The work of a step by phase, on the card that has most of it."""

from recast_train.rl.cost import attention_flops, training_flops
from recast_train.step_model.setting import StepSetting
from recast_train.step_model.work import Work, adam, backward, forward, gradient_norm, readout

PHASES = ("rollout", "old", "reference", "actor", "optimiser")


def step_work(step: StepSetting) -> dict[str, Work]:
    """Work of each of PHASES; a phase that the step does not have is empty."""
    inference = _inference(step)
    return {
        "rollout": prefill(step) + decode(step),
        "old": inference if step.old else Work(),
        "reference": inference if step.reference else Work(),
        "actor": _actor(step),
        "optimiser": adam(step.net, step.shards).times(step.updates * step.mini_batches),
    }


def prefill(step: StepSetting) -> Work:
    """Each prompt once, under a mask over all pairs."""
    return forward(step.net, step.groups * step.prompt, step.groups * step.prompt**2)


def decode(step: StepSetting) -> Work:
    """The thought, token by token, one row a prompt; then the rows, each token a pass over all rows of the card.

    A pass reads all weights and the cache: with few rows that is all it takes.
    """
    net, groups, codes = step.net, step.groups, step.codes or step.net.vocabulary
    middle = groups * (step.prompt + step.thought / 2)  # of the cache while the thought grows
    thinking = (forward(net, groups, middle, middle) + readout(net, groups, net.vocabulary)).times(step.thought)
    found, rows = thinking + readout(net, groups, codes), groups * step.group_size
    for token in range(1, step.response):
        seen = step.before + step.group_size * token
        found += forward(net, rows, rows * seen, groups * seen) + readout(net, rows, codes)
    return found


def model_flops(step: StepSetting) -> float:
    """FLOPs of the actor's passes over all cards by the definition of `recast_train.rl.cost`: what MFU is counted from."""
    net, times = step.net, step.updates * step.cards
    attention = attention_flops(net.layers, net.heads, net.head_dim, 1) * step.attended
    return times * (training_flops(net.parameters, 1, 0) * step.positions + attention)


def _pairs(step: StepSetting) -> float:
    """Pairs that a training pass computes: causal before the rows, all keys of its prompt for a row's own tokens."""
    rows = step.groups * step.kept
    keys = step.before + (step.kept * step.own if step.shared else step.own)
    return (step.groups if step.shared else rows) * step.before**2 / 2 + rows * step.own * keys


def _inference(step: StepSetting) -> Work:
    once = forward(step.net, step.positions, _pairs(step)) + readout(step.net, step.states, step.logits)
    return once + forward(step.net, 0, 0).times(step.passes(step.positions) - 1)


def _actor(step: StepSetting) -> Work:
    """Passes of all optimiser steps: together each row once, while weights are read and layers called anew in each."""
    parts, net = step.mini_batches, step.net
    number = parts * step.passes(step.positions / parts)
    once = forward(net, step.positions, _pairs(step)) + backward(net, step.positions, _pairs(step), step.recompute)
    once += readout(net, step.states, step.logits, gradient=True)
    again = forward(net, 0, 0) + backward(net, 0, 0, step.recompute) + readout(net, 0, 0, gradient=True)
    return (once + again.times(number - 1) + gradient_norm(net, step.shards).times(parts)).times(step.updates)
