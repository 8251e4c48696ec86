"""A setting (a place on the map) and its worlds: calibrated, drawn by seed, kept on disk with their base policies."""

import json
from dataclasses import asdict, dataclass, field
from functools import cached_property, lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

from recast_sim.bounded import read_json_file
from recast_sim.closed_forms.iid_groups import fit_beta, regime_given_hit_rates
from recast_sim.configio import Checked
from recast_sim.field_types import Convergence, GroupSize, OptionalRegime, Share
from recast_sim.runs import RunError, atomic_directory, write_json
from recast_sim.runs.model_state import load_tensors, save_tensors
from recast_sim.training.near_misses import hardest_miss_levels
from recast_sim.training.training_config import TrainingConfig, TrainingError
from recast_sim.world.calibration import calibrate, calibrate_hit_rate, hit_rates
from recast_sim.world.environment import Environment, EnvironmentConfig, best_possible, make_environment
from recast_sim.world.evaluation import evaluate
from recast_sim.world.generators import torch_generator
from recast_sim.world.learning import Start
from recast_sim.world.policy import PolicyConfig, TreePolicy
from recast_sim.world.pretraining import train_base


@dataclass(frozen=True)
class Setting(Checked, error=TrainingError):
    """Where methods are compared.

    Attributes:
        environment, policy, convergence: the world, the policy's capacity, and how far its base is trained.
        regime: (all_zero, single_hit, multi_hit) to calibrate the world to; empty does not.
        regime_group_size: the group size at which the regime is asked for, and reported.
        hit_rate: mean hit rate of the base policy to calibrate to instead; 0 does not.
        calibrate_each: calibrate every world by itself, not once on the first tuning world (slower; no scatter of the regime).
        training: everything but constructor and learning rate, which the protocol sets.
    """

    environment: EnvironmentConfig = field(default_factory=EnvironmentConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    convergence: Convergence = 1.0
    regime: OptionalRegime = (0.85, 0.13, 0.02)
    regime_group_size: GroupSize = 32
    hit_rate: Share = 0.0
    calibrate_each: bool = False
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hit_rate and self.regime:
            raise TrainingError(f"Setting.hit_rate: {self.hit_rate} and a regime exclude each other; set regime to []")

    @property
    def world_name(self) -> str:
        """A name of everything that makes the setting's worlds, so that settings that only train otherwise share them."""
        made_by = {name: value for name, value in asdict(self).items() if name != "training"}
        return blake2b(json.dumps(made_by, sort_keys=True).encode(), digest_size=6).hexdigest()


@dataclass(frozen=True)
class World:
    """A drawn environment, its base policy, and what was measured of them (`info`)."""

    environment: Environment
    base: TreePolicy
    info: dict[str, Any]

    @cached_property
    def start(self) -> Start:
        """The base policy as where training starts."""
        return Start(self.base, self.environment)


def calibrate_setting(setting: Setting, seed: int) -> dict[str, Any]:
    """The environment's knobs after calibration on one world, as a mapping.

    Raises:
        CalibrationError: no world in reach shows what the setting asks for.
    """
    size = setting.regime_group_size
    if setting.hit_rate:
        found = calibrate_hit_rate(
            setting.hit_rate, size, setting.environment, setting.policy, setting.convergence, seed
        ).config
    elif setting.regime:
        found = calibrate(setting.regime, size, setting.environment, setting.policy, setting.convergence, seed).config
    else:
        found = setting.environment
    return asdict(found)


def draw_world(folder: Path, setting: Setting, knobs: dict[str, Any], seed: int) -> dict[str, Any]:
    """Draw a world, train its base policy, save both below `folder`, and return what was measured of them.

    The regime is that of i.i.d. groups on the train prompts, by expectation from the base policy's hit rates.
    """
    environment = make_environment(environment_config(knobs), seed)
    base = train_base(environment, setting.policy, setting.convergence, seed)
    rates = hit_rates(environment, base)
    info = {
        "seed": seed,
        "environment": knobs,
        "base": {name: getattr(base, name) for name in ("steps", "convergence", "untrained", "optimum")},
        "scores": evaluate(base.policy, environment),
        "best_possible": best_possible(environment),
        "hit_rate": float(rates.mean()),
        "regime": regime_given_hit_rates(rates, setting.regime_group_size).tolist(),
        "beta_fit": fit_beta(rates) if rates.std() > 1e-6 * rates.mean() else None,
        "hardest_miss": hardest_miss_levels(base.policy, environment, setting.regime_group_size, seed),
    }
    with atomic_directory(folder / f"seed-{seed}") as temporary:
        save_tensors(temporary / "base.safetensors", base.policy.state_dict())
        write_json(temporary / "world.json", info)
    return info


@lru_cache(maxsize=2)
def load_world(folder: Path, config: PolicyConfig, seed: int) -> World:
    """A world that was saved below `folder`.

    Raises:
        RunError: it is missing or damaged.
    """
    place = folder / f"seed-{seed}"
    try:
        info = read_json_file(place / "world.json", RunError)
        environment = make_environment(environment_config(info["environment"]), seed)
        base = TreePolicy(environment.catalog, environment.config.dim, config, torch_generator(seed, "policy initialisation"))
        base.load_state_dict(load_tensors(place / "base.safetensors", place))
    except (OSError, LookupError, RuntimeError, TypeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise RunError(f"{place}: the world does not load ({reason}); start a new run in another folder") from error
    return World(environment, base, info)


def environment_config(knobs: dict[str, Any]) -> EnvironmentConfig:
    """Knobs as read from JSON."""
    read: dict[str, Any] = {**knobs, "sizes": tuple(knobs["sizes"])}
    return EnvironmentConfig(**read)
