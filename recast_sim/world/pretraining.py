"""The base policy: trained by supervision on the train prompts' targets, to a chosen degree of convergence."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from recast_sim.world.environment import Environment, WorldPrompts
from recast_sim.world.generators import torch_generator
from recast_sim.world.policy import PolicyConfig, PolicyError, TreePolicy

_EVERY, _PATIENCE, _MAX_STEPS, _BATCH, _LEARNING_RATE = 4, 10, 4000, 256, 0.01


@dataclass(frozen=True)
class BasePolicy:
    """A trained base policy and how it got there.

    `convergence` is the share of the attainable improvement of the validation log-likelihood that it reached (above 1: steps
    over those of the early-stopped optimum); `optimum` and `untrained` are that optimum's and the start's, in nats.
    """

    policy: TreePolicy
    steps: int
    convergence: float
    untrained: float
    optimum: float


def train_base(environment: Environment, config: PolicyConfig, convergence: float, seed: int) -> BasePolicy:
    """Supervised training (Adam) from zero, stopped at `convergence`.

    Convergence c: 0 is the untrained policy, 1 the early-stopped optimum of the validation log-likelihood, between them the
    first point at which that share of the improvement is reached; c > 1 trains for c times the optimum's steps, which
    over-fits.

    Raises:
        PolicyError: convergence is negative.
    """
    if convergence < 0:
        raise PolicyError(f"convergence: {convergence} must be 0 or more (1 is the early-stopped optimum)")
    run = _Supervised(environment, config, seed)
    curve, states = [run.validation()], [run.state()]
    while len(curve) - 1 - _argmax(curve) < _PATIENCE and (len(curve) - 1) * _EVERY < _MAX_STEPS:
        run.advance(_EVERY)
        curve.append(run.validation())
        states.append(run.state())
    best = _argmax(curve)
    if convergence > 1:
        steps = round(convergence * best * _EVERY)
        if steps > (done := (len(curve) - 1) * _EVERY):
            run.advance(steps - done)
            return BasePolicy(run.policy, steps, convergence, curve[0], curve[best])
        stop = steps // _EVERY
    else:
        wanted = curve[0] + convergence * (curve[best] - curve[0])
        stop = next(i for i, value in enumerate(curve) if value >= wanted)
    run.restore(states[stop])
    reached = convergence if convergence > 1 else (curve[stop] - curve[0]) / max(curve[best] - curve[0], 1e-12)
    return BasePolicy(run.policy, stop * _EVERY, reached, curve[0], curve[best])


class _Supervised:
    """Minibatch training whose state can be kept and put back."""

    def __init__(self, environment: Environment, config: PolicyConfig, seed: int) -> None:
        self.environment = environment
        self.policy = TreePolicy(
            environment.catalog, environment.config.dim, config, torch_generator(seed, "policy initialisation")
        )
        self.optimiser = torch.optim.Adam(self.policy.parameters(), lr=_LEARNING_RATE)
        self.generator = torch_generator(seed, "supervised batches")

    def advance(self, steps: int) -> None:
        prompts = self.environment.train
        for _ in range(steps):
            rows = torch.randint(len(prompts.x_ND), (_BATCH,), generator=self.generator)
            loss = -target_logprobs(self.policy, prompts, rows).mean()
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()

    @torch.no_grad()
    def validation(self) -> float:
        return float(target_logprobs(self.policy, self.environment.validation).mean())

    def state(self) -> dict[str, Tensor]:
        return copy.deepcopy(self.policy.state_dict())

    def restore(self, state: dict[str, Tensor]) -> None:
        self.policy.load_state_dict(state)


def target_logprobs(policy: TreePolicy, prompts: WorldPrompts, rows: Tensor | None = None) -> Tensor:
    """log pi of each target of each prompt (or of the prompts `rows`), (N, T)."""
    x, target = (prompts.x_ND, prompts.target_NT) if rows is None else (prompts.x_ND[rows], prompts.target_NT[rows])
    return policy.path_logprobs(x, target).sum(2)


def _argmax(curve: list[float]) -> int:
    return max(range(len(curve)), key=curve.__getitem__)
