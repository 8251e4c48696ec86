"""`recast-sim map`: which signal wins where, over a sweep of settings."""

import time
from dataclasses import asdict, dataclass, field

import polars as pl

from recast_sim.cli.shared import RECIPES, folder
from recast_sim.commandline import OptionalFile, Sweeping, progress
from recast_sim.configio import Checked
from recast_sim.experiments.map_cells import Axis, map_cells
from recast_sim.experiments.protocol import Protocol, run_protocol
from recast_sim.experiments.world_setting import Setting
from recast_sim.field_types import Distinct, Several
from recast_sim.runs import RunWriter, atomic_file
from recast_sim.runs.sweep import open_sweep
from recast_sim.training.training_config import TrainingError


@dataclass(frozen=True)
class MapConfig(Checked, error=TrainingError):
    """The keys of a map file.

    Attributes:
        setting: the base setting, through which every slice runs.
        axes: each a slice; `points` are changes to the base by dotted key.
        grids: pairs of axes that are crossed.
        protocol: methods, grid of learning rates, seeds.
        pairs: what is held against what, each two names of methods or choices; "base" as the second is the policy before
            training.
    """

    setting: Setting = field(default_factory=Setting)
    axes: tuple[Axis, ...] = ()
    grids: Several[tuple[str, str]] = ()
    protocol: Protocol = field(default_factory=Protocol)
    pairs: Distinct[tuple[str, str]] = (("recast", "grpo"), ("recast", "sft"), ("grpo", "sft"), ("sft", "base"))

    def __post_init__(self) -> None:
        super().__post_init__()
        compared = [*(method.name for method in self.protocol.parsed()), *(choice.name for choice in self.protocol.choices)]
        for mine, other in self.pairs:
            for name in (mine, *({other} - {"base"})):
                if name not in compared:
                    raise TrainingError(f"MapConfig.pairs: {name!r} is not among protocol.methods; add it there")


@dataclass(frozen=True, kw_only=True)
class Map(Sweeping):
    """How much better one method ends than another, over a sweep of settings: heat maps.

    Attributes:
        file: TOML file with the keys of the options, or the name of a recipe; default recipes/map.toml.
    """

    file: OptionalFile = RECIPES / "map.toml"
    config: MapConfig


def draw_the_map(command: Map) -> None:
    from recast_analysis.reports.map import report as map_report
    from recast_analysis.terminal import finish

    begun, config = time.perf_counter(), command.config
    cells = map_cells(config.setting, config.axes, config.grids)
    root = folder(command, "map")
    writer = RunWriter.open(root, "map", asdict(config), command.seed, command.resume)
    with atomic_file(root / "cells.parquet") as temporary:
        pl.DataFrame([asdict(cell) for cell in cells.cells]).write_parquet(temporary)
    with progress() as report, open_sweep(root / "jobs", command.engine, command.workers, report) as submit:
        run_protocol(cells.settings, config.protocol, command.seed, root / "methods", submit, skip_failed=True)
    found = map_report(root)
    figures = found.save_figures(root)
    summary = found.summary | {"figures": figures, "seconds": round(time.perf_counter() - begun, 1)}
    writer.close(summary={"seconds": summary["seconds"]})
    finish(command, summary | {"run": str(root)}, found, f"recast-report html {root}")
