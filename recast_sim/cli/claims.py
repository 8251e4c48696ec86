"""`recast-sim claims`: the claims of the paper that a simulator can speak to, each measured, each with a verdict."""

import time
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import polars as pl
from pydantic import Field, PositiveInt

from recast_sim.cli.shared import RECIPES, folder
from recast_sim.commandline import OptionalFile, Sweeping, progress
from recast_sim.configio import Checked
from recast_sim.exact.instrument import gradient_reports
from recast_sim.experiments.protocol import Protocol, run_protocol, worlds_folder
from recast_sim.experiments.world_setting import Setting, calibrate_setting, environment_config, load_world
from recast_sim.field_types import Convergence, Several
from recast_sim.runs import RunWriter, atomic_file
from recast_sim.runs.sweep import Job, Submit, open_sweep
from recast_sim.world.policy import PolicyConfig

_CONSTRUCTORS = ("grpo", "recast")
_PROMPTS, _GROUPS = 8192, 32


@dataclass(frozen=True)
class ClaimsConfig(Checked):
    """The keys of a claims file.

    Attributes:
        setting: calibrated to the paper's regime, once for each convergence.
        weak, strong: convergence of an under-trained and of a converged base policy.
        ladder: capacities for the claims about model scale, smallest first, in one world calibrated for `setting.policy`.
        passes: over the prompts of `passes_prompts`, for the claims about what changes during training; both bases.
        passes_prompts: train prompts that the passes go over.
        protocol: grid, seeds; its methods must hold grpo, recast and repair_only.
    """

    setting: Setting = field(default_factory=Setting)
    weak: Convergence = 0.5
    strong: Convergence = 1.0
    ladder: Several[PolicyConfig] = ()
    passes: Several[Annotated[float, Field(gt=0, le=1000)]] = ()
    passes_prompts: PositiveInt = 2048
    protocol: Protocol = field(default_factory=Protocol)


@dataclass(frozen=True, kw_only=True)
class Claims(Sweeping):
    """The paper's claims 1 to 4 and 9 to 12 in simulation: its figure, ours, a verdict.

    Attributes:
        file: TOML file with the keys of the options, or the name of a recipe; default recipes/claims.toml.
    """

    file: OptionalFile = RECIPES / "claims.toml"
    config: ClaimsConfig


def claims(command: Claims) -> None:
    from recast_analysis.claims.simulated import report as claims_report
    from recast_analysis.terminal import finish

    begun, config = time.perf_counter(), command.config
    root = folder(command, "claims")
    writer = RunWriter.open(root, "claims", asdict(config), command.seed, command.resume)
    starts = {name: replace(config.setting, convergence=c) for name, c in (("weak", config.weak), ("strong", config.strong))}
    with progress() as report, open_sweep(root / "jobs", command.engine, command.workers, report) as submit:
        run_protocol(starts, config.protocol, command.seed, root / "methods", submit)
        _gradients(root, starts, config.protocol, command.seed, submit)
        if config.passes:
            two = replace(config.protocol, methods=_CONSTRUCTORS, metrics=("pass_at_1_greedy",))
            run_protocol(_passes(config, starts), two, command.seed, root / "passes", submit)
        if config.ladder:
            run_protocol(_ladder(config, command.seed, submit), config.protocol, command.seed, root / "ladder", submit)
    found = claims_report(root)
    writer.close(summary=found.summary | {"seconds": round(time.perf_counter() - begun, 1)})
    finish(command, found.summary["claims"], found, f"recast-report claims {root}")


def _passes(config: ClaimsConfig, starts: dict[str, Setting]) -> dict[str, Setting]:
    """Settings that differ in their base and in how often RL goes over its prompts, twenty evaluations each."""
    found = {}
    for (name, start), passes in product(starts.items(), config.passes):
        training = replace(start.training, passes=passes)
        training = replace(training, evaluate_every=max(1, training.batches(config.passes_prompts) // 20))
        environment = replace(start.environment, train_prompts=config.passes_prompts)
        words = f"{name} base, {passes:g} passes over {config.passes_prompts} prompts"
        found[words] = replace(start, environment=environment, training=training)
    return found


def _ladder(config: ClaimsConfig, seed: int, submit: Submit) -> dict[str, Setting]:
    """One calibrated world for policies of every capacity: the world does not change along the ladder."""
    weak = replace(config.setting, convergence=config.weak)
    (found,) = submit("ladder: calibration", [Job(("ladder", seed), _calibrate, (weak, seed))])
    environment = environment_config(found)
    return {
        f"{policy.kind} {policy.width}": replace(weak, environment=environment, policy=policy, regime=())
        for policy in config.ladder
    }


def _calibrate(setting: Setting, seed: int) -> dict[str, Any]:
    return calibrate_setting(setting, seed + 10_000)


def _gradients(root: Path, settings: dict[str, Setting], protocol: Protocol, seed: int, submit: Submit) -> None:
    worlds = [(name, s) for name in settings for s in range(seed, seed + protocol.seeds)]
    jobs = [Job(("gradients", *world), _variances, (root, world[1], settings[world[0]])) for world in worlds]
    groups = next(iter(settings.values())).training.prompts_per_step
    rows = [
        {"setting": name, "seed": s, "constructor": c, "variance": variance, "groups_per_step": groups}
        for (name, s), found in zip(worlds, submit("gradients", jobs), strict=True)
        for c, variance in found.items()
    ]
    with atomic_file(root / "gradients.parquet") as temporary:
        pl.DataFrame(rows).write_parquet(temporary)


def _variances(root: Path, seed: int, setting: Setting) -> dict[str, float | None]:
    """Relative variance of one group's gradient estimate at the base policy."""
    world = load_world(worlds_folder(root / "methods", setting), setting.policy, seed)
    size = (setting.training.group_size, _PROMPTS, _GROUPS)
    reports = gradient_reports(world.base, world.environment, _CONSTRUCTORS, *size, seed, setting.training.signal)
    return {report.constructor: report.variance for report in reports}
