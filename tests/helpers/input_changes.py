"""What is done to small inputs: what changes no figure, what is nonsense and must be refused, and anything else."""

import csv
import io
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fuzzing
import numpy as np
import polars as pl
from hostile_inputs import NUMBERS, ROWS_RE, Input, npy, parquet
from hypothesis import strategies as st
from safetensors.numpy import save

Draw = st.DrawFn


# Files as rows


@dataclass
class Rows:
    """A table of any format as a header and rows, with what writes it back."""

    header: list[str]
    rows: list[list[Any]]
    write: Callable[[list[str], list[list[Any]]], bytes]


def is_parquet(path: Path) -> bool:
    return path.suffix == ".parquet"


def rows_of(path: Path, given: Input) -> Rows | None:
    """The rows of a file, or None where it is none of rows."""
    if path.suffix == ".jsonl":
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        return Rows(list(rows[0]), [list(row.values()) for row in rows], _json_lines)
    if is_parquet(path):
        frame = pl.read_parquet(path)
        return Rows(frame.columns, [list(row) for row in frame.rows()], _frame(frame))
    mark = {"a.csv": ",", "a.tsv": "\t", "a.txt": ";", "u.data": "\t", "a.inter": "\t"}.get(path.name)
    if path.suffix == ".csv" and mark != ",":
        mark = ","
    if mark is None or not given.columns:
        return None
    lines = list(csv.reader(io.StringIO(path.read_text()), delimiter=mark))
    header = [] if path.name == "u.data" else lines.pop(0)
    return Rows(header, [list(line) for line in lines], lambda head, rows: delimited(head, rows, mark))


def _json_lines(header: list[str], rows: list[list[Any]]) -> bytes:
    return b"".join(json.dumps(dict(zip(header, row, strict=False))).encode() + b"\n" for row in rows)


def _frame(frame: pl.DataFrame) -> Callable[[list[str], list[list[Any]]], bytes]:
    def write(header: list[str], rows: list[list[Any]]) -> bytes:
        columns = {
            name: pl.Series(name, [row[place] for row in rows], strict=False, dtype=frame.schema.get(name))
            for place, name in enumerate(header)
        }
        return parquet(pl.DataFrame(columns))

    return write


def delimited(header: list[str], rows: list[list[Any]], mark: str, **options: Any) -> bytes:
    file = io.StringIO()
    csv.writer(file, delimiter=mark, lineterminator="\n", **options).writerows([header, *rows] if header else rows)
    return file.getvalue().encode("utf-8", "surrogatepass")


def files_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


# What changes no figure


def harmless(draw: Draw, path: Path, given: Input) -> str | None:
    """Change a file so that it says the same; how, or None where this kind has no such change."""
    text = path.suffix not in BINARY
    kinds = ["crlf", "bom", "end", "blank end"] if text else []
    rows = rows_of(path, given)
    if rows is not None:
        kinds += ["order"] * (not given.ordered) + ["columns", "more"] * bool(rows.header)
    if rows is not None and path.suffix in (".csv", ".tsv", ".inter"):
        kinds += ["quoted"]
    if path.suffix == ".json" or path.name.endswith(".json"):
        kinds = ["bom", "crlf", "indented", "order of keys", "escaped"]
    if path.suffix == ".jsonl":
        kinds += ["blanks", "escaped", "order of keys", "blank lines"]
    if is_parquet(path):
        kinds += ["row groups", "uncompressed", "narrow"]
    if path.name == "items":
        kinds += ["commas"]
    if path.suffix == ".npy":
        kinds = ["fortran", "wide", "big endian"]
    if not kinds:
        return None
    how = draw(st.sampled_from(kinds))
    path.write_bytes(_same(draw, how, path, rows))
    return how


