"""From the rows of a piece to partial groups: what polars computes of each row, and adds up for each group."""

from dataclasses import dataclass

import polars as pl

from recast_analysis.audit.audit_error import AuditError
from recast_analysis.audit.reading.column_values import identity_of, is_messages, is_text, is_token_ids, joint, text_of
from recast_analysis.audit.reading.columns import Columns
from recast_analysis.audit.reading.grouping import SOURCE, evidence, group_of, words_of
from recast_analysis.audit.reading.piece import Piece
from recast_analysis.audit.reading.sid_text import SidRules

_WORD = r"<[^<>\s]+>|[^<>\s]+"  # a word, a <marker>
_LOW = 2**32
_BINARY = (0.0, 1.0)
KEY = ("step", "prompt")
SUMS = ("hits", "non_binary", "prompt_length", "response_length", "fingerprint", "no_key", "no_uuid")
EXTREMES = {"reward_low": pl.Expr.min, "reward_high": pl.Expr.max, SOURCE[0]: pl.Expr.min, SOURCE[1]: pl.Expr.max}


@dataclass(frozen=True)
class RowRules:
    """How rows are read: the layout, what counts as a hit, the SIDs' rules where there are SIDs, and whether uids are cut."""

    layout: Columns
    hit_above: float
    sids: SidRules | None
    cut_uids: bool = False

    @property
    def grouping(self) -> str:
        """The rule that finds the groups of a step, in words."""
        return words_of(self.layout, self.cut_uids)

    @property
    def unit(self) -> str | None:
        """What lengths are counted in: "tokens" where the dump has them, else "words" of text, else None."""
        return self._lengths()[2]

    def _lengths(self) -> tuple[pl.Expr | None, pl.Expr | None, str | None]:
        """Lengths of prompt and response in one unit; a prompt's is None where only responses can be counted."""
        tokens = _tokens(self.layout, "prompt"), _tokens(self.layout, "completion")
        words = _words(self.layout, "prompt"), _words(self.layout, "completion")
        if all(side is not None for side in tokens) or words[1] is None:
            return *tokens, "tokens" if tokens[1] is not None else None
        return *words, "words"

    def faults(self) -> dict[str, pl.Expr]:
        """For each column that must have a value in every row, whether it has none."""
        rewards = {name: pl.col(name).cast(pl.Float64).fill_nan(None) for name in self.layout.columns["reward"]}
        unscored = pl.all_horizontal(value.is_null() for value in rewards.values())  # TRL's functions may each leave rows out
        found = {name: unscored | value.is_infinite().fill_null(False) for name, value in rewards.items()}
        for role, names in self.layout.columns.items():
            if role not in ("reward", "target"):
                found[names[0]] = pl.col(names[0]).is_null()
        for role in ("prompt_tokens", "response_tokens"):
            if name := self.layout.column(role):
                found[name] |= pl.col(name) < 0
        return found

    def of_a_row(self) -> dict[str, pl.Expr]:
        """A row's values by name, before they are added up."""
        reward = pl.sum_horizontal(pl.col(name).cast(pl.Float64).fill_nan(None) for name in self.layout.columns["reward"])
        prompt, response, _ = self._lengths()
        completion = self.layout.column("completion")
        values = {
            "step": pl.col(self.layout.columns["step"][0]).cast(pl.Int64),
            "prompt": group_of(self.layout, self.cut_uids),
            "reward": reward,
            "hits": reward > self.hit_above,
            "non_binary": ~reward.is_in(_BINARY),
            "fault": pl.any_horizontal(*self.faults().values()),
        }
        values |= {} if prompt is None else {"prompt_length": prompt}
        values |= {} if response is None else {"response_length": response}
        if completion is not None:
            kind = self.layout.types[completion]
            values["completion"] = identity_of(completion, kind)
            values["row_hash"] = joint((values["completion"], reward))
            values |= {"fingerprint": self._fingerprint()} if self.layout.kind == "trl" else {}
            values |= self.sids.faults(text_of(completion, kind)) if self.sids else {}
        return values | evidence(self.layout, self.cut_uids)

    def _fingerprint(self) -> pl.Expr:
        """Of all that TRL writes of a row but its step, in 32 bits, so that the sum of a step's rows does not overflow."""
        types = {name: kind for name, kind in self.layout.types.items() if name not in self.layout.columns["step"]}
        return joint(identity_of(name, kind) for name, kind in types.items()) % _LOW


def partial_groups(piece: Piece, rules: RowRules, where: str) -> pl.DataFrame:
    """Groups of one piece, in bounded memory: sums, extremes, and the distinct completions as a list of hashes.

    Raises:
        AuditError: a row without a value that it must have, or with a reward that is not finite.
    """
    values = rules.of_a_row()
    sums = [name for name in values if name in SUMS or name.startswith("sid_")]
    row = pl.col("row").cast(pl.Int64)
    aggregates = {
        "rows": pl.len().cast(pl.Int64),
        "reward_sum": pl.col("reward").sum(),
        **{name: pl.col(name).cast(pl.Int64).sum() for name in sums},
        **{name: take(pl.col(name.partition("_")[0])) for name, take in EXTREMES.items() if name.partition("_")[0] in values},
        "apart": (row.max() - row.min() + 1 > pl.len()).cast(pl.Int64),
        "fault": pl.col("row").filter(pl.col("fault")).min(),
    }
    if "key" in values:
        aggregates["repeated_keys"] = pl.len().cast(pl.Int64) - pl.col("key").n_unique().cast(pl.Int64)
    if "completion" in values:
        aggregates |= {"parity": pl.col("row_hash").bitwise_xor(), "completions": pl.col("completion").unique()}
    rows = piece.frame.with_row_index("row").select("row", *(value.alias(name) for name, value in values.items()))
    groups = rows.group_by(*KEY).agg(value.alias(name) for name, value in aggregates.items()).collect(engine="streaming")
    if (first := groups["fault"].min()) is not None:
        raise AuditError(_explain(piece, int(str(first)), rules, where))
    return groups.drop("fault")


def _explain(piece: Piece, row: int, rules: RowRules, where: str) -> str:
    place, values = piece.origin(row)
    bad = piece.frame.slice(row, 1).select(**rules.faults()).collect().row(0, named=True)
    column = next(name for name, is_bad in bad.items() if is_bad)
    found = f"found {values[column]!r}" if column in values else "it is missing"
    if column in rules.layout.columns["reward"]:
        mend = "write a finite number, or leave out the rows that nothing scored"
    elif column in (rules.layout.column("prompt_tokens"), rules.layout.column("response_tokens")):
        mend = "write a whole number of 0 or more"
    elif column == rules.layout.column("step"):
        mend = "write a whole number"
    else:
        mend = "every row needs one"
    return f"{where}: {place}, column {column}: {found}; {mend}"


def _tokens(layout: Columns, role: str) -> pl.Expr | None:
    counted, name = layout.column("prompt_tokens" if role == "prompt" else "response_tokens"), layout.column(role)
    if counted is not None:
        return pl.col(counted)
    return pl.col(name).list.len() if name is not None and is_token_ids(layout.types[name]) else None


def _words(layout: Columns, role: str) -> pl.Expr | None:
    name = layout.column(role)
    if name is None or not (is_text(layout.types[name]) or is_messages(layout.types[name])):
        return None
    return text_of(name, layout.types[name]).str.count_matches(_WORD)
