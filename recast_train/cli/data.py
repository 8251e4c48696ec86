"""`recast-train data describe`."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import PositiveInt
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from recast_sim.commandline import Common, Flag, Positional
from recast_train.data import PROMPT_FORMATS, Cores, DataConfig, Format, SplitConfig, TableColumns, read_source, recognise

_METRICS = ("hr@10", "ndcg@10")
_POLICIES = ("seen_filtered", "unfiltered")
_SHARED = (
    "Items share semantic IDs: IDs are ranked, each as good as its best item, and a hit of an ID is a hit of all its items; "
    "--sids.collisions level tells them apart in a run."
)


@dataclass(frozen=True)
class Data(Common):
    """Describe a data set: sizes, ties, splits, popularity, what references reach.

    Attributes:
        action: what to do with it.
        path: the file or folder; without it ML-100K, fetched where it is not in the cache.
        format: of the path; recognised by its content where it is not given.
        titles: a table of item and title.
        skip_bad: leave out rows of openonerec that cannot be read, and say how many and where.
        columns: names of the columns, or their places from 1 where there is no header.
        core: users and items with fewer interactions are dropped; one number for both, or the users' and then the items'. The
            formats that come as prompts are taken as they are.
        split: which items are train, validation and test.
        prompts: test prompts, at most, on which the references are measured.
    """

    action: Positional[Literal["describe"]] = "describe"
    path: Positional[Path | None] = None
    format: Format | None = None
    titles: Path | None = None
    skip_bad: Flag = False
    columns: TableColumns = field(default_factory=TableColumns)
    core: Cores = (5,)
    split: SplitConfig = field(default_factory=SplitConfig)
    prompts: PositiveInt = 2000


def data(command: Data) -> None:
    from recast_train.data.describe import describe

    kind, reason = command.format or "ml-100k", "as given" if command.format else "fetched"
    if command.path is not None and command.format is None:
        kind, reason = recognise(command.path, command.columns)
    kept = {name: getattr(command, name) for name in ("titles", "skip_bad", "columns", "core", "split", "seed")}
    config = DataConfig(kind, command.path, **kept)
    split = "given" if kind in PROMPT_FORMATS else command.split.rule
    about = {"path": str(command.path or kind), "recognised": reason, "split": split}
    found = about | describe(read_source(config), command.prompts, command.seed)
    if command.json:
        print(json.dumps(found, allow_nan=False))
    else:
        print_description(found, Console(width=max(110, Console().width)))


def print_description(found: dict[str, Any], console: Console) -> None:
    """Two tables: what is in the data, and what the references reach on it."""
    console.print(_contents(found))
    for line in (f"read as {found['format']}: {found['recognised']}", *found["notes"]):
        console.print(line, highlight=False, soft_wrap=True)
    if found["references"] is None:
        console.print("references: none, they need train and test prompts", highlight=False)
    else:
        console.print(_reached(found["references"]))
    if found["shared_sids"]:
        console.print(_SHARED, highlight=False, soft_wrap=True)


def _contents(found: dict[str, Any]) -> Table:
    table = Table(box=MARKDOWN, title=found["path"])
    table.add_column("")
    table.add_column(found["format"], justify="right")
    for name in ("users", "items", "interactions"):
        table.add_row(name, f"{found[name]:,}")
    table.add_row("sequence length: min, median, max", ", ".join(f"{value:g}" for value in found["lengths"].values()))
    for name, core in (("users", "user core"), ("items", "item core")):
        gone = found["dropped"]
        table.add_row(f"dropped by the {core}", f"{gone[name]:,} {name}, {gone[f'interactions_of_{name}']:,} interactions")
    tied = found["tied_in_time"]
    shown = "no times: the order is that of the file" if tied is None else f"{tied:.1%}"
    table.add_row("interactions tied in time with another", shown)
    table.add_row("split", found["split"])
    table.add_row("prompts: train, validation, test", ", ".join(f"{count:,}" for count in found["prompts"].values()))
    table.add_row("targets of a prompt, at most", str(found["targets_per_prompt"]))
    sizes = found["semantic_ids"]
    table.add_row("semantic IDs given", "no" if sizes is None else " x ".join(map(str, sizes)))
    if sizes is not None:
        table.add_row("items that share their semantic ID with another", f"{found['shared_sids']:.1%}")
    table.add_row("titles", "yes" if found["titles"] else "no")
    table.add_row("popularity: Gini", f"{found['popularity']['gini']:.3f}")
    table.add_row("popularity: share of the top tenth of items", f"{found['popularity']['top_tenth_share']:.1%}")
    return table


def _reached(known: dict[str, Any]) -> Table:
    table = Table(box=MARKDOWN, title=f"references on {known['test_prompts']:,} test prompts, whole catalog ranked")
    table.add_column("")
    for policy in _POLICIES:
        for metric in _METRICS:
            table.add_column(f"{metric}, {policy.replace('_', ' ')}", justify="right")
    for name, row in known["metrics"].items():
        table.add_row(name, *(f"{row[policy][metric]:.4f}" for policy in _POLICIES for metric in _METRICS))
    table.caption = f"item_knn: {known['item_knn_neighbours'] or 'all'} neighbours, chosen on validation prompts."
    counts = known["policy"].replace("_", " ")
    table.caption += (
        f"\ntargets seen before: {100 * known['targets_seen_before']:.3g} %, so that {counts} is the metric that counts."
    )
    return table
