"""`recast-sim gradients`: bias and variance of constructors' gradient estimates in one world."""

import time
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any

import polars as pl
import torch
from pydantic import Field, PositiveInt

from recast_sim.cli.shared import folder
from recast_sim.commandline import Common, Flag, OptionalFile, progress
from recast_sim.configio import Checked
from recast_sim.exact.instrument import BATCHES, GradientReport, each_report
from recast_sim.field_types import Convergence, Distinct, GroupSize, Regime, Several
from recast_sim.runs import RunWriter, atomic_file, write_json
from recast_sim.signal import get_constructor
from recast_sim.training.training_config import TrainingConfig, TrainingError
from recast_sim.world.calibration import calibrate
from recast_sim.world.environment import Environment, EnvironmentConfig, make_environment
from recast_sim.world.policy import PolicyConfig, TreePolicy
from recast_sim.world.pretraining import train_base
from recast_sim.world.sampling import Sampler

COMPARED = (
    "grpo",
    "rloo",
    "max_rl",
    "repair_only",
    "boundary_only",
    "add_gt",
    "recast",
    "sft",
    "tempered_anchor",
    "hybrid",
    "grpo_anchor",
)


@dataclass(frozen=True)
class GradientsConfig(Checked, error=TrainingError):
    """A world, a base policy, and what is compared there. A `recast-sim train` file is one of these too.

    Attributes:
        convergence: of the base policy, see `recast-sim calibrate`.
        training: only its group_size (the regime's, and that of the tables), signal and sampler are read.
        regime: shares of all-zero, single-hit and multi-hit groups that the environment is calibrated to.
        constructors: their names.
        group_sizes: the other group sizes of the curves.
        prompts: train prompts that the gradients are means over. A base policy fitted to all of them has a supervised gradient
            near 0 on all of them, not on a few: on few prompts anchors point better than they do on all.
        groups_per_prompt: sampled groups of each prompt where an estimate cannot be counted exactly, a multiple of 8.
        sampler: of the rollouts; default the training's.
    """

    environment: EnvironmentConfig = field(default_factory=EnvironmentConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    convergence: Convergence = 1.0
    training: TrainingConfig = field(default_factory=TrainingConfig)
    regime: Regime = (0.85, 0.13, 0.02)
    constructors: Distinct[str] = COMPARED
    group_sizes: Several[GroupSize] = (2, 8, 32)
    prompts: PositiveInt = 8192
    groups_per_prompt: Annotated[int, Field(gt=0, multiple_of=BATCHES)] = 64
    sampler: Sampler | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        constructors = [get_constructor(name) for name in self.constructors]  # a wrong name is told before the work
        smallest = 2 if any(constructor.rollouts for constructor in constructors) else 1
        for size in (*self.group_sizes, self.training.group_size):
            if size < smallest:
                raise TrainingError(f"GradientsConfig.group_sizes: {size} must be at least {smallest} for these constructors")


@dataclass(frozen=True, kw_only=True)
class Gradients(Common):
    """Bias, variance and signal-to-noise of gradients, exact where they can be counted.

    Attributes:
        file: TOML file with the keys of the options; options override it.
        no_calibrate: take the environment as it is, whatever its regime.
    """

    file: OptionalFile = None
    config: GradientsConfig
    no_calibrate: Flag = False


def compare_gradients(command: Gradients) -> None:
    from recast_analysis.reports.gradients import report as gradients_report
    from recast_analysis.terminal import finish

    torch.set_num_threads(1)  # tensors this small only lose by more
    begun, config = time.perf_counter(), command.config
    root = folder(command, "gradients")
    environment, base = _world(config, command.seed, not command.no_calibrate)
    resolved = asdict(replace(config, environment=environment.config)) | {"calibrated": not command.no_calibrate}
    rows = _rows(config, environment, base, command.seed)
    writer = RunWriter.create(root, "gradients", resolved, command.seed)
    result = {
        "group_size": config.training.group_size,
        "sampler": config.sampler or config.training.sampler,
        "prompts": rows[0]["prompts"],
        "reports": rows,
        "run": str(root),
    }
    write_json(root / "gradients.json", result)
    with atomic_file(root / "gradients.parquet") as temporary:
        pl.json_normalize(rows, separator=".", infer_schema_length=None).write_parquet(temporary)
    found = gradients_report(root)
    figures = found.save_figures(root)
    result |= {"figure": figures[-1], "figures": figures, "seconds": round(time.perf_counter() - begun, 1)}
    writer.close(summary={name: result[name] for name in ("group_size", "sampler", "prompts", "figure", "seconds")})
    finish(command, result, found, f"recast-sim budget --protocol.methods {' '.join(config.constructors)}")


def _world(config: GradientsConfig, seed: int, calibrated: bool) -> tuple[Environment, TreePolicy]:
    knobs = config.environment
    if calibrated:
        knobs = calibrate(config.regime, config.training.group_size, knobs, config.policy, config.convergence, seed).config
    environment = make_environment(knobs, seed)
    return environment, train_base(environment, config.policy, config.convergence, seed).policy


def _rows(config: GradientsConfig, environment: Environment, base: TreePolicy, seed: int) -> list[dict[str, Any]]:
    """A row a constructor and group size, the tables' group size among them."""
    sizes = sorted({*config.group_sizes, config.training.group_size})
    rest = (config.prompts, config.groups_per_prompt, seed, config.training.signal, config.sampler or config.training.sampler)
    names, rows = config.constructors, []
    with progress() as report:
        for found in each_report(base, environment, names, sizes, *rest):
            rows.append(_row(found))
            report("reports", len(rows), len(sizes) * len(names))
    return rows


def _row(report: GradientReport) -> dict[str, Any]:
    return asdict(report) | {
        "snr": report.snr,
        "snr_per_rollout": report.snr_per_rollout,
        "variance_per_rollout": report.variance_per_rollout,
    }
