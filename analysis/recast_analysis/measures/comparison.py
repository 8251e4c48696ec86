"""What the protocol of `recast_sim.experiments` wrote: methods in settings, tuned rates, curves. Reads the folder alone."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import polars as pl

from recast_analysis.measures.budget_curves import Curves
from recast_sim.runs import RunError
from recast_sim.runs.table_files import read_table


@dataclass(frozen=True)
class Comparison:
    """Tables of a protocol's folder.

    Attributes:
        worlds: a row a world: regime, hit rate, base scores, best possible.
        rates: the tuned learning rate of each setting, method and metric.
        runs: a row an evaluation of each reported run.
    """

    worlds: pl.DataFrame
    rates: pl.DataFrame
    runs: pl.DataFrame

    @classmethod
    def read(cls, folder: Path) -> "Comparison":
        """Raises RunError where a table is missing: the comparison was not finished."""
        try:
            return cls(*(read_table(folder / f"{name}.parquet", RunError) for name in ("worlds", "rates", "runs")))
        except RunError as error:
            raise RunError(f"{folder}: no finished comparison ({error}); go on with --resume") from error

    @cached_property
    def settings(self) -> list[str]:
        return list(dict.fromkeys(self.rates["setting"]))

    @cached_property
    def methods(self) -> list[str]:
        return list(dict.fromkeys(self.rates["method"]))

    @cached_property
    def metrics(self) -> list[str]:
        return list(dict.fromkeys(self.rates["metric"]))

    def rate(self, setting: str, method: str, metric: str) -> tuple[float, bool]:
        """Tuned learning rate, and whether it lies at the grid's edge."""
        row = self.rates.filter(pl.col("setting") == setting, pl.col("method") == method, pl.col("metric") == metric)
        return float(row["learning_rate"][0]), bool(row["at_edge"][0])

    def draws(self, method: str) -> bool:
        """Whether the method needs rollouts at all."""
        return bool(self.rates.filter(pl.col("method") == method)["draws"][0])

    @cached_property
    def reported_worlds(self) -> pl.DataFrame:
        """The worlds that are reported, without those that tuned the rates."""
        return self.worlds.join(self.runs.select("setting", "seed").unique(), on=["setting", "seed"], how="semi")

    def worlds_with(self, column: str) -> pl.DataFrame:
        """The reported worlds. Raises RunError where they do not hold a column: the comparison is of an older version."""
        if column not in self.worlds.columns:
            raise RunError(f"worlds.parquet: no column {column!r}, so an older version made this comparison; run it again")
        return self.reported_worlds

    def curves(self, setting: str, method: str, metric: str) -> Curves:
        """Curves of one metric at the rate tuned for it."""
        return Curves.of(self.frames(setting, method, metric), metric)

    def frames(self, setting: str, method: str, metric: str) -> dict[int, pl.DataFrame]:
        """Evaluations of each seed at the rate tuned for a metric."""
        runs = self._by_run[setting, method, self.rate(setting, method, metric)[0]]
        return {int(seed): frame for (seed,), frame in runs.sort("seed", "step").partition_by("seed", as_dict=True).items()}

    @cached_property
    def _by_run(self) -> dict[tuple[object, ...], pl.DataFrame]:
        return self.runs.partition_by("setting", "method", "learning_rate", as_dict=True)
