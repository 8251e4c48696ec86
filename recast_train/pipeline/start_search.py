"""A search for a supervised start: candidates from one recipe, judged on validation prompts alone, all of them kept.

A candidate is a job of a sweep and trains from its last checkpoint on, so a search that was killed loses little. The test
prompts are not looked at.

    manifest.json  jobs/  candidates/LABEL/{sids, sft}/  candidates.parquet
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import NonNegativeInt

from recast_sim.configio import Checked
from recast_sim.field_types import Several
from recast_sim.runs import atomic_file
from recast_sim.runs.reader import read_manifest, read_run
from recast_sim.runs.sweep import Job, Submit
from recast_train.data import sample_prompts
from recast_train.evaluate import QUICK, score_prompts
from recast_train.model import TrainError, require
from recast_train.pipeline.recipe import Point, Recipe, named_recipes
from recast_train.pipeline.run_task import opened_task
from recast_train.pipeline.stages import supervised
from recast_train.semantic_id import SemanticIdError


@dataclass(frozen=True)
class SearchConfig(Checked, error=TrainError):
    """The keys of a search's recipe.

    Attributes:
        setting: what all candidates share.
        candidates: changes to the setting by dotted key, each with a `label`.
        prompts: validation prompts that judge a candidate; 0 takes all.
    """

    setting: Recipe = field(default_factory=Recipe)
    candidates: Several[Point] = ()
    prompts: NonNegativeInt = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(len(self.candidates) > 0, "SearchConfig.candidates", (), "must hold one candidate or more")
        self.recipes()

    def recipes(self) -> dict[str, Recipe]:
        """The recipe of each candidate by label."""
        return named_recipes(self.setting, self.candidates, "SearchConfig.candidates")


def run_search(config: SearchConfig, seed: int, root: Path, submit: Submit) -> None:
    """Train and judge the candidates that are not done yet; leaves candidates.parquet, a row each.

    A candidate that diverges, or whose semantic IDs cannot be made, is a row that says why.
    """
    recipes = config.recipes()
    jobs = [
        Job(("candidate", label), _candidate, (root / "candidates" / label, recipe, seed, config.prompts))
        for label, recipe in recipes.items()
    ]
    rows = [{"candidate": label, **row} for label, row in zip(recipes, submit("candidates", jobs), strict=True)]
    with atomic_file(root / "candidates.parquet") as temporary:
        pl.DataFrame(rows, infer_schema_length=None).write_parquet(temporary)


def _candidate(root: Path, recipe: Recipe, seed: int, prompts: int) -> dict[str, Any]:
    try:
        with opened_task(root, recipe, seed) as task:
            model = supervised(task)
            asked = sample_prompts(task.validation, prompts or len(task.validation), seed, "search prompts")
            scores = score_prompts(model, task.catalog, asked, QUICK)
    except (TrainError, SemanticIdError) as error:
        return {"failed": str(error)}
    rank_N, steps, kept = scores.rank_unfiltered_N, read_run(root / "sft").steps, read_manifest(root / "sft")["summary"]
    ranking = scores.summary(QUICK.cuts)["unfiltered"]
    spread = {"hr@10_error": float((rank_N <= 10).std() / len(rank_N) ** 0.5)}
    cost = {"tokens": float(steps["tokens"].sum()), "seconds": float(steps["seconds"].sum())}
    return {**ranking, **spread, **cost, **kept, "parameters": model.parameter_count, "prompts": len(asked), "failed": None}