def _same(draw: Draw, how: str, path: Path, rows: Rows | None) -> bytes:
    content = path.read_bytes()
    if how in ("crlf", "bom", "end", "blank end", "blank lines", "commas"):
        return {
            "crlf": content.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"),
            "bom": b"\xef\xbb\xbf" + content.removeprefix(b"\xef\xbb\xbf"),
            "end": content.rstrip(b"\r\n"),
            "blank end": content + b"\n\n",
            "blank lines": content.replace(b"\n", b"\n\n"),
            "commas": content.replace(b"><", b">, <"),
        }[how]
    if how in ("fortran", "wide", "big endian"):
        array = np.load(path)
        return npy({"fortran": np.asfortranarray(array), "wide": array.astype("f8"), "big endian": array.astype(">f4")}[how])
    if path.name.endswith(".json"):
        value = json.loads(content.decode("utf-8-sig"))
        if how == "order of keys":
            value = dict(draw(st.permutations(list(value.items()))))
        if how == "escaped":
            return "".join(f"\\u{ord(c):04x}" if c in "<>_" else c for c in json.dumps(value)).encode()
        return json.dumps(value, indent=2).encode()
    if how in ("row groups", "uncompressed", "narrow"):
        frame = pl.read_parquet(path)
        if how == "narrow":
            return parquet(frame.with_columns(pl.col(pl.Int64).cast(pl.Int32)))
        return parquet(frame, row_group_size=5) if how == "row groups" else parquet(frame, compression="uncompressed")
    assert rows is not None
    header, body = rows.header, rows.rows
    if how in ("blanks", "escaped", "order of keys") and path.suffix == ".jsonl":
        texts = [json.dumps(dict(zip(header, row, strict=True)), separators=(" ,  ", " : ")) for row in body]
        if how == "escaped":
            texts = ["".join(f"\\u{ord(c):04x}" if c in "<>" else c for c in text) for text in texts]
        if how == "order of keys":
            texts = [json.dumps(dict(reversed(list(zip(header, row, strict=True))))) for row in body]
        return "".join(f"{text}\n" for text in texts).encode()
    if how == "order":
        body = draw(st.permutations(body))
    if how == "more":
        header, body = [*header, "zz:token" if path.suffix == ".inter" else "zz"], [[*row, "7"] for row in body]
    if how == "columns":
        places = draw(st.permutations(range(len(header))))
        header, body = [header[place] for place in places], [[row[place] for place in places] for row in body]
    if how == "quoted":
        return delimited(header, body, "," if path.suffix == ".csv" else "\t", quoting=csv.QUOTE_ALL)
    return rows.write(header, body)


# What must be refused

BINARY = (".parquet", ".npy", ".safetensors", ".gz", ".xz")
NO_FILES = ("pipe", "device", "folder", "link to itself", "link to nothing", "empty")
BAD_CELLS: dict[str, tuple[Any, ...]] = {
    "step": (None, 1.5, "soon", float("nan")),
    "prompt": (None,),
    "rank": (0, -1, 1.5, "soon", float("nan"), float("inf")),
    "target": (None,),
    "reward": (None, float("nan"), float("inf"), -float("inf"), "much", [1.0]),
    "group": (None,),
    "user": (None, ""),
    "item": (None, ""),
    "timestamp": (None, "", "soon", float("nan"), float("inf"), "1e999"),
    "embedding": (None, [], [1.0], [float("nan")] * 3, [float("inf"), 1.0, 1.0]),
    "codes": (None, [], [1], [1, 2, 3], [-1, 2], [10**12, 1]),
    "messages": (None, "", "[]", "{", '[{"role": "assistant", "content": "x"}]', '"x"', "[" * 5000),
    "item_id": ("", "99", "-1", "nan", "0.5"),
    "history_item_id": ("", "[]", "[99]", "[1, ", "nan", "[None]", "{1: 2}", "[" * 5000),
    "item_sid": ("", "<a_0>", "<a_9><b_9><c_9>", "nan", "<a_0><b_0><c_0><d_0>"),
}


