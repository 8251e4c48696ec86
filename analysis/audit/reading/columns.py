"""What the columns of a dump are: who wrote it, and which column plays which role.

| kind  | told by the columns                   | group (within a step)       | reward              | completion |
|-------|---------------------------------------|-----------------------------|---------------------|------------|
| verl  | input, output, score, step            | uid of the prompt, or input | score               | output     |
| trl   | step, prompt, completion, advantage   | prompt                      | the float column    | completion |
| table | step, reward, and prompt_id or prompt | prompt_id, or prompt        | reward              | completion |

verl 0.5 (and OpenOneRec's fork of it) writes the columns of 0.9 but gts and uid. TRL names rewards after their function.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from analysis.audit.audit_error import AuditError

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
_ALLOWED = "step=, group=, prompt=, completion=, reward=, target=, prompt_tokens= or response_tokens="
_MESSAGES = "text, token ids or messages with text"


@dataclass(frozen=True)
class Columns:
    """Roles of a dump's columns.

    Attributes:
        kind: "verl", "trl" or "table".
        columns: column names by role; a reward may have several, which are added up.
        types: polars types of these columns.
    """

    kind: str
    columns: dict[str, tuple[str, ...]]
    types: dict[str, pl.DataType]

    def column(self, role: str) -> str | None:
        """The column of a role, or None."""
        names = self.columns.get(role)
        return names[0] if names else None

    @property
    def grouped_by(self) -> str:
        """The column that tells the groups of one step apart."""
        return self.columns.get("group", self.columns.get("prompt", ("",)))[0]


def parse_columns(words: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """`--columns group=query reward=hit+format` as column names by role.

    Raises:
        AuditError: a word that is no role=column, or a role given twice.
    """
    given: dict[str, tuple[str, ...]] = {}
    for word in words:
        role, equals, names = word.partition("=")
        if not equals or not names or role not in ROLES:
            raise AuditError(f"columns: {word!r} must be {_ALLOWED} and a column's name")
        if role in given:
            raise AuditError(f"columns: {role!r} is given twice; remove one")
        given[role] = tuple(names.split("+")) if role == "reward" else (names,)
    return given


def recognise(path: Path, schema: Schema, given: Mapping[str, tuple[str, ...]], untyped: bool = False) -> Columns:
    """The layout of one file from its columns and what `--columns` says of them; an untyped file has text of any role.

    Raises:
        AuditError: columns of no known dump, a missing one, or one of a type that its role cannot have.
    """
    kind = next((kind for kind, signs in _SIGNS.items() if set(signs) <= set(schema)), "table")
    columns = {role: (name,) for role, name in _KINDS[kind].items() if name in schema}
    columns |= {role: (role,) for role in _LENGTHS if role in schema} | dict(given)
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
    return Columns(kind, columns, {name: numbers.get(role, schema[name]) for role, names in columns.items() for name in names})


def is_text(kind: pl.DataType) -> bool:
    return kind.base_type() in (pl.String, pl.Categorical, pl.Enum)


def is_token_ids(kind: pl.DataType) -> bool:
    return isinstance(kind, pl.List) and _inner(kind).is_integer()


def is_messages(kind: pl.DataType) -> bool:
    """A list of {role, content} with text as content, as TRL writes conversations."""
    inner = _inner(kind) if isinstance(kind, pl.List) else None
    return isinstance(inner, pl.Struct) and any(f.name == "content" and f.dtype == pl.String for f in inner.fields)


def _inner(kind: pl.List) -> pl.DataType:
    return kind.inner if isinstance(kind.inner, pl.DataType) else kind.inner()


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
