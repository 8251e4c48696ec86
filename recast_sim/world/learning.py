"""What of a policy's gain is learning, and what a thermometer could have bought (recast's own instrument).

Axes: N held-out prompts, Y leaves.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from recast_sim.temperatures import temperature_at
from recast_sim.world.environment import Environment
from recast_sim.world.evaluation import entropies, leaf_logprobs, ranking_metrics
from recast_sim.world.policy import TreePolicy
from recast_sim.world.thermometer import Thermometer, fit

TEMPERATURES = (0.5, 0.25, 0.1)  # beside 1, at which every policy is evaluated
_CHUNK = 512  # prompts
_RANKED = ("pass_at_1_sampled", "pass_at_1_greedy", "recall_at_k", "ndcg_at_k", "entropy")


@dataclass(frozen=True)
class Start:
    """The policy that training starts from, seen at any temperature."""

    policy: TreePolicy
    environment: Environment

    @cached_property
    def logprob_NY(self) -> Tensor:
        """log pi of every leaf after every held-out prompt."""
        return leaf_logprobs(self.policy, self.environment.heldout.x_ND)

    @cached_property
    def entropy(self) -> float:
        """Mean entropy over held-out prompts, nats."""
        return float(entropies(self.logprob_NY).double().mean())

    @cached_property
    def pass_at_1(self) -> float:
        """Sampled Pass@1."""
        return _pass_at_1(self.logprob_NY, self.environment)

    @cached_property
    def figures(self) -> dict[str, float]:
        """`learning_figures` of the start itself: what temperatures alone buy, and nothing learned."""
        return learning_figures(self.policy, self)

    def pass_at_1_at(self, entropy: float) -> float:
        """Sampled Pass@1 of pi^(1/T) at the T where its mean entropy is `entropy`."""
        return _pass_at_1(_cooled(self.logprob_NY, temperature_at(entropy, self.logprob_NY)), self.environment)


@torch.no_grad()
def learning_figures(policy: TreePolicy, start: Start) -> dict[str, float]:
    """What temperature alone does to the policy, and how its gain in sampled Pass@1 from the start splits.

    - `pass_at_1_sampled_tT`, `entropy_tT`: of pi^(1/T) over the catalog at T = 0.5, 0.25 and 0.1.
    - `temperature`: the T of pi^(1/T) that fits the validation prompts' targets best; `pass_at_1_sampled_fitted` is at it.
    - `level_weight_l`: the policy's best inverse temperatures of the levels, by the family that fits the validation prompts
      better (`level_weighted` is 1 where it is "weights"); metrics ending in `_levels` are of the policy at them.
    - `calibrated_log_likelihood`: held-out mean log-probability of a target at them, nats.
    - `pass_at_1_sampled_at_start_entropy`: of pi^(1/T) at the T where its mean entropy is the start's.
    - `sharpened`: what the start's sampled Pass@1 gains when pi_start^(1/T) is brought to the policy's entropy; `learned`: the
      rest of the policy's gain. A policy that is its start at another joint temperature has learned 0.
    """
    environment = start.environment
    logprob_NY = leaf_logprobs(policy, environment.heldout.x_ND)
    figures = {}
    for temperature in TEMPERATURES:
        cool_NY = _cooled(logprob_NY, temperature)
        figures[f"pass_at_1_sampled_t{temperature:g}"] = _pass_at_1(cool_NY, environment)
        figures[f"entropy_t{temperature:g}"] = float(entropies(cool_NY).double().mean())
    joint = fit(policy, environment.validation, "joint")
    figures["temperature"] = 1 / joint.inverse[0]
    figures["pass_at_1_sampled_fitted"] = _pass_at_1(_cooled(logprob_NY, 1 / joint.inverse[0]), environment)
    figures |= _at_level_numbers(policy, environment)
    at_start = _cooled(logprob_NY, temperature_at(start.entropy, logprob_NY))
    figures["pass_at_1_sampled_at_start_entropy"] = _pass_at_1(at_start, environment)
    sharpened, learned = gain_split(logprob_NY, start)
    return {**figures, "sharpened": sharpened, "learned": learned}


def gain_split(logprob_NY: Tensor, start: Start) -> tuple[float, float]:
    """What a policy's sampled Pass@1 gained on held-out prompts from its start, in two parts: what the start gains at the joint
    temperature that gives it the policy's mean entropy (sharpening), and the rest (learning)."""
    cooled_start = start.pass_at_1_at(float(entropies(logprob_NY).double().mean()))
    return cooled_start - start.pass_at_1, _pass_at_1(logprob_NY, start.environment) - cooled_start


def best_level_thermometer(policy: TreePolicy, environment: Environment) -> Thermometer:
    """The family with one number a level, and its numbers, that fit the validation prompts best."""
    fitted = [fit(policy, environment.validation, family) for family in ("levels", "weights")]
    return max(fitted, key=lambda found: found.log_likelihood)


def _at_level_numbers(policy: TreePolicy, environment: Environment) -> dict[str, float]:
    found = best_level_thermometer(policy, environment)
    logprobs = [found.leaf_logprobs(policy, x) for x in environment.heldout.x_ND.split(_CHUNK)]
    metrics = ranking_metrics(torch.cat(logprobs), environment)
    figures = {f"{name}_levels": metrics[name] for name in _RANKED}
    figures |= {f"level_weight_{level}": b for level, b in enumerate(found.inverse, start=1)}
    return figures | {
        "level_weighted": float(found.family == "weights"),
        "calibrated_log_likelihood": metrics["log_likelihood"],
    }


def _cooled(logprob_NY: Tensor, temperature: float) -> Tensor:
    return (logprob_NY / temperature).log_softmax(1)


def _pass_at_1(logprob_NY: Tensor, environment: Environment) -> float:
    return float((logprob_NY.exp() * environment.heldout_gain_NY).sum(1).double().mean())