def nonsense(draw: Draw, path: Path, given: Input) -> str:
    """Break a file that the command needs in a way that no reading can mend; how."""
    rows = rows_of(path, given) if given.columns else None
    kinds = [*no_files(path, given), "utf-16", "nul"] + ["cut"] * (not _may_be_cut(path))
    if rows is not None:
        kinds += ["cell"] * 6 + ["drop column", "twice"] * bool(rows.header) + ["short row"] * (not is_parquet(path))
    how = draw(st.sampled_from(kinds))
    content = path.read_bytes()
    if how in NO_FILES:
        replace_by(path, how)
    elif how == "cut":
        path.write_bytes(content[: draw(st.integers(1, 20))])
    elif how == "utf-16":
        path.write_bytes(content.decode("latin-1").encode("utf-16"))
    elif how == "nul":
        at = draw(st.integers(0, len(content) - 1)) if path.suffix not in BINARY else 0
        path.write_bytes(content[:at] + b"\0" + content[at:])
    else:
        assert rows is not None
        how = f"{how} {_broken(draw, how, path, given, rows)}"
    return how


def _may_be_cut(path: Path) -> bool:
    """Without a header or an end of its own, the start of a file may be a whole one."""
    return path.name == "u.data" or path.name == "items" or path.read_bytes()[:2] == b"u0"


def _broken(draw: Draw, how: str, path: Path, given: Input, rows: Rows) -> Any:
    header, body = rows.header, [list(row) for row in rows.rows]
    role = draw(st.sampled_from([role for role in given.columns if role in BAD_CELLS]))
    name, row = given.columns[role], draw(st.integers(0, len(body) - 1))
    place = name if isinstance(name, int) else header.index(name)
    if how == "drop column":
        needed = [role for role in given.columns if role in (*BAD_CELLS,) if role not in ("timestamp", "group", "prompt")]
        place = header.index(str(given.columns[draw(st.sampled_from(needed))]))
        path.write_bytes(rows.write(header[:place] + header[place + 1 :], [one[:place] + one[place + 1 :] for one in body]))
        return header[place]
    if how == "twice":
        copy = [*header, header[place]]
        if path.suffix in (".jsonl", ".parquet"):  # no such table can be written
            path.write_bytes(b"")
        else:
            path.write_bytes(rows.write(copy, [[*one, one[place]] for one in body]))
        return header[place]
    if how == "short row":
        del body[row][place]
        if path.suffix == ".jsonl":
            named = [dict(zip(header, one, strict=True)) for one in rows.rows]
            del named[row][header[place]]
            path.write_bytes(b"".join(json.dumps(one).encode() + b"\n" for one in named))
        else:
            path.write_bytes(rows.write(header, body))
        return role
    values = [value for value in BAD_CELLS[role] if not is_parquet(path) or _holds(rows, place, value)]
    if path.suffix == ".jsonl" or is_parquet(path):
        values = [value for value in values if value != "" or role in ("user", "item")]
    body[row][place] = value = draw(st.sampled_from(values))
    text = not is_parquet(path) and path.suffix != ".jsonl"
    if text:
        body[row][place] = "" if value is None else str(value)
    path.write_bytes(rows.write(header, body))
    return f"{role}={value!r}"


def _holds(rows: Rows, place: int, value: Any) -> bool:
    """Whether a column of its type can hold a value; polars would write null, which is nonsense as well."""
    return value is None or isinstance(value, type(rows.rows[0][place]))


def no_files(path: Path, given: Input) -> list[str]:
    """What may not stand in a file's place; an empty folder does no harm among the files of a dump."""
    return [
        how
        for how in NO_FILES
        if how != "folder" or given.command != "audit" or path.parent.name not in ("dump", "completions")
    ]


def replace_by(path: Path, how: str) -> None:
    """Put something that is no ordinary file, or an empty one, in a file's place."""
    path.unlink()
    if how == "pipe":
        os.mkfifo(path)
    elif how == "folder":
        path.mkdir()
    elif how == "empty":
        path.write_bytes(b"")
    else:
        path.symlink_to({"device": "/dev/zero", "link to itself": path, "link to nothing": path.with_name("gone")}[how])


