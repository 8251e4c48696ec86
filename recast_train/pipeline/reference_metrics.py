"""What the reference recommenders of a recipe reach on a run's test prompts."""

from typing import Any

from recast_train.data.references import choose_neighbours, references, shared_sids
from recast_train.pipeline.run_task import Task
from recast_train.sasrec import train_sasrec


def reference_metrics(task: Task) -> tuple[int | None, dict[str, Any]]:
    """The neighbours of item-kNN (None: all), chosen on validation prompts, and `references`, with SASRec where asked for."""
    sid_I, config, more = shared_sids(task.catalog.codes_IL), task.config.sasrec, {}
    neighbours = choose_neighbours(task.dataset, task.validation, sid_I)
    if config.epochs:
        model, _ = train_sasrec(
            task.dataset, task.validation, config, task.seed, lambda done: task.report("SASRec", done, config.epochs)
        )
        more = {"sasrec": model.scores}
    return neighbours, references(task.dataset, task.test, neighbours, task.config.evaluation.cuts, sid_I, more)
