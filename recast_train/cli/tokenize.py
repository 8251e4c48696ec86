"""`recast-train tokenize`."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from recast_sim.commandline import Common, OptionalFile, PartOf, progress
from recast_sim.configio import Checked
from recast_train.data import read_dataset
from recast_train.pipeline.recipe import DataConfig, RealConfig
from recast_train.semantic_id import SemanticIdError, SidConfig, SidTable, make_sids, save_sids
from recast_train.semantic_id.sid_table import CODES_FILE, HEADER_FILE, holds_table

_RELIED_ON = (
    "agreement: recast's structural score takes a shared prefix for a shared taste and relies on this; with lifts near 1 it is "
    "noise. Train interactions made the SVD's IDs and flatter them; held-out ones did not."
)
_ERROR = "reconstruction error: squared, from the levels so far, over the spread of the embeddings; before any item moves"


@dataclass(frozen=True)
class TokenizeConfig(Checked):
    """The part of a recipe that semantic IDs are made of."""

    data: DataConfig = field(default_factory=DataConfig)
    sids: SidConfig = field(default_factory=SidConfig)


@dataclass(frozen=True, kw_only=True)
class Tokenize(Common):
    """Semantic IDs of a recipe's data, with a report of their quality.

    Attributes:
        file: TOML recipe of `recast-train run`; its data and sids are read, and options override them.
    """

    file: OptionalFile = None
    config: Annotated[TokenizeConfig, PartOf(RealConfig)]


def tokenize(command: Tokenize) -> None:
    out = command.out or Path("runs") / f"sids-{command.file.stem if command.file else 'default'}-{command.seed}"
    if holds_table(out):
        raise SemanticIdError(f"{out}: holds a table of semantic IDs already; choose another --out")
    dataset, *_ = read_dataset(command.config.data)
    with progress() as report:
        table = make_sids(command.config.sids, dataset, command.seed, lambda done, total: report("semantic IDs", done, total))
    save_sids(table, out)
    if command.json:
        about = {"out": str(out), "sha256": table.hash, "items": len(table.codes_IL), "sizes": list(table.sizes)}
        print(json.dumps({**about, **table.report}, allow_nan=False))
    else:
        print_table(table, out, Console(width=max(120, Console().width)))


def print_table(table: SidTable, out: Path, console: Console) -> None:
    """What each level does, how far shared prefixes agree with co-occurrence, and what became of collisions."""
    report = table.report
    console.print(_levels(table), _agreement(report))
    shared = f"collisions: {report['collisions']} of {len(table.codes_IL)} items shared their codes"
    words = f"{shared}, {report['largest_cluster']} at most; "
    if "moved" in report:
        before, after = report["reconstruction_error"][-1], report["reconstruction_error_moved"]
        words += f"{report['moved']} moved to the nearest free code: reconstruction error {_number(before)} to {_number(after)}"
    else:
        words += "they keep it, and a hit of one is a hit of all" if "kept" in report else "the last level tells them apart"
    order = [report["order_of_rows"]] if "order_of_rows" in report else []
    if unknown := report.get("items_without_embedding"):
        order.append(f"{unknown} items are in no train sequence, or have a row of zeros: they lie between drawn known ones")
    for line in (_RELIED_ON, _ERROR, words, *order, f"sha256: {table.hash}", f"files: {out / CODES_FILE}, {out / HEADER_FILE}"):
        console.print(line, highlight=False, soft_wrap=True)


def _levels(table: SidTable) -> Table:
    report = table.report
    shown = Table(box=MARKDOWN, title=f"semantic IDs of {len(table.codes_IL)} items by {report['method']}")
    for column in ("level", "codes", "in use (%)", "perplexity", "distinct prefixes", "reconstruction error"):
        shown.add_column(column, justify="right")
    errors = [_number(error) for error in report["reconstruction_error"]]
    for level, size in enumerate(table.sizes):
        use, perplexity = f"{100 * report['utilisation'][level]:.1f}", f"{report['perplexity'][level]:.1f}"
        error = errors[level] if level < len(errors) else ""
        name = str(level + 1) if level < len(errors) else "index"
        shown.add_row(name, str(size), use, perplexity, str(report["prefixes"][level]), error)
    return shown


def _agreement(report: dict[str, Any]) -> Table:
    shown = Table(box=MARKDOWN, title="co-occurrence cosine of item pairs by shared levels")
    shown.add_column("pairs")
    for column in ("train", "lift", "held-out", "lift"):
        shown.add_column(column, justify="right")
    for name in report["train_agreement"]:
        cells = []
        for split in ("train", "heldout"):
            cells += [_number(report[f"{split}_agreement"][name]), _number(report[f"{split}_lift"].get(name), 2)]
        level = name.removeprefix("level_")
        shown.add_row({"random": "all", "1": "share level 1"}.get(level, f"share levels 1 to {level}"), *cells)
    return shown


def _number(value: float | None, digits: int = 4) -> str:
    return "" if value is None else f"{value:.{digits}f}"
