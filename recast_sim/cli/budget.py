"""`recast-sim budget`: what each method spends to reach another's final score, by the protocol of docs/budget.md."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace

from pydantic import PositiveFloat

from recast_sim.cli.shared import RECIPES, folder
from recast_sim.commandline import OptionalFile, Sweeping, progress
from recast_sim.configio import Checked
from recast_sim.experiments.map_cells import Point, named_settings
from recast_sim.experiments.protocol import Protocol, run_protocol
from recast_sim.experiments.world_setting import Setting
from recast_sim.field_types import Several
from recast_sim.runs import RunWriter
from recast_sim.runs.sweep import open_sweep

# (groups) repair with grpo's weights, (weight) the pair at its own and at grpo's norm, (direction) same groups, same norm
CONTROLS = (
    "grpo",
    "repair_only rate_of=grpo",
    "recast rate_of=grpo",
    "recast norm_like=grpo rate_of=grpo",
    "boundary_only norm_like=grpo rate_of=grpo",
)


@dataclass(frozen=True)
class BudgetConfig(Checked):
    """The keys of a budget file.

    Attributes:
        setting: the base setting.
        points: changes to it by dotted key, a compared setting each; none compares in the base alone.
        protocol: methods, grid, seeds.
        control_rates: learning rates (plain SGD) of the controls that split recast's gain; none leaves them out.
    """

    setting: Setting = field(default_factory=Setting)
    points: tuple[Point, ...] = ()
    protocol: Protocol = field(default_factory=Protocol)
    control_rates: Several[PositiveFloat] = ()


@dataclass(frozen=True, kw_only=True)
class Budget(Sweeping):
    """Budget ratios with intervals, curves, and the gain split into its parts.

    Attributes:
        file: TOML file with the keys of the options, or the name of a recipe; default the recipe "budget",
            the calibrated 85 / 13 / 2 world.
    """

    file: OptionalFile = RECIPES / "budget.toml"
    config: BudgetConfig


def budget(command: Budget) -> None:
    from recast_analysis.reports.budget import report as budget_report
    from recast_analysis.terminal import finish

    begun, config = time.perf_counter(), command.config
    settings = named_settings(config.setting, config.points)
    root = folder(command, "budget")
    writer = RunWriter.open(root, "budget", asdict(config), command.seed, command.resume)
    with progress() as report, open_sweep(root / "jobs", command.engine, command.workers, report) as submit:
        run_protocol(settings, config.protocol, command.seed, root / "methods", submit)
        if config.control_rates:
            run_protocol(_with_sgd(settings), _controls(config), command.seed, root / "controls", submit)
    found = budget_report(root)
    figures = found.save_figures(root)
    summary = found.summary | {"figures": figures, "seconds": round(time.perf_counter() - begun, 1)}
    writer.close(summary=summary)
    finish(command, summary | {"run": str(root)}, found, f"recast-sim plan {root} --effect 0.05")


def _with_sgd(settings: Mapping[str, Setting]) -> dict[str, Setting]:
    """Plain SGD, so that the norm of a gradient is the size of its step (Adam would undo every rescaling)."""
    return {name: replace(s, training=replace(s.training, optimiser="sgd")) for name, s in settings.items()}


def _controls(config: BudgetConfig) -> Protocol:
    return replace(config.protocol, methods=CONTROLS, learning_rates=config.control_rates)
