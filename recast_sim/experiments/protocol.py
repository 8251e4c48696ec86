"""The protocol of every comparison: one grid of learning rates for all methods, tuned on worlds that are not reported.

Phases: calibrate each setting, draw its worlds, tune every method on the tuning worlds, run every method at its best rate for
each metric on the reported worlds. All methods of a setting meet the same worlds and the same prompts in the same order.
"""

import copy
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from pydantic import PositiveFloat

from recast_sim.comparing import Method, comparison_seeds, parse_method, rate_rows
from recast_sim.configio import Checked
from recast_sim.experiments.choosing import Choice, choose
from recast_sim.experiments.world_setting import Setting, calibrate_setting, draw_world, load_world
from recast_sim.field_types import Distinct, Worlds
from recast_sim.runs import RunError, atomic_file
from recast_sim.runs.sweep import Job, Submit
from recast_sim.training.loop import train
from recast_sim.training.plan_update import UpdateError
from recast_sim.training.training_config import TrainingConfig, TrainingError
from recast_sim.tuning import Scores, Trial, Tuned, tune
from recast_sim.world.calibration import CalibrationError

Metric = Literal[
    "pass_at_1_greedy", "recall_at_k", "ndcg_at_k", "calibrated_log_likelihood", "greedy_and_recall", "pass_at_1_sampled"
]
METRICS: tuple[Metric, ...] = ("pass_at_1_greedy", "recall_at_k", "calibrated_log_likelihood")
LIKELIHOOD = "calibrated_log_likelihood"
BOTH = "greedy_and_recall"  # the geometric mean of greedy Pass@1 and Recall@k: a method must not buy one with the other
FINAL = 3  # evaluations whose mean is a run's final score
_WATCHED = (
    "before_all_zero",
    "before_single_hit",
    "before_multi_hit",
    "repaired",
    "learnable",
    "update_width",
    "gradient_norm",
)


