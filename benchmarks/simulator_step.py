"""A training step of the simulator (sample, signal, update) against recast written by hand in plain torch."""

import copy
import itertools
import time
from collections.abc import Callable
from typing import Any

import torch
from harness import Entry, interleaved
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from world import GROUP

from recast_sim.signal import ObjectiveConfig, Signal, SignalConfig, get_constructor
from recast_sim.signal.groups import ScoredGroups, signal_of
from recast_sim.training.plan_update import update
from recast_sim.training.world_groups import roll_out
from recast_sim.world.environment import Environment, EnvironmentConfig, make_environment
from recast_sim.world.policy import PolicyConfig, TreePolicy

PROMPTS, STEPS = 64, 50  # of a step; steps that are clocked at a time
PARTS = ("rollouts", "signal", "update")
LEARNING_RATE = 1e-6  # so small that the last step finds the groups of the first
RULES, OBJECTIVE = SignalConfig(), ObjectiveConfig()
SCORES = torch.tensor((0.0, 0.01, 0.1, 1.0))  # by shared prefix length; 1 is a hit


def measure_step(repeats: int) -> list[Entry]:
    """A step's milliseconds and its ratio to the plain loop's. Both must take the same gradient before they are timed.

    Raises:
        SystemExit: they do not.
    """
    environment = make_environment(EnvironmentConfig(), seed=0)
    policy = TreePolicy(environment.catalog, environment.config.dim, PolicyConfig(), torch.Generator())
    check_gradient(policy, environment)
    ways = {part: _ours(copy.deepcopy(policy), environment, part) for part in PARTS}
    ways["by hand"] = _plain(copy.deepcopy(policy), environment)
    seconds = interleaved(ways, repeats, time.thread_time)
    costs = {
        "ms": {name: 1e3 * seconds[name] / STEPS for name in ways},
        "operations": {name: operations(way) / STEPS for name, way in ways.items()},
    }
    ratio = seconds["update"] / seconds["by hand"]
    entries = [Entry("a training step against one by hand", ratio, "x", 1.5, at_least=False)]
    for unit, of in costs.items():
        alone = of | {part: of[part] - of[before] for before, part in itertools.pairwise(PARTS)}
        entries += [Entry(f"a training step: {name}", cost, unit) for name, cost in alone.items()]
    return entries


def operations(way: Callable[[], None]) -> int:
    """What a call hands to torch: on tables this small a step costs its number of operations, whatever they do."""
    with _Counted() as counted:
        way()
    return counted.count


class _Counted(TorchDispatchMode):
    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def check_gradient(policy: TreePolicy, environment: Environment) -> None:
    """The same rollouts give both ways the same gradient, seen by what a step of plain descent changes.

    Raises:
        SystemExit: they do not.
    """
    ours, plain = copy.deepcopy(policy), copy.deepcopy(policy)
    batch = _rolled_out(ours, environment, torch.Generator().manual_seed(0))
    _update(ours, environment, batch, torch.optim.SGD(ours.parameters(), lr=1.0))
    x_PD, target_P = environment.train.x_ND[batch.prompt_P], batch.anchor_leaf_P
    codes_YL = torch.from_numpy(environment.catalog.leaf_codes)
    plain_loss(plain.leaf_logprobs(x_PD), batch.leaf_PG, target_P, codes_YL).backward()
    torch.optim.SGD(plain.parameters(), lr=1.0).step()
    for one, other in zip(ours.parameters(), plain.parameters(), strict=True):
        if not torch.allclose(one, other, atol=1e-6):
            raise SystemExit(f"the two steps differ by up to {float((one - other).detach().abs().max()):.1e} in a parameter")


def plain_loss(logprob_PY: Tensor, leaf_PG: Tensor, target_P: Tensor, codes_YL: Tensor) -> Tensor:
    """recast's loss by hand, from leaf log-probabilities and rollouts, for one target a prompt.

    Groups without a hit: the target in place of the lowest score. Then the first hit up, the miss of highest score down.
    """
    shared_PG = (codes_YL[leaf_PG] == codes_YL[target_P][:, None]).cumprod(2).sum(2)
    score_PG, target_P1 = SCORES[shared_PG], target_P[:, None]
    missed_P1 = score_PG.amax(1, keepdim=True) < 1
    slot_P1 = score_PG.argmin(1, keepdim=True)
    leaf_PG = leaf_PG.scatter(1, slot_P1, torch.where(missed_P1, target_P1, leaf_PG.gather(1, slot_P1)))
    score_PG = score_PG.scatter(1, slot_P1, torch.where(missed_P1, 1.0, score_PG.gather(1, slot_P1)))
    miss_PG = score_PG.masked_fill(score_PG == 1, -1.0)
    pair_P2 = torch.stack([score_PG.argmax(1), miss_PG.argmax(1)], dim=1)
    chosen_P2 = logprob_PY.gather(1, leaf_PG.gather(1, pair_P2))
    learnable_P = miss_PG.amax(1) >= 0
    return ((chosen_P2[:, 1] - chosen_P2[:, 0]) * learnable_P).sum() / (2 * learnable_P.sum()).clamp(min=1)


def _ours(policy: TreePolicy, environment: Environment, until: str) -> Callable[[], None]:
    """Steps that end with one of `PARTS`."""
    optimiser, generator = torch.optim.Adam(policy.parameters(), lr=LEARNING_RATE), torch.Generator().manual_seed(1)
    behind_rollouts: dict[str, Callable[[ScoredGroups], object]] = {
        "rollouts": lambda groups: None,
        "signal": _constructed,
        "update": lambda groups: _update(policy, environment, groups, optimiser),
    }

    def steps() -> None:
        for _ in range(STEPS):
            behind_rollouts[until](_rolled_out(policy, environment, generator))

    return steps


def _plain(policy: TreePolicy, environment: Environment) -> Callable[[], None]:
    optimiser, generator = torch.optim.Adam(policy.parameters(), lr=LEARNING_RATE), torch.Generator().manual_seed(1)
    codes_YL, train = torch.from_numpy(environment.catalog.leaf_codes), environment.train

    def steps() -> None:
        for _ in range(STEPS):
            prompt_P = torch.randint(len(train.x_ND), (PROMPTS,), generator=generator)
            logprob_PY = policy.leaf_logprobs(train.x_ND[prompt_P])
            leaf_PG = torch.multinomial(logprob_PY.detach().exp(), GROUP, replacement=True, generator=generator)
            loss = plain_loss(logprob_PY, leaf_PG, train.target_NT[prompt_P, 0], codes_YL)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()

    return steps


def _rolled_out(policy: TreePolicy, environment: Environment, generator: torch.Generator) -> ScoredGroups:
    prompt_P = torch.randint(len(environment.train.x_ND), (PROMPTS,), generator=generator)
    return roll_out(policy, environment, prompt_P, GROUP, "iid", RULES, generator)


def _constructed(groups: ScoredGroups) -> Signal:
    return signal_of(groups, get_constructor("recast"), RULES, torch.Generator())


def _update(policy: TreePolicy, environment: Environment, groups: ScoredGroups, optimiser: torch.optim.Optimizer) -> None:
    update(policy, policy, environment, groups, _constructed(groups), optimiser, OBJECTIVE)