# Anything else

WORDS = (
    *("", " ", "nan", "inf", "-1", "0", "1e999", "9" * 30, "9" * 5000, "true", "None", "null", "[]", "{}", "[1, 2]"),
    *("\ufeff", "\u202eback", "\x1b[31mred", "[bold]x[/]", r"$\frac$", "<a_1>", "<a_1><b_2>", "<c_1><b_1><a_1>", "a[b]*?", "~"),
    *("u0", "i1", '"', '""', "'", ",", "\t", ";", "a\rb", "a\x0bb", "a\u2028b", "é", "\uff11", "2024-01-01", "1_000", "0x10"),
)
VALUES = (*fuzzing.NASTY, *WORDS, [[1]], [None], ["<a_1>"], {"content": "x"}, [{"role": "user"}], [{"role": 1, "content": {}}])
_date = pl.lit("2024-01-01")
SERIES: tuple[Any, ...] = (
    *map(pl.lit, (None, 1, -1.5, True, "x", "1", b"\xff", [1, 2], [[1.0]], [], float("nan"), 2**40)),
    *(pl.lit(1).cast(kind) for kind in (pl.UInt64, pl.Int8, pl.Float32, pl.Duration("us"), pl.Decimal(10, 2))),
    *(_date.str.to_date(), _date.str.to_datetime(), pl.lit("x").cast(pl.Categorical), pl.struct(a=pl.lit(1))),
)
KINDS = ("complex", "bool", "f2", "i8", "u1", "U4", "S2", "M8[s]", "object", "f8")
ARRAYS: tuple[Any, ...] = (
    *(ROWS_RE[0], ROWS_RE[None], ROWS_RE[:5], ROWS_RE[:, :0], ROWS_RE * 0, ROWS_RE * np.nan, ROWS_RE[::-1], np.float32(1)),
    *(ROWS_RE.view([("x", "f4")]), np.full_like(ROWS_RE, 3e38), *(ROWS_RE.astype(kind) for kind in KINDS)),
)


def anything(draw: Draw, path: Path, given: Input) -> str:
    """Change a file in any way; how."""
    rows, kinds = rows_of(path, given), ["bytes", "bytes", "insert", "cut", "chunk", "no file"]
    text = path.suffix not in BINARY
    kinds += ["line twice", "line gone", "encoding", "mark", "word", "word", "lines joined"] * text
    kinds += ["cell"] * 5 * (rows is not None)
    kinds += ["column", "column", "rename"] * is_parquet(path) + ["array"] * 5 * (path.suffix == ".npy")
    kinds += ["json"] * 8 * path.name.endswith((".json", ".jsonl")) + ["metadata"] * 5 * (path.suffix == ".safetensors")
    kinds += ["suffix"] + ["chat"] * 6 * (path.name.startswith("t") and is_parquet(path))
    how = draw(st.sampled_from(kinds))
    if how == "no file":
        replace_by(path, draw(st.sampled_from(NO_FILES)))
    elif how == "suffix":
        path.rename(path.with_suffix(draw(st.sampled_from((".csv", ".parquet", ".gz", ".xz", ".json", ".inter", "", ".npy")))))
    else:
        path.write_bytes(_changed(draw, how, path, rows))
    return how