@dataclass(frozen=True)
class Protocol(Checked, error=TrainingError):
    """What is compared and how.

    Attributes:
        methods: lines as `parse_method` reads them; they set no learning rate, and may take that of another by `rate_of`.
        learning_rates: the grid that every method starts from; it grows where the best rate is at an end (`tune`).
        seeds: reported worlds of a setting.
        tuning_seeds: worlds that only choose the learning rates.
        metrics: each gets its own tuned rate. "pass_at_1_greedy" is the paper's; cooling alone moves "pass_at_1_sampled".
        choices: methods beside these, whose numbers are chosen in each setting by the first metric on the tuning worlds.
    """

    methods: Distinct[str] = ("grpo", "repair_only", "boundary_only", "recast", "sft", "sft_hard_negative")
    learning_rates: Distinct[PositiveFloat] = (0.001, 0.003, 0.01, 0.03, 0.1)
    seeds: Worlds = 20
    tuning_seeds: Worlds = 4
    metrics: Distinct[Metric] = METRICS
    choices: tuple[Choice, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        parsed = self.parsed()
        names = [method.name for method in parsed] + [choice.name for choice in self.choices]
        self.candidates()
        if len(set(names)) < len(names):
            raise TrainingError(f"Protocol.choices: the names of methods and choices must differ, got {names}")
        for method in parsed:
            if method.rate_of and method.rate_of not in names:
                raise TrainingError(
                    f"Protocol.methods: {method.name!r} takes the rate of {method.rate_of!r}, which is not compared"
                )

    def parsed(self) -> list[Method]:
        """The methods, checked."""
        return [parse_method(line, TrainingConfig(), without=("learning_rate",), may_follow=True) for line in self.methods]

    def candidates(self) -> dict[str, Method]:
        """What the choices choose among, checked, by line; the name of a method stands for that method."""
        named = {method.name: method for method in self.parsed()}
        lines = [line for choice in self.choices for line in (choice.fallback, *choice.candidates)]
        return {line: named.get(line) or parse_method(line, TrainingConfig(), without=("learning_rate",)) for line in lines}


def run_protocol(
    settings: Mapping[str, Setting], protocol: Protocol, seed: int, root: Path, submit: Submit, skip_failed: bool = False
) -> None:
    """Compare the methods in every setting; writes worlds, tuning, choices, rates and runs (parquet) in `root`.

    Args:
        settings: by name; methods get the same worlds seeds in each.
        submit: an open sweep.
        skip_failed: leave out a setting that cannot be calibrated instead of stopping (the map does).
    """
    reported, tuning = comparison_seeds(seed, protocol.seeds, protocol.tuning_seeds)
    settings, knobs = _calibrated(settings, (*tuning, *reported), submit, skip_failed)
    worlds = [(name, s) for name in settings for s in (*tuning, *reported)]
    drawn = submit(f"{root.name}: worlds", [_world_job(root, settings[name], knobs[name, s], s) for name, s in worlds])

    def run_job(name: str, method: Method, rate: float, s: int) -> Job:
        learning = s in reported or LIKELIHOOD in protocol.metrics  # what tunes nothing is not computed to tune
        names = (root.name, "run", name, method.name, rate, s)
        return Job(names, train_run, (root, settings[name], method, rate, s, learning))

    methods = {method.name: method for method in protocol.parsed()}
    tried = methods | protocol.candidates()

    def try_out(trials: Sequence[Trial]) -> list[Scores]:
        jobs = [run_job(name, tried[m], rate, s) for s in tuning for (name, m), rate in trials]  # a world is loaded once
        runs = submit(f"{root.name}: tuning rates", jobs)
        of_trial = [runs[at :: len(trials)] for at in range(len(trials))]
        return [{metric: [tuning_score(run, metric) for run in found] for metric in protocol.metrics} for found in of_trial]

    places = [(name, line) for name in settings for line, m in tried.items() if not m.rate_of]
    tuned = tune(places, protocol.metrics, protocol.learning_rates, try_out)
    rates, grids = dict(tuned.rates), dict(tuned.grids)
    for name, m in ((name, m) for name in settings for m in methods.values() if m.rate_of):
        rates |= {(name, m.name, metric): rates[name, m.rate_of, metric] for metric in protocol.metrics}
        grids[name, m.name] = grids[name, m.rate_of]
    choices = [
        (name, choice, _chosen(tuned, name, choice, protocol.metrics[0])) for name in settings for choice in protocol.choices
    ]
    line_of = {(name, m): m for name in settings for m in methods}
    for name, choice, rows in choices:
        line = line_of[name, choice.name] = next(row["line"] for row in rows if row["chosen"])
        rates |= {(name, choice.name, metric): rates[name, line, metric] for metric in protocol.metrics}
        grids[name, choice.name] = grids[name, line]
    final = dict.fromkeys((*key, rates[*key, metric], s) for s in reported for key in line_of for metric in protocol.metrics)
    jobs = {(name, m, lr, s): run_job(name, tried[line_of[name, m]], lr, s) for name, m, lr, s in final}
    found = dict(zip(jobs, submit(f"{root.name}: reported runs", list(jobs.values())), strict=True))
    _write(root / "worlds.parquet", [_world_row(name, info) for (name, _), info in zip(worlds, drawn, strict=True)])
    _write(root / "tuning.parquet", _tuning_rows(tuned, tuning))
    if choices:
        rows_of = [{"setting": name, "choice": choice.name, **row} for name, choice, rows in choices for row in rows]
        _write(root / "choices.parquet", rows_of)
    named = [
        *methods.values(),
        *(Method(choice.name, tried[choice.candidates[0]].constructor, {}) for choice in protocol.choices),
    ]
    of_named = {key: rate for key, rate in rates.items() if key[:2] in line_of}
    _write(root / "rates.parquet", rate_rows(of_named, named, grids))
    _write(root / "runs.parquet", [row for run, result in found.items() for row in _run_rows(run, result)])


def _chosen(tuned: Tuned, setting: str, choice: Choice, metric: str) -> list[dict[str, Any]]:
    lines = (choice.fallback, *choice.candidates)
    return choose(choice, {m: tuned.scores[(setting, m), tuned.rates[setting, m, metric]][metric] for m in lines})


def train_run(root: Path, setting: Setting, method: Method, rate: float, seed: int, learning: bool = True) -> dict[str, Any]:
    """One training run from the base policy of one world: its evaluations, or why it broke off.

    A run whose loss is not finite keeps the evaluations it has; its last scores count for the rest (a diverged rate loses).
    """
    world = load_world(worlds_folder(root, setting), setting.policy, seed)
    config, log = method.applied(setting.training, learning_rate=rate), EvaluationLog()
    try:
        train(copy.deepcopy(world.base), world.start, config, seed, log, learning=learning)
    except UpdateError as error:
        return {"evals": log.rows, "failed": str(error)}
    return {"evals": log.rows}


class EvaluationLog:
    """Recorder of a sweep's run: evaluations in memory, with means of the steps since the last one."""

    path = None

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self._steps: list[Mapping[str, Any]] = []
        self._seconds, self._mark = 0.0, time.perf_counter()

    def step(self, row: Mapping[str, Any]) -> None:
        now = time.perf_counter()
        self._seconds, self._mark = self._seconds + now - self._mark, now
        self._steps.append(row)

    def evaluation(self, row: Mapping[str, Any]) -> None:
        means = {k: float(np.mean([s[k] for s in self._steps])) if self._steps else None for k in _WATCHED}
        both = float((row["pass_at_1_greedy"] * row["recall_at_k"]) ** 0.5)
        largest = max((s["gradient_norm"] for s in self._steps), default=None)
        self.rows.append({**row, BOTH: both, **means, "gradient_norm_max": largest, "seconds": self._seconds})
        self._steps, self._mark = [], time.perf_counter()

    def groups(self, columns: Mapping[str, Any]) -> None:
        pass

    def checkpoint(self, step: int) -> AbstractContextManager[Path]:
        raise RunError(f"checkpoint_every: a sweep's run keeps no checkpoints (step {step}); set it to 0")


def final_score(evals: Sequence[Mapping[str, Any]], metric: str) -> float:
    """Mean of a metric's last evaluations; of one that only the first and the last evaluation hold, its last."""
    return float(np.mean([row[metric] for row in evals[-FINAL:] if row[metric] is not None]))


def tuning_score(trial: Mapping[str, Any], metric: str) -> float:
    """A trial's final score; a run that broke off loses to every other."""
    return -math.inf if "failed" in trial else final_score(trial["evals"], metric)


def _calibrated(
    settings: Mapping[str, Setting], seeds: Sequence[int], submit: Submit, skip_failed: bool
) -> tuple[dict[str, Setting], dict[tuple[str, int], dict[str, Any]]]:
    """The settings that can be calibrated, and the knobs of each of their worlds, which are those of the first seed's world
    unless a setting calibrates each."""
    wanted = {(name, s): s if setting.calibrate_each else seeds[0] for name, setting in settings.items() for s in seeds}
    jobs = [
        Job(("calibration", settings[name].world_name, at), _calibrate_job, (settings[name], at, skip_failed))
        for (name, _), at in wanted.items()
    ]
    found = dict(zip(wanted, submit("calibration", jobs), strict=True))
    failed = {name for (name, _), result in found.items() if "failed" in result}
    kept = {name: setting for name, setting in settings.items() if name not in failed}
    return kept, {key: result["environment"] for key, result in found.items() if key[0] in kept}


def _calibrate_job(setting: Setting, seed: int, skip_failed: bool) -> dict[str, Any]:
    try:
        return {"environment": calibrate_setting(setting, seed)}
    except CalibrationError as error:
        if not skip_failed:
            raise
        return {"failed": str(error)}


def worlds_folder(root: Path, setting: Setting) -> Path:
    """Where a setting's worlds lie below a protocol's folder."""
    return root / "worlds" / setting.world_name


def _world_job(root: Path, setting: Setting, knobs: dict[str, Any], seed: int) -> Job:
    names = (root.name, "world", setting.world_name, seed)
    return Job(names, draw_world, (worlds_folder(root, setting), setting, knobs, seed))


def _run_rows(run: tuple[str, str, float, int], result: dict[str, Any]) -> list[dict[str, Any]]:
    name, method, rate, seed = run
    return [{"setting": name, "method": method, "learning_rate": rate, "seed": seed, **row} for row in result["evals"]]


def _tuning_rows(tuned: Tuned, seeds: Sequence[int]) -> list[dict[str, Any]]:
    return [
        {"setting": name, "method": method, "learning_rate": rate, "seed": seed, "metric": metric, "score": score}
        for ((name, method), rate), of_metric in tuned.scores.items()
        for metric, scores in of_metric.items()
        for seed, score in zip(seeds, scores, strict=True)
    ]


def _world_row(name: str, info: dict[str, Any]) -> dict[str, Any]:
    shares = dict(zip(("all_zero", "single_hit", "multi_hit", "all_hit"), info["regime"], strict=True))
    a, b = info["beta_fit"] or (None, None)
    return {
        "setting": name,
        "seed": info["seed"],
        "hit_rate": info["hit_rate"],
        **shares,
        "beta_a": a,
        "beta_b": b,
        "hardest_miss": info["hardest_miss"],
        "heldout_prompts": info["environment"]["heldout_prompts"],
        "beta": info["environment"]["beta"],
        "alpha": info["environment"]["alpha"],
        "base_steps": info["base"]["steps"],
        **{f"base_{metric}": info["scores"][metric] for metric in ("pass_at_1_greedy", "recall_at_k", "pass_at_1_sampled")},
        "best_possible": info["best_possible"]["pass_at_1"],
        "entropy": info["best_possible"]["entropy"],
    }


def _write(file: Path, rows: list[dict[str, Any]]) -> None:
    with atomic_file(file) as temporary:
        pl.DataFrame(rows, infer_schema_length=None).write_parquet(temporary)
