"""Methods compared over settings and worlds: rates tuned on other worlds, the same prompts, exact gradients at the start."""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import polars as pl
from pydantic import Field, PositiveFloat, PositiveInt

from recast_sim.comparing import comparison_seeds
from recast_sim.configio import Checked
from recast_sim.field_types import Distinct, Worlds
from recast_sim.runs import atomic_file, derive_seed
from recast_sim.runs.sweep import Job, Submit
from recast_sim.thought_methods import ThoughtError, ThoughtMethod, parse_thought_methods
from recast_sim.thoughts.interests import InterestsEnvironment, make_interests
from recast_sim.thoughts.latent_policy import LatentPolicy
from recast_sim.thoughts.thought_gradients import thought_gradients
from recast_sim.thoughts.thought_training import ThoughtTraining, evaluate_thoughts, train_thoughts
from recast_sim.training.plan_update import UpdateError
from recast_sim.tuning import Scores, Trial, tune
from recast_sim.world.environment import EnvironmentConfig
from recast_sim.world.generators import torch_generator

METRICS = ("pass_at_1_greedy", "pass_at_1_one_thought")  # each has a rate of its own; the first decides
_BASE = ThoughtMethod("base", "supervision")


def _environment() -> EnvironmentConfig:
    return EnvironmentConfig(200, (6, 6, 6), dim=6, beta=5.0, heldout_prompts=1024, validation_prompts=1)


@dataclass(frozen=True)
class ThoughtSetting(Checked, error=ThoughtError):
    """Where methods are compared.

    Attributes:
        environment: the world; its numbers of prompts are of users.
        interests: contexts of a user, one of which makes each target.
        thoughts: that the policy chooses among.
        base_steps, base_prompts, base_rate: the start, supervision with all thoughts summed out.
        training: of every method.
    """

    environment: EnvironmentConfig = field(default_factory=_environment)
    interests: Annotated[int, Field(ge=1, le=64)] = 2
    thoughts: Annotated[int, Field(ge=2, le=64)] = 4
    base_steps: PositiveInt = 60
    base_prompts: PositiveInt = 256
    base_rate: PositiveFloat = 0.02
    training: ThoughtTraining = field(default_factory=ThoughtTraining)


@dataclass(frozen=True)
class ThoughtProtocol(Checked, error=ThoughtError):
    """What is compared and how.

    Attributes:
        methods: lines as `parse_thought_method` reads them; one with by_target is left out where a prompt has one target.
        learning_rates: the grid that every method starts from; it grows where the best rate is at an end.
        seeds: reported worlds of a setting.
        tuning_seeds: worlds that only choose the learning rates.
        gradient_prompts: train prompts of the exact gradients at the start.
    """

    methods: Distinct[str] = ("supervision", "verifree: soft constructor=rloo answer=psr")
    learning_rates: Distinct[PositiveFloat] = (0.003, 0.01, 0.03)
    seeds: Worlds = 10
    tuning_seeds: Worlds = 3
    gradient_prompts: PositiveInt = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        if _BASE.name in self.parsed():
            raise ThoughtError(f"ThoughtProtocol.methods: {_BASE.name!r} is the start's name; choose another")

    def parsed(self) -> dict[str, ThoughtMethod]:
        """The methods by name, checked."""
        return parse_thought_methods(self.methods)