def _changed(draw: Draw, how: str, path: Path, rows: Rows | None) -> bytes:
    content, at = path.read_bytes(), lambda most: draw(st.integers(0, max(0, most - 1)))
    if how == "bytes":
        changed = bytearray(content)
        for _ in range(draw(st.integers(1, 4))):
            changed[at(len(changed))] = draw(st.integers(0, 255))
        return bytes(changed)
    if how in ("insert", "cut", "chunk"):
        first = at(len(content))
        more = draw(st.binary(max_size=8)) if how == "insert" else b""
        last = {"insert": first, "cut": len(content), "chunk": min(len(content), first + at(200))}[how]
        return content[:first] + more + content[last:]
    lines = content.splitlines(keepends=True) or [b""]
    if how in ("line twice", "line gone", "lines joined"):
        line = at(len(lines))
        lines[line] = {"line twice": lines[line] * 2, "line gone": b"", "lines joined": lines[line].rstrip(b"\r\n")}[how]
        return b"".join(lines)
    if how == "encoding":
        name = draw(st.sampled_from(("utf-16", "utf-16-le", "utf-32", "utf-7", "cp500", "utf-8-sig")))
        return content.decode("latin-1").encode(name)
    if how == "mark":
        old, new = (draw(st.sampled_from((b",", b"\t", b";", b"|", b" ", b"::", b":", b'"', b"\r"))) for _ in range(2))
        return content.replace(old, new)
    if how == "word":
        line = at(len(lines))
        word = draw(st.sampled_from(WORDS)).encode()
        place = at(len(lines[line]))
        lines[line] = lines[line][:place] + word + lines[line][place:]
        return b"".join(lines)
    if how == "json":
        return _changed_json(draw, path, lines)
    if how == "array":
        return npy(draw(st.sampled_from(ARRAYS)), allow_pickle=True)
    if how == "metadata":
        ids = (json.dumps(NUMBERS[:-1]), json.dumps([*NUMBERS[:-1], "0"]))
        names = draw(st.sampled_from(("[]", "null", "1", "x", "[" * 5000, *ids)))
        tensors = draw(st.sampled_from(({"embeddings": ROWS_RE[:3]}, {"other": ROWS_RE}, {"embeddings": ROWS_RE * np.nan})))
        return save(draw(st.sampled_from((tensors, {"embeddings": ROWS_RE}))), metadata={"items": names})
    if how in ("column", "rename"):
        frame = pl.read_parquet(path)
        name = draw(st.sampled_from(frame.columns))
        if how == "rename":
            return parquet(frame.rename({name: draw(st.sampled_from(WORDS))}))
        return parquet(frame.with_columns(draw(st.sampled_from(SERIES)).alias(name)))
    assert rows is not None
    body, row = [list(row) for row in rows.rows], at(len(rows.rows))
    place = at(len(body[row]))
    if how == "chat" and "messages" in rows.header:
        place = rows.header.index("messages")
        body[row][place] = json.dumps(draw(fuzzing.mutated(json.loads(body[row][place]))))
        return rows.write(rows.header, body)
    value = draw(st.sampled_from(VALUES))
    if is_parquet(path):
        column = [one[place] for one in body]
        column[row] = value
        series = pl.Series(rows.header[place], column, strict=False)
        try:
            return parquet(pl.read_parquet(path).with_columns(series))
        except pl.exceptions.PolarsError:  # Python objects and structs of nothing, which parquet cannot hold
            return parquet(pl.read_parquet(path).with_columns(pl.Series(series.name, list(map(str, column)))))
    body[row][place] = value if path.suffix == ".jsonl" else str(value)
    return rows.write(rows.header, body)


def _changed_json(draw: Draw, path: Path, lines: list[bytes]) -> bytes:
    if path.suffix == ".jsonl":
        line = draw(st.integers(0, len(lines) - 1))
        lines[line] = _nasty(draw, json.loads(lines[line])) + b"\n"
        return b"".join(lines)
    return _nasty(draw, json.loads(b"".join(lines)))


def _nasty(draw: Draw, value: Any) -> bytes:
    """Mutated, with halves of surrogates and deep nests among the new values."""
    text = json.dumps(draw(fuzzing.mutated(value)))
    extra = draw(st.sampled_from(("", "", '"\\ud800"', "[" * 3000 + "]" * 3000, '{"a": {"a": 1}}', "9" * 400, "-0.0", "1e400")))
    if extra and ": " in text:
        head, _, tail = text.rpartition(": ")
        text = f"{head}: {extra}{tail[tail.rfind('}') :]}"
    return text.encode("utf-8", "surrogatepass")
