"""Small valid inputs of every reader."""

import gzip
import io
import json
import lzma
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from audit_dumps import verl_step, write_lines
from data_files import CHATS, LOG, atomic_text, chat_frame, sequence_text, table_frame, table_text, write_minionerec
from hypothesis import strategies as st
from safetensors.numpy import save

Draw = st.DrawFn
ITEMS = sorted({item for _, item, _ in LOG})
NUMBERS = [str(number) for number in range(12)]  # ids of the embeddings' items: as text "10" stands before "2"
ROWS_RE = np.arange(36, dtype=np.float32).reshape(12, 3)
SIDS = {item: [f"<a_{place % 4}>", f"<b_{place // 4}>"] for place, item in enumerate(NUMBERS)}
TABLE = ("--columns.user", "user", "--columns.item", "item")
PLACES = ("--columns.user", "1", "--columns.item", "2", "--columns.timestamp", "3")


@dataclass(frozen=True)
class Input:
    """An input.

    Attributes:
        command: "audit", "learned", "describe", "embeddings" or "sids".
        write: writes it below a folder and returns the path that the command is given.
        options: further words of the command; "{}" in them is the folder.
        columns: of rows, those that the reader takes: role to name, or to place where it has no header.
        ordered: the order of the rows says something.
    """

    command: str
    write: Callable[[Path], Path]
    options: tuple[str, ...] = ()
    columns: Mapping[str, str | int] = field(default_factory=dict)
    ordered: bool = False


