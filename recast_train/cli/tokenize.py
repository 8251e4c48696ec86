"""`recast-train tokenize`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from recast_sim.commandline import Common, OptionalFile, PartOf, progress
from recast_sim.configio import Checked
from recast_train.data import read_dataset
from recast_train.pipeline.recipe import DataConfig, RealConfig
from recast_train.semantic_id import SemanticIdError, SidConfig, make_sids, save_sids
from recast_train.semantic_id.sid_table import CODES_FILE, HEADER_FILE, holds_table


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
    from recast_analysis.reports.real.semantic_ids import report as report_of
    from recast_analysis.terminal import finish

    out = command.out or Path("runs") / f"sids-{command.file.stem if command.file else 'default'}-{command.seed}"
    if holds_table(out):
        raise SemanticIdError(f"{out}: holds a table of semantic IDs already; choose another --out")
    dataset, *_ = read_dataset(command.config.data)
    with progress() as report:
        table = make_sids(command.config.sids, dataset, command.seed, lambda done, total: report("semantic IDs", done, total))
    save_sids(table, out)
    about = {"out": str(out), "sha256": table.hash, "items": len(table.codes_IL), "sizes": list(table.sizes)}
    made = {**about, "files": [str(out / CODES_FILE), str(out / HEADER_FILE)], **table.report}
    finish(command, made, report_of(made), f"recast-train run{f' {command.file}' if command.file else ''} --sids.path {out}")
