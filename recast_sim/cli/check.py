"""`recast-sim check`: one constructor, what it declares and what it does, on one page."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recast_sim.cli.shared import folder
from recast_sim.closed_forms.gradient_weights import weight, weight_names
from recast_sim.commandline import Common, Positional, progress
from recast_sim.configio import Checked
from recast_sim.exact.instrument import gradient_reports
from recast_sim.exact.measured_weight import measured_weight
from recast_sim.field_types import GroupSize, Regime
from recast_sim.runs import RunWriter, write_json
from recast_sim.signal import Constructor, SignalConfig, SignalError, construct, get_constructor
from recast_sim.signal.declared import check_declared, iid_groups
from recast_sim.world.calibration import calibrate
from recast_sim.world.environment import EnvironmentConfig, make_environment
from recast_sim.world.policy import PolicyConfig
from recast_sim.world.pretraining import train_base

BESIDE = ("grpo", "recast", "sft")  # drawn beside the checked one
_HIT_RATES = np.geomspace(1e-3, 0.9, 25)
_TIMED, _ROUNDS = 1024, 5  # groups of a batch, and rounds, of the cost
_GROUPS = 64  # a prompt, where an estimate is sampled


@dataclass(frozen=True)
class CheckConfig(Checked, error=SignalError):
    """Where a constructor is checked.

    Attributes:
        group_size: of the weight, the world and the cost.
        signal: its numbers.
        regime: the shares that the world is calibrated to.
        environment: that world.
        convergence: of its base policy.
    """

    group_size: GroupSize = 32
    signal: SignalConfig = field(default_factory=SignalConfig)
    regime: Regime = (0.85, 0.13, 0.02)
    environment: EnvironmentConfig = field(default_factory=lambda: EnvironmentConfig(train_prompts=2048, heldout_prompts=512))
    convergence: float = 0.5


@dataclass(frozen=True, kw_only=True)
class Check(Common):
    """One constructor on a page: what it declares, its weight w(p), how it cools, its cost.

    Attributes:
        name: of a shipped constructor, or of your own: --plugin FILE NAME, or FILE.py:NAME.
        file: TOML file with the keys of the options; options override it.
    """

    name: Positional[str | None] = None
    file: Path | None = None
    config: CheckConfig = field(default_factory=CheckConfig)


def check(command: Check) -> None:
    """Exits with status 1 where a declaration does not hold."""
    from recast_analysis.reports.check import report as check_report
    from recast_analysis.terminal import finish

    if command.name is None:
        raise SignalError("name: missing; give a constructor's name, for example `recast-sim check recast`")
    torch.set_num_threads(1)
    constructor, config = get_constructor(command.name), command.config
    findings = check_declared(constructor, config.signal)
    root = folder(command, f"check-{constructor.name}")
    writer = RunWriter.create(root, "check", asdict(config) | {"constructor": constructor.name}, command.seed)
    names = (constructor.name, *(name for name in BESIDE if name != constructor.name))
    found: dict[str, Any] = {
        "constructor": constructor.name,
        "source": constructor.source,
        "group_size": config.group_size,
        "findings": [asdict(finding) for finding in findings],
    }
    parts: dict[str, Callable[[], Any]] = {
        "weights": lambda: _weights(names, config),
        "updates": lambda: _updates(names, config, command.seed),
        "cost": lambda: _cost(names, config),
    }
    with progress() as tell:
        for done, (part, measured) in enumerate(parts.items(), start=1):
            found[part] = measured()
            tell("weight, update, cost", done, len(parts))
    write_json(root / "check.json", found)
    report = check_report(root)
    (figure,) = report.save_figures(root)
    broken = [finding.what for finding in findings if finding.holds is False]
    writer.close(summary={"broken": broken})
    compared = " ".join(dict.fromkeys(("grpo", "recast", command.name)))
    summary = found | {"broken": broken, "run": str(root), "figure": figure}
    finish(command, summary, report, f"recast-sim gradients --constructors {compared}")
    if broken:
        raise SystemExit(1)


def _weights(names: tuple[str, ...], config: CheckConfig) -> dict[str, Any]:
    """w(p) of one group as measured, and as a closed form times its rows where there is one."""
    curves: dict[str, Any] = {"hit_rate": _HIT_RATES.tolist()}
    for name in names:
        curves[name] = measured_weight(get_constructor(name), _HIT_RATES, config.group_size, config.signal).tolist()
    if names[0] in weight_names():
        curves["closed form"] = weight(names[0], _HIT_RATES, config.group_size).tolist()
    return curves


def _updates(names: tuple[str, ...], config: CheckConfig, seed: int) -> list[dict[str, Any]]:
    """What the expected update does in a calibrated world: how much it cools, what the rest gains."""
    knobs = calibrate(config.regime, config.group_size, config.environment, PolicyConfig(), config.convergence, seed).config
    environment = make_environment(knobs, seed)
    base = train_base(environment, PolicyConfig(), config.convergence, seed).policy
    size = (config.group_size, knobs.train_prompts, _GROUPS)
    reports = gradient_reports(base, environment, names, *size, seed, config.signal, "iid")
    return [asdict(report) for report in reports]


def _cost(names: tuple[str, ...], config: CheckConfig) -> dict[str, float]:
    """Milliseconds of the construction of 1,024 groups, the least of some rounds in which all take their turn."""
    batch = iid_groups(config.group_size, 0.05, _TIMED)
    constructors: list[Constructor] = [get_constructor(name) for name in names]
    best = dict.fromkeys(names, np.inf)
    for _ in range(_ROUNDS):
        for name, constructor in zip(names, constructors, strict=True):
            begun = time.perf_counter()
            construct(constructor, **batch, config=replace(config.signal))
            best[name] = min(best[name], 1e3 * (time.perf_counter() - begun))
    return best
