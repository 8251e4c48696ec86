"""What a column's values are told apart by, and which text they hold."""

from collections.abc import Iterable
from typing import Any

import polars as pl

_ONE_CONTENT = (pl.String, pl.Categorical, pl.Enum, pl.Null)


def is_text(kind: pl.DataType) -> bool:
    return kind.base_type() in (pl.String, pl.Categorical, pl.Enum)


def is_token_ids(kind: pl.DataType) -> bool:
    return isinstance(kind, pl.List) and _inner(kind).is_integer()


def is_messages(kind: pl.DataType) -> bool:
    """A list of {role, content}, as TRL writes conversations; content is text, parts of which some are text, or never there."""
    content = _content(kind)
    return content is not None and (content.base_type() in _ONE_CONTENT or _are_parts(content))


def kind_of(kind: pl.DataType) -> str:
    """What a column holds, for the end of its name: values of two kinds never are the same. "" for text and messages."""
    return " of numbers" if kind.is_numeric() else " of token ids" if is_token_ids(kind) else ""


def text_of(name: str, kind: pl.DataType) -> pl.Expr:
    """A column's text, that of a conversation's messages and their parts in lines; numbers and token ids as they are."""
    if is_messages(kind):
        content = pl.element().struct.field("content")
        if (parts := _content(kind)) is not None and _are_parts(parts):
            content = content.list.eval(pl.element().struct.field("text").cast(pl.String)).list.join("\n")
        return pl.col(name).list.eval(content.cast(pl.String)).list.join("\n")
    return pl.col(name).cast(pl.String) if is_text(kind) else pl.col(name)


def identity_of(name: str, kind: pl.DataType) -> pl.Expr:
    """A hash of all that a value says: messages that differ in roles or tool calls alone are different ones."""
    return (pl.col(name) if is_messages(kind) else text_of(name, kind)).hash()


def joint(hashes: Iterable[pl.Expr]) -> pl.Expr:
    """One hash of several, in their order; a struct of them would be hashed many times slower."""
    mixed = [value.hash(seed=place) for place, value in enumerate(hashes)]
    return sum(mixed[1:], start=mixed[0]).hash() if len(mixed) > 1 else mixed[0]


def _content(kind: pl.DataType) -> pl.DataType | None:
    inner = _inner(kind) if isinstance(kind, pl.List) else None
    fields = inner.fields if isinstance(inner, pl.Struct) else ()
    return next((_plain(field.dtype) for field in fields if field.name == "content"), None)


def _are_parts(kind: pl.DataType) -> bool:
    part = _inner(kind) if isinstance(kind, pl.List) else None
    return isinstance(part, pl.Struct) and any(
        field.name == "text" and _plain(field.dtype).base_type() in _ONE_CONTENT for field in part.fields
    )


def _inner(kind: pl.List) -> pl.DataType:
    return _plain(kind.inner)


def _plain(kind: Any) -> pl.DataType:
    """polars takes a type's class for the type."""
    return kind if isinstance(kind, pl.DataType) else kind()
