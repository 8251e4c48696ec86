"""`recast-sim thoughts`: a thought before the SID, the signals that train it, and when it pays."""

import time
from dataclasses import asdict, dataclass, field

from recast_sim.cli.shared import RECIPES, folder
from recast_sim.commandline import OptionalFile, Sweeping, progress
from recast_sim.configio import Checked
from recast_sim.experiments.map_cells import Point, named_settings
from recast_sim.field_types import Several
from recast_sim.runs import RunWriter
from recast_sim.runs.sweep import open_sweep
from recast_sim.thought_methods import ThoughtError
from recast_sim.thoughts.thought_study import ThoughtProtocol, ThoughtSetting, run_thought_study


@dataclass(frozen=True)
class ThoughtsConfig(Checked, error=ThoughtError):
    """The keys of a thoughts file.

    Attributes:
        setting: the base setting.
        points: changes to it by dotted key, a compared setting each; none compares in the base alone.
        protocol: methods, grid, seeds.
        pairs: what is held against what, each two names of methods; in a setting that leaves one out there is no such pair.
    """

    setting: ThoughtSetting = field(default_factory=ThoughtSetting)
    points: tuple[Point, ...] = ()
    protocol: ThoughtProtocol = field(default_factory=ThoughtProtocol)
    pairs: Several[tuple[str, str]] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        names = self.protocol.parsed()
        for name in (name for pair in self.pairs for name in pair):
            if name not in names:
                raise ThoughtError(f"ThoughtsConfig.pairs: {name!r} is not among protocol.methods; add it there")


@dataclass(frozen=True, kw_only=True)
class ThoughtStudy(Sweeping):
    """A thought before the SID: soft and hard rewards against supervision, exact gradients.

    Attributes:
        file: TOML file with the keys of the options, or the name of a recipe; default the recipe "thoughts".
    """

    file: OptionalFile = RECIPES / "thoughts.toml"
    config: ThoughtsConfig


def thoughts(command: ThoughtStudy) -> None:
    from recast_analysis.reports.thoughts import report as thoughts_report
    from recast_analysis.terminal import finish

    begun, config = time.perf_counter(), command.config
    settings = named_settings(config.setting, config.points)
    root = folder(command, "thoughts")
    writer = RunWriter.open(root, "thoughts", asdict(config), command.seed, command.resume)
    with progress() as report, open_sweep(root / "jobs", command.engine, command.workers, report) as submit:
        run_thought_study(settings, config.protocol, command.seed, root, submit)
    found = thoughts_report(root)
    figures = found.save_figures(root)
    summary = found.summary | {"figure": figures[0], "seconds": round(time.perf_counter() - begun, 1)}
    writer.close(summary=summary)
    finish(command, summary | {"run": str(root)}, found, f"recast-report html {root}")
