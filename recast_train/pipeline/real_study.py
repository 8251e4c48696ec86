"""The real study: methods from several starting points over seeds, each at the learning rate that validation chose.

A seed draws everything anew: semantic IDs, model, windows, prompts, rollouts, test prompts. Rates are tuned on seeds of their
own, from one grid that grows for a method until its best rate lies inside. Every step is a job of a sweep, and a job's training
goes on from its last checkpoint, so a study that was killed loses little.

    manifest.json  jobs/  settings/LABEL/seed-S/{sids, sft, tune, rl, continued}/  starts, rates, evals and users.parquet
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from pydantic import PositiveFloat, PositiveInt

from recast_sim.comparing import Method, comparison_seeds, rate_rows
from recast_sim.configio import AtLeastOne, Checked
from recast_sim.field_types import Distinct, Worlds
from recast_sim.runs import RunError, atomic_file, derive_seed
from recast_sim.runs.reader import read_manifest, read_run
from recast_sim.runs.sweep import Job, Submit
from recast_sim.tuning import Scores, Trial, Tuned, tune
from recast_train.data import sample_prompts
from recast_train.evaluate import score_prompts
from recast_train.model import SidModel, TrainError, require
from recast_train.pipeline.continued import Continued, Equal, continue_supervision, continued, continued_evals
from recast_train.pipeline.recipe import Point, Recipe, named_recipes, parse_methods
from recast_train.pipeline.reference_metrics import reference_metrics
from recast_train.pipeline.run_task import Task, opened_task
from recast_train.pipeline.stages import evaluated, read_evaluation, read_learning, reinforced, supervised

TUNED = ("pass_at_1_greedy", "ndcg@10")  # rates maximise their geometric mean on validation; cooling buys neither
START = "start"
_NO_HIT = 1e-12
_GROWTHS = 3  # three rates below a grid's end a method does next to nothing
_SCORE = "score"


@dataclass(frozen=True)
class StudyConfig(Checked, error=TrainError):
    """The keys of a study's recipe.

    Attributes:
        setting: what all points share.
        points: starting points or sizes: changes to the setting by dotted key, each with a `label`; none studies it as it is.
        methods: lines as `parse_methods` reads them; they set no learning rate.
        continued: supervision that goes on as the start's did, beside the methods, with as many optimiser "steps" or "targets"
            a step as RL has.
        learning_rates: the grid that every method starts from; it grows by up to three rates where the best is at an end, and a
            single rate is taken as it is.
        seeds: reported seeds, counted from the run's.
        tuning_seeds: those that choose the rates and are not reported.
        tuning_prompts: validation prompts that judge a rate.
    """

    setting: Recipe = field(default_factory=Recipe)
    points: tuple[Point, ...] = ()
    methods: Distinct[str] = ("grpo", "recast", "sft")
    continued: tuple[Equal, ...] = ()
    learning_rates: AtLeastOne[PositiveFloat] = (3e-5, 1e-4, 3e-4, 1e-3)
    seeds: Worlds = 5
    tuning_seeds: Worlds = 1
    tuning_prompts: PositiveInt = 2000

    def __post_init__(self) -> None:
        super().__post_init__()
        own = [
            method.name for method in parse_methods(self.methods, "StudyConfig.methods") if "learning_rate" in method.changes
        ]
        require(not own, "StudyConfig.methods", own, "must set no learning_rate; the study chooses it")
        require(len(set(self.continued)) == len(self.continued), "StudyConfig.continued", self.continued, "must not repeat")
        supervised = not self.continued or all(setting.sft.steps for setting in self.settings().values())
        require(supervised, "StudyConfig.continued", self.continued, "needs supervised training; set sft.steps above 0")
        rates = self.learning_rates
        distinct = len({f"{rate:g}" for rate in rates})  # as folders name them
        require(distinct == len(rates), "StudyConfig.learning_rates", rates, "must not repeat a rate")
        for method, setting in product(parse_methods(self.methods), self.settings().values()):
            method.applied(setting.rl).thought_method(method.constructor.name)

    def settings(self) -> dict[str, Recipe]:
        """The setting of each point by label, "base" where there are no points."""
        return named_recipes(self.setting, self.points, "StudyConfig.points") or {"base": self.setting}


def run_study(config: StudyConfig, seed: int, root: Path, submit: Submit) -> None:
    """Train and evaluate everything that is not done yet; leaves the four tables below `root`.

    Raises:
        DataError, SemanticIdError, TrainError: see the stages. A rate that diverges in tuning is left out, not fatal.
    """
    settings = config.settings()
    methods: list[Method] = [*parse_methods(config.methods), *map(continued, config.continued)]
    reported, tuning = comparison_seeds(seed, config.seeds, config.tuning_seeds)
    both = [(label, s) for label in settings for s in (*tuning, *reported)]

    def job(kind: str, label: str, s: int, *more: Any) -> Job:
        names = (kind, label, s, *(m.name if isinstance(m, Method) else m for m in more))
        return Job(names, _JOBS[kind], (root / "settings" / label / f"seed-{s}", settings[label], s, *more))

    starts = submit("starting points", [job("start", label, s) for label, s in both])
    tuned = _tuned(config, [(label, m) for label in settings for m in methods], tuning, job, submit)
    rates = {(label, name): rate for (label, name, _), rate in tuned.rates.items()}
    final = [(label, s, m, rates[label, m.name]) for label in settings for s in reported for m in methods]
    found = submit("methods", [job("final", *run) for run in final])
    of_start = {
        (label, s, START): row.pop("learning", None) for (label, s), row in zip(both, starts, strict=True) if s in reported
    }
    of_runs = {(label, s, m.name): row.get("learning") for (label, s, m, _), row in zip(final, found, strict=True)}
    names = ("setting", "seed", "method")
    told = [dict(zip(names, key, strict=True)) | row for key, row in (of_start | of_runs).items() if row]
    if told:
        _write(root / "learning.parquet", told)
    started = [{"setting": label, "seed": s, **row} for (label, s), row in zip(both, starts, strict=True)]
    _write(root / "starts.parquet", [row for row in started if row["seed"] in reported])
    _write(root / "rates.parquet", rate_rows(rates, methods, tuned.grids))
    evals = [
        {"setting": label, "seed": s, "method": m.name, "learning_rate": rate, **row}
        for (label, s, m, rate), result in zip(final, found, strict=True)
        for row in result["evals"]
    ]
    _write(root / "evals.parquet", evals)
    folders = {(label, s, START): root / "settings" / label / f"seed-{s}" / "sft" for label in settings for s in reported}
    for label, s, method, _ in final:
        folders[label, s, method.name] = _folder(root / "settings" / label / f"seed-{s}", method)
    users = pl.concat([user_rows(folder, *names) for names, folder in folders.items()])
    with atomic_file(root / "users.parquet") as temporary:
        users.write_parquet(temporary)


def user_rows(folder: Path, setting: str, seed: int, method: str) -> pl.DataFrame:
    """Sums of each metric over a user's test prompts, a row a user, from the scores of an evaluated model."""
    scores, _ = read_evaluation(folder)
    columns = {"user": scores.user_N, **scores.metric_rows()}
    sums = pl.DataFrame(columns).group_by("user").agg(pl.len().alias("prompts"), pl.exclude("user").sum()).sort("user")
    names = {"setting": setting, "seed": seed, "method": method}
    return sums.select(*(pl.lit(value).alias(name) for name, value in names.items()), pl.all())