def run_thought_study(
    settings: Mapping[str, ThoughtSetting], protocol: ThoughtProtocol, seed: int, root: Path, submit: Submit
) -> None:
    """Tune and run every method in every setting; writes rates, runs and gradients (parquet) in `root`."""
    reported, tuning = comparison_seeds(seed, protocol.seeds, protocol.tuning_seeds)
    methods = protocol.parsed()
    places = [(name, m) for name, setting in settings.items() for m in methods if _fits(methods[m], setting)]

    def job(name: str, m: str, rate: float, s: int) -> Job:
        return Job(("thoughts", name, m, rate, s), run_thoughts, (settings[name], methods[m], rate, s))

    def try_out(trials: Sequence[Trial]) -> list[Scores]:
        runs = submit("tuning rates", [job(*place, rate, s) for s in tuning for place, rate in trials])
        of_trial = [runs[at :: len(trials)] for at in range(len(trials))]
        return [{metric: [run.get(metric, -math.inf) for run in found] for metric in METRICS} for found in of_trial]

    tuned = tune(places, METRICS, protocol.learning_rates, try_out)
    wanted = dict.fromkeys((*place, tuned.rates[*place, metric], s) for s in reported for place in places for metric in METRICS)
    runs = submit("reported runs", [job(*key) for key in wanted])
    names = ("setting", "method", "learning_rate", "seed")
    rows = [{**dict(zip(names, key, strict=True)), **run} for key, run in zip(wanted, runs, strict=True)]
    starts = [(name, s) for name in settings for s in reported]
    size = protocol.gradient_prompts
    latent = [method for method in methods.values() if not method.thoughts]
    jobs = [
        Job(("start", name, s), describe_start, (settings[name], [m for m in latent if _fits(m, settings[name])], size, s))
        for name, s in starts
    ]
    found = submit("exact gradients", jobs)
    described = [({"setting": name, "seed": s}, start) for (name, s), start in zip(starts, found, strict=True)]
    rows += [{**place, "method": _BASE.name, **start["scores"]} for place, start in described]
    gradients = [{**place, **row} for place, start in described for row in start["gradients"]]
    rates = [
        {
            **dict(zip(("setting", "method", "metric"), key, strict=True)),
            "learning_rate": rate,
            "at_edge": rate in (min(tuned.grids[key[:2]]), max(tuned.grids[key[:2]])),
        }
        for key, rate in tuned.rates.items()
    ]
    for name, table in (("rates", rates), ("runs", rows), ("gradients", gradients)):
        with atomic_file(root / f"{name}.parquet") as temporary:
            pl.DataFrame(table, infer_schema_length=None).write_parquet(temporary)


def run_thoughts(setting: ThoughtSetting, method: ThoughtMethod, rate: float, seed: int) -> dict[str, Any]:
    """Final metrics of one run from the start of one world, and its learnable share; none but "failed" where it broke off."""
    environment, policy = _start(setting, method.thoughts or setting.thoughts, seed)
    try:
        learnable = train_thoughts(policy, environment, method, setting.training, rate, derive_seed(seed, "runs"))
    except UpdateError as error:
        return {"failed": str(error)}
    return {**evaluate_thoughts(policy, environment), "learnable": learnable}


def describe_start(setting: ThoughtSetting, methods: Sequence[ThoughtMethod], prompts: int, seed: int) -> dict[str, Any]:
    """The start's metrics, and every method's exact gradient there."""
    environment, policy = _start(setting, setting.thoughts, seed)
    found = thought_gradients(policy, environment, methods, setting.training.group_size, prompts)
    return {"scores": evaluate_thoughts(policy, environment), "gradients": [asdict(row) for row in found]}


def _start(setting: ThoughtSetting, thoughts: int, seed: int) -> tuple[InterestsEnvironment, LatentPolicy]:
    environment = _world(setting.environment, setting.interests, seed)
    base = replace(setting.training, steps=setting.base_steps, prompts_per_step=setting.base_prompts)
    return environment, copy.deepcopy(_base(setting.environment, setting.interests, thoughts, base, setting.base_rate, seed))


@lru_cache(maxsize=2)
def _world(config: EnvironmentConfig, interests: int, seed: int) -> InterestsEnvironment:
    return make_interests(config, interests, seed)


@lru_cache(maxsize=4)
def _base(
    config: EnvironmentConfig, interests: int, thoughts: int, training: ThoughtTraining, rate: float, seed: int
) -> LatentPolicy:
    environment = _world(config, interests, seed)
    policy = LatentPolicy(environment.catalog, interests * config.dim, thoughts, torch_generator(seed, "latent policy"))
    train_thoughts(policy, environment, _BASE, training, rate, derive_seed(seed, "base"))
    return policy


def _fits(method: ThoughtMethod, setting: ThoughtSetting) -> bool:
    return not method.by_target or setting.environment.targets > 1
