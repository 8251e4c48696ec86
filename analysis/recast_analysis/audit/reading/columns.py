"""What the columns of a dump are: who wrote it, and which column plays which role.

| kind  | told by the columns                   | group (within a step)           | reward           | completion |
|-------|---------------------------------------|---------------------------------|------------------|------------|
| verl  | input, output, score, step            | uid, or input and gts           | score            | output     |
| trl   | step, prompt, completion, advantage   | prompt                          | the float column | completion |
| table | step, reward, and prompt_id or prompt | prompt_id, or prompt and target | reward           | completion |

verl 0.5 (and OpenOneRec's fork of it) writes the columns of 0.9 but gts and uid. TRL names rewards after their function.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import polars as pl

from recast_analysis.audit.audit_error import AuditError
from recast_analysis.audit.reading.column_values import is_messages, is_text, is_token_ids

Schema = Mapping[str, pl.DataType]
ROLES = ("step", "group", "prompt", "completion", "reward", "target", "prompt_tokens", "response_tokens")
_KINDS = {
    "verl": {"step": "step", "prompt": "input", "completion": "output", "reward": "score", "target": "gts", "group": "uid"},
    "trl": {"step": "step", "prompt": "prompt", "completion": "completion"},
    "table": {
        "step": "step", "group": "prompt_id", "prompt": "prompt", "completion": "completion", "reward": "reward",
        "target": "target",
    },
}  # fmt: skip
_SIGNS = {"verl": ("input", "output", "score", "step"), "trl": ("step", "prompt", "completion", "advantage")}
_LENGTHS = ("prompt_tokens", "response_tokens")
_MESSAGES = "text, token ids or messages with text"


@dataclass(frozen=True)
class Columns:
    """Roles of a dump's columns.

    Attributes:
        kind: "verl", "trl" or "table".
        columns: column names by role; a reward may have several, which are added up.
        types: polars types of these columns, and of TRL's advantages.
        chosen: roles whose columns `--columns` names.
    """

    kind: str
    columns: dict[str, tuple[str, ...]]
    types: dict[str, pl.DataType]
    chosen: frozenset[str] = frozenset()

    def column(self, role: str) -> str | None:
        """The column of a role, or None."""
        names = self.columns.get(role)
        return names[0] if names else None

    @property
    def grouped_by(self) -> tuple[str, ...]:
        """The columns that tell the groups of one step apart: an id, or the prompt and its target.

        One prompt may have several targets, each a row of the training data with a group of its own.
        """
        return self.columns.get("group") or self.columns.get("prompt", ()) + self.columns.get("target", ())

    @property
    def one_file_a_step(self) -> bool:
        """verl and TRL write all rows of a step into one file, and a dump into one folder."""
        return self.kind in _SIGNS and "step" not in self.chosen


def recognise(path: Path, schema: Schema, given: Mapping[str, str], untyped: bool = False) -> Columns:
    """The layout of one file from its columns and what `--columns` says of them; an untyped file has text of any role.

    Raises:
        AuditError: columns of no known dump, a missing one, or one of a type that its role cannot have.
    """
    kind = next((kind for kind, signs in _SIGNS.items() if set(signs) <= set(schema)), "table")
    columns = {role: (name,) for role, name in _KINDS[kind].items() if name in schema}
    if "group" in columns and schema[columns["group"][0]] == pl.Null():  # a uid that is there and never filled
        del columns["group"]
    columns |= {role: (role,) for role in _LENGTHS if role in schema}
    columns |= {role: _summands(path, schema, name) if role == "reward" else (name,) for role, name in given.items()}
    if "reward" not in columns and kind == "trl":
        columns["reward"] = (_trl_reward(path, schema),)
    for role, names in columns.items():
        for name in names:
            if name not in schema:
                raise AuditError(f"{path}: no column {name!r} (for {role}) among {sorted(schema)}; mend --columns {role}=")
            if not untyped and not _fits(role, schema[name]):
                raise AuditError(f"{path}: column {name!r} ({role}) has type {schema[name]}; write it as {_wanted(role)}")
    missing = [role for role in ("step", "reward") if role not in columns]
    missing += [] if {"group", "prompt"} & set(columns) else ["group"]
    if missing:
        raise AuditError(
            f"{path}: not a dump of verl or TRL, and as a plain table it lacks {' and '.join(missing)} among its columns "
            f"{sorted(schema)}; name them, for example --columns {' '.join(f'{role}=NAME' for role in missing)}"
        )
    numbers = {"reward": pl.Float64(), **dict.fromkeys(("step", *_LENGTHS), pl.Int64())} if untyped else {}
    types = {name: numbers.get(role, schema[name]) for role, names in columns.items() for name in names}
    if kind == "trl" and schema["advantage"].is_numeric():
        types["advantage"] = pl.Float64()
    return Columns(kind, columns, types, frozenset(given))


def _summands(path: Path, schema: Schema, given: str) -> tuple[str, ...]:
    """The columns of `reward=`: the one of that name, else those whose names joined by "+" it is."""
    found = [(given,)] if given in schema else list(islice(_splits(given.split("+"), schema), 2))
    if len(found) > 1:
        raise AuditError(
            f"columns: reward={given!r} can be read as {' or as '.join(map(str, found))}; rename a column of {path}"
        )
    return found[0] if found else tuple(given.split("+"))


def _splits(words: list[str], schema: Schema) -> Iterator[tuple[str, ...]]:
    for end in range(1, len(words) + 1):
        if (name := "+".join(words[:end])) in schema:
            yield from ((name, *rest) for rest in (_splits(words[end:], schema) if words[end:] else [()]))


def _trl_reward(path: Path, schema: Schema) -> str:
    """TRL's columns stand as step, prompt, completion, rewards, what `log_extra` added, advantage."""
    floats = [name for name, kind in schema.items() if kind.is_float() and name not in ("step", "advantage")]
    if len(floats) == 1:
        return floats[0]
    mend = "--columns reward=NAME, or reward=NAME+NAME to add several"
    if not floats:
        raise AuditError(f"{path}: no column of rewards (floats) among {sorted(schema)}; say {mend}")
    raise AuditError(f"{path}: columns {floats} may each be a reward; say {mend}")


def _fits(role: str, kind: pl.DataType) -> bool:
    if role == "target":  # anything that names one
        return True
    if role == "step" or role in _LENGTHS:
        return kind.is_integer()
    if role == "reward":
        return kind.is_numeric() or kind == pl.Boolean
    if role == "group":
        return is_text(kind) or kind.is_integer()
    return is_text(kind) or is_token_ids(kind) or is_messages(kind) or (role == "prompt" and kind.is_integer())


def _wanted(role: str) -> str:
    if role == "step" or role in _LENGTHS:
        return "whole numbers"
    return {"reward": "numbers", "group": "text or whole numbers"}.get(role, _MESSAGES)