def _start(root: Path, setting: Recipe, seed: int) -> dict[str, Any]:
    with opened_task(root, setting, seed) as task:
        evaluated(task, START, root / "sft", supervised(task))
        _, known = reference_metrics(task)
    scores, shares = read_evaluation(root / "sft")
    reference = {f"{name} hr@10": row[scores.policy]["hr@10"] for name, row in known.items()}
    seen = {"targets_seen_before": float(scores.repeats_N.mean())}
    return {
        **scores.means(),
        **seen,
        **shares,
        **reference,
        **read_manifest(root / "sft")["summary"],
        **_learning(root / "sft"),
    }


def _tune(root: Path, setting: Recipe, seed: int, method: Method, rate: float, prompts: int) -> dict[str, Any]:
    folder = root / "tune" / f"{method.folder}-{rate:g}"
    try:
        with opened_task(root, setting, seed) as task:
            model = _trained(task, method, rate, folder)
            asked = sample_prompts(task.validation, prompts, derive_seed(seed, "tuning"), "tuning prompts")
            return {"metrics": score_prompts(model, task.catalog, asked, setting.evaluation).means()}
    except TrainError as error:
        return {"failed": str(error)}


def _final(root: Path, setting: Recipe, seed: int, method: Method, rate: float) -> dict[str, Any]:
    folder = _folder(root, method)
    with opened_task(root, setting, seed) as task:
        model = _trained(task, method, rate, folder)
        evaluated(task, method.name, folder, model)
        own = isinstance(method, Continued)
        evals = continued_evals(task, folder, model) if own else read_run(folder).evals.to_dicts()
    return {"evals": evals, **_learning(folder)}


