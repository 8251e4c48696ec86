"""`recast-sim calibrate`: from a regime to a world that shows it."""

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from recast_sim.commandline import Common, progress
from recast_sim.field_types import Convergence, GroupSize, Regime
from recast_sim.runs import write_json
from recast_sim.world.calibration import calibrate
from recast_sim.world.environment import EnvironmentConfig
from recast_sim.world.policy import PolicyConfig

if TYPE_CHECKING:
    from recast_analysis.reports.report import Report


@dataclass(frozen=True)
class Calibrate(Common):
    """Find an environment and a base policy that show a regime.

    Fewer items are tried where hit rates differ too much between prompts.

    Attributes:
        regime: shares of all-zero, single-hit and multi-hit groups.
        group_size: rollouts a prompt.
        convergence: of the base policy.
        out: folder for calibration.json; default none, the result is printed only.
    """

    regime: Regime = (0.85, 0.13, 0.02)
    group_size: GroupSize = 32
    convergence: Convergence = 1.0
    environment: EnvironmentConfig = field(default_factory=EnvironmentConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)


def calibrate_world(command: Calibrate) -> None:
    from recast_analysis.terminal import finish

    knobs = (command.environment, command.policy, command.convergence, command.seed)
    with progress() as tell:
        found = calibrate(command.regime, command.group_size, *knobs, cut_items=True, tell=tell)
    result = {"environment": asdict(found.config), "regime": found.regime, "beta_fit": found.beta_fit}
    if command.out is not None:
        command.out.mkdir(parents=True, exist_ok=True)
        write_json(command.out / "calibration.json", result)
    options = " ".join(f"--environment.{name} {getattr(found.config, name):g}" for name in ("items", "alpha", "beta"))
    then = f"recast-sim gradients --no-calibrate --convergence {command.convergence:g} {options}"
    finish(command, result, _report(result), then)


def _report(result: dict[str, Any]) -> "Report":
    from recast_analysis.reports.report import Report, Table

    names = ("all-zero", "single-hit", "multi-hit")
    shares = [(name, f"{share:.4f}") for name, share in zip(names, result["regime"], strict=True)]
    knobs = [(name, str(value)) for name, value in result["environment"].items()]
    note = "Expected on train prompts from the base policy's hit rates, groups of independent rollouts."
    tables = [Table("regime", ("", "share of groups"), shares, note=note), Table("environment", ("", "value"), knobs)]
    return Report(result, tables)