def _file(name: str, content: str | bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return folder / name

    return write


def _beside(first: Callable[[Path], Path], *others: Callable[[Path], Path]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        for other in others:
            other(folder)
        return first(folder)

    return write


def _verl(**columns: Callable[[int, int], Any]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        for step in (1, 2):
            write_lines(folder / "dump" / f"{step}.jsonl", verl_step(step, **columns))
        return folder / "dump"

    return write


def _trl(messages: bool) -> Callable[[Path], Path]:
    def said(role: str, text: str) -> Any:
        return [{"role": role, "content": text}] if messages else text

    def write(folder: Path) -> Path:
        (folder / "completions").mkdir()
        for step in (1, 2):
            rows = verl_step(step)
            frame = pl.DataFrame(
                {
                    "step": [step] * len(rows),
                    "prompt": [said("user", row["input"]) for row in rows],
                    "completion": [said("assistant", row["output"]) for row in rows],
                    "hit": [row["score"] for row in rows],
                    "advantage": [0.0] * len(rows),
                }
            )
            frame.write_parquet(folder / "completions" / f"completions_{step:05d}.parquet")
        return folder / "completions"

    return write


def _plain(suffix: str) -> Callable[[Path], Path]:
    names = {"input": "prompt", "output": "completion", "gts": "target", "score": "reward"}
    frame = pl.DataFrame(verl_step(1) + verl_step(2)).rename(names)
    texts = {".csv": frame.write_csv, ".jsonl": frame.write_ndjson}
    return _file(f"a{suffix}", parquet(frame) if suffix == ".parquet" else texts[suffix]())


def _ranks(suffix: str) -> Callable[[Path], Path]:
    """Ranks of the same prompts in two files, a.* and after.*; a few are not in the beam."""
    ranks = [[None if n % 7 == side + 3 else n % 5 + 1 for n in range(30)] for side in (0, 1)]
    frames = [pl.DataFrame({"prompt_id": [f"p{n}" for n in range(30)], "rank": rank}) for rank in ranks]
    write = {".csv": pl.DataFrame.write_csv, ".jsonl": pl.DataFrame.write_ndjson, ".parquet": parquet}[suffix]
    before, after = (_file(f"{name}{suffix}", write(frame)) for name, frame in zip(("a", "after"), frames, strict=True))
    return _beside(before, after)


def _lists(folder: Path) -> Path:
    """Lists of four items with their scores, which are those of all items."""
    for name, scale in (("after", 2.0), ("a", 1.0)):
        scores = [[-scale * place * (1 + n % 3) for place in range(4)] for n in range(30)]
        rows = {"prompt_id": list(range(30)), "ranked": [list("wxyz")] * 30, "target": ["wxyz"[n % 4] for n in range(30)]}
        _file(f"{name}.jsonl", pl.DataFrame(rows | {"scores": scores}).write_ndjson())(folder)
    return folder / "a.jsonl"


def _openonerec(folder: Path) -> Path:
    for split in CHATS:
        _file(f"{split}.parquet", parquet(chat_frame(split)))(folder)
    return folder


def parquet(frame: pl.DataFrame, **options: Any) -> bytes:
    file = io.BytesIO()
    frame.write_parquet(file, **options)
    return file.getvalue()


def npy(rows: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, rows, **options)
    return file.getvalue()


VERL = {"step": "step", "prompt": "input", "completion": "output", "reward": "score"}
PLAIN = {"step": "step", "prompt": "prompt", "completion": "completion", "reward": "reward"}
RANKED = {"prompt": "prompt_id", "rank": "rank"}
TIMED = {"user": "user", "item": "item", "timestamp": "timestamp"}
NAMED = {"user": "user_id:token", "item": "item_id:token", "timestamp": "timestamp:float"}
MINIONEREC = {name: name for name in ("item_id", "history_item_id", "item_sid")}
TSV = table_text().replace(",", "\t")
HEADLESS = "".join(TSV.splitlines(keepends=True)[1:])
TITLES = {item: f"Toy {item}" for item in ITEMS}
TITLED = ("--titles", "{}/titles")
EMBEDDED = pl.DataFrame({"item": NUMBERS, "embedding": ROWS_RE.tolist()})
CODED = pl.DataFrame({"item": NUMBERS, "codes": [[place % 4, place // 4] for place in range(12)]})
_uid = {"uid": lambda prompt, rollout: f"user-{prompt}_{rollout}_0"}
_catalog = "".join(f"<a_{a}><b_{b}><c_{c}>\n" for a in range(3) for b in range(6) for c in range(4))
INPUTS: dict[str, Input] = {
    "verl": Input("audit", _verl(), (), VERL),
    "verl, uid": Input("audit", _verl(**_uid), (), VERL | {"group": "uid"}),
    "verl, items": Input("audit", _beside(_verl(), _file("items", _catalog)), ("--items", "{}/items"), VERL),
    "trl": Input("audit", _trl(messages=False), (), PLAIN | {"reward": "hit"}, ordered=True),
    "trl, messages": Input("audit", _trl(messages=True), (), PLAIN | {"reward": "hit"}, ordered=True),
    "rollouts, csv": Input("audit", _plain(".csv"), (), PLAIN),
    "rollouts, jsonl": Input("audit", _plain(".jsonl"), (), PLAIN),
    "rollouts, parquet": Input("audit", _plain(".parquet"), (), PLAIN),
    "ranks, csv": Input("learned", _ranks(".csv"), ("{}/after.csv",), RANKED),
    "ranks, jsonl": Input("learned", _ranks(".jsonl"), ("{}/after.jsonl",), RANKED),
    "ranks, parquet": Input("learned", _ranks(".parquet"), ("{}/after.parquet",), RANKED),
    "lists, jsonl": Input("learned", _lists, ("{}/after.jsonl",), {"prompt": "prompt_id", "target": "target"}),
    "csv": Input("describe", _file("a.csv", table_text()), (), TIMED),
    "tsv": Input("describe", _file("a.tsv", TSV), (), TIMED),
    "semicolons": Input("describe", _file("a.txt", table_text().replace(",", ";")), (), TIMED),
    "u.data": Input("describe", _file("u.data", HEADLESS), PLACES, {"user": 0, "item": 1, "timestamp": 2}),
    "parquet": Input("describe", _file("a.parquet", parquet(table_frame())), (), TIMED),
    "sequences": Input("describe", _file("a.txt", sequence_text())),
    "sequences, gz": Input("describe", _file("a.txt.gz", gzip.compress(sequence_text().encode()))),
    "sequences, xz": Input("describe", _file("a.txt.xz", lzma.compress(sequence_text().encode()))),
    "atomic": Input("describe", _file("a.inter", atomic_text()), (), NAMED),
    "minionerec": Input("describe", lambda folder: write_minionerec(folder / "data"), (), MINIONEREC, ordered=True),
    "openonerec": Input("describe", _openonerec, (), {"messages": "messages"}),
    "openonerec, skip": Input("describe", _openonerec, ("--skip-bad",)),
    "titles": Input(
        "describe",
        _beside(
            _file("a.csv", table_text()), _file("titles", "item,title\n" + "".join(f"{i},{t}\n" for i, t in TITLES.items()))
        ),
        TITLED,
        TIMED,
    ),
    "titles, json": Input(
        "describe",
        _beside(_file("a.csv", table_text()), _file("titles.json", json.dumps(TITLES))),
        ("--titles", "{}/titles.json"),
        TIMED,
    ),
    "npy": Input("embeddings", _file("e.npy", npy(ROWS_RE)), ordered=True),
    "safetensors": Input(
        "embeddings",
        _file("e.safetensors", save({"embeddings": ROWS_RE}, metadata={"items": json.dumps(NUMBERS)})),
        ordered=True,
    ),
    "embeddings": Input("embeddings", _file("e.parquet", parquet(EMBEDDED)), (), {"item": "item", "embedding": "embedding"}),
    "sids, json": Input("sids", _file("codes.json", json.dumps(SIDS))),
    "sids, parquet": Input("sids", _file("codes.parquet", parquet(CODED)), (), {"item": "item", "codes": "codes"}),
}