def _folder(root: Path, method: Method) -> Path:
    return root / ("continued" if isinstance(method, Continued) else "rl") / method.folder


def _learning(folder: Path) -> dict[str, Any]:
    """Means of what tells learning from sharpening, under "learning", where it was asked for."""
    found = read_learning(folder)
    return {} if found is None else {"learning": found[1]}


_JOBS = {"start": _start, "tune": _tune, "final": _final}


def _trained(task: Task, method: Method, rate: float, folder: Path) -> SidModel:
    if isinstance(method, Continued):
        return continue_supervision(task, method, rate, folder)
    return reinforced(task, method, method.applied(task.config.rl, learning_rate=rate), folder)


def _tuned(
    config: StudyConfig, places: Sequence[tuple[str, Method]], seeds: Sequence[int], job: Callable[..., Job], submit: Submit
) -> Tuned:
    """Each setting's rate of each method with the best mean log of the tuned metrics over the tuning seeds.

    Raises:
        RunError: no rate of a method is left: each diverged on one of the seeds or more, or found no hit.
    """
    named = {(label, method.name): method for label, method in places}
    failed: dict[tuple[str, str], str] = {}  # the first reason of each place

    def try_out(trials: Sequence[Trial]) -> list[Scores]:
        runs = [(place, s, rate) for place, rate in trials for s in seeds]
        found = submit(
            "learning rates", [job("tune", at[0], s, named[at], rate, config.tuning_prompts) for at, s, rate in runs]
        )
        for (place, _, rate), trial in zip(runs, found, strict=True):
            if "failed" in trial:
                failed.setdefault(place, f" (rate {rate:g}: {trial['failed']})")
        scores = [_score(trial) for trial in found]
        return [{_SCORE: scores[at : at + len(seeds)]} for at in range(0, len(scores), len(seeds))]

    tuned = tune(list(named), [_SCORE], config.learning_rates, try_out, _GROWTHS)
    for (label, name, _), rate in tuned.rates.items():
        if np.mean(tuned.scores[(label, name), rate][_SCORE]) < np.log(10 * _NO_HIT):
            why = failed.get((label, name), "")
            raise RunError(
                f"{name} in {label}: no learning rate of the grid gives a finite loss and a hit{why}; give smaller ones"
            )
    return tuned


def _score(trial: Mapping[str, Any]) -> float:
    if "failed" in trial:
        return -np.inf
    return float(np.log(np.maximum([trial["metrics"][name] for name in TUNED], _NO_HIT)).mean())


def _write(file: Path, rows: list[dict[str, Any]]) -> None:
    with atomic_file(file) as temporary:
        pl.DataFrame(rows, infer_schema_length=None).write_parquet(temporary)
