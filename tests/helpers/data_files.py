"""Small files of every format, written by the tests of the readers, and the interactions and prompts that they hold."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

HEADER = "user_id:token\titem_id:token\trating:float\ttimestamp:float"
LOG = [(f"u{user}", f"i{(user * 5 + 3 * place) % 12}", 1000 + 7 * place + user) for user in range(6) for place in range(5)]
SIDS = {str(item): (item % 3, item // 3, item % 2) for item in range(8)}
TITLES = {item: f"Toy {item}, the 'best' \"one\"" if int(item) % 2 else f"Owl's {item}" for item in SIDS}
PROMPTS = {
    "train": [("A", ["0", "1"], "2"), ("A", ["0", "1", "2"], "3"), ("B", ["5"], "4"), ("C", ["7", "7", "6"], "0")],
    "valid": [("B", ["5", "4"], "1")],
    "test": [("C", ["7", "7", "6", "0"], "5"), ("A", ["0", "1", "2", "3"], "6")],
}
CHATS = {
    "train": [(["0", "1"], ["2"]), (["3", "4", "5"], ["6", "7", "1"]), (["2"], ["0", "3"])],
    "valid": [(["1", "2"], ["5"])],
    "test": [(["6", "0"], ["7", "1"]), (["3"], ["3"])],
}
Row = dict[str, str]


def sequence_text() -> str:
    lines: dict[str, list[str]] = {}
    for user, item, _ in LOG:
        lines.setdefault(user, []).append(item)
    return "".join(f"{user} {' '.join(items)}\n" for user, items in lines.items())


def atomic_text() -> str:
    return "".join(f"{line}\n" for line in [HEADER, *(f"{user}\t{item}\t3.5\t{time}" for user, item, time in LOG)])


def table_text() -> str:
    return "".join(f"{line}\n" for line in ["user,item,timestamp", *(f"{u},{i},{t}" for u, i, t in LOG)])


def table_frame() -> pl.DataFrame:
    return pl.DataFrame(LOG, schema=["user", "item", "timestamp"], orient="row")


def index_text(sids: dict[str, Sequence[int]] | None = None) -> str:
    return json.dumps(
        {item: [f"<{letter}_{code}>" for letter, code in zip("abc", c, strict=True)] for item, c in (sids or SIDS).items()}
    )


def sid(item: str) -> str:
    return "".join(f"<{letter}_{code}>" for letter, code in zip("abc", SIDS[item], strict=True))


def minionerec_rows(split: str) -> list[Row]:
    return [
        {
            "user_id": user,
            "history_item_title": repr([TITLES[item] for item in history]),
            "item_title": TITLES[target],
            "history_item_id": repr([int(item) for item in history]),
            "item_id": target,
            "history_item_sid": repr([sid(item) for item in history]),
            "item_sid": sid(target),
        }
        for user, history, target in PROMPTS[split]
    ]


def csv_text(rows: list[Row]) -> str:
    lines = [list(rows[0]), *(list(row.values()) for row in rows)]
    return "".join(",".join('"' + cell.replace('"', '""') + '"' for cell in line) + "\n" for line in lines)


def write_minionerec(folder: Path) -> Path:
    for split in PROMPTS:
        (folder / split).mkdir(parents=True)
        (folder / split / "toys.csv").write_text(csv_text(minionerec_rows(split)))
    (folder / "toys.index.json").write_text(index_text())
    return folder


def open_sid(item: str) -> str:
    a, b, c = SIDS[item]
    return f"<|sid_begin|><s_a_{a}><s_b_{b}><s_c_{c}><|sid_end|>"


def item_name(item: str) -> str:
    return open_sid(item).removeprefix("<|sid_begin|>").removesuffix("<|sid_end|>")


def chat(history: list[str], targets: list[str], parts: bool = False) -> list[dict[str, Any]]:
    asked: Any = f"They watched {', '.join(map(open_sid, history))}. What next?"
    if parts:
        asked = [{"type": "text", "text": asked[:20]}, {"type": "text", "text": asked[20:]}]
    answer = f"<think>not {open_sid('4')}</think>{''.join(map(open_sid, targets))}"
    return [
        {"role": "system", "content": "You recommend."},
        {"role": "user", "content": asked},
        {"role": "assistant", "content": answer},
    ]


def chat_frame(split: str) -> pl.DataFrame:
    texts = [json.dumps(chat(*row, parts=place % 2 == 1)) for place, row in enumerate(CHATS[split])]
    return pl.DataFrame({"uuid": list(range(len(texts))), "messages": texts})


def write_openonerec(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for split in CHATS:
        chat_frame(split).write_parquet(folder / f"{split}.parquet")
    return folder


def broken_chat(**change: object) -> str:
    messages = chat(["0"], ["1"])
    for place, content in change.items():
        messages[{"user": 1, "answer": 2}[place]]["content"] = content
    return json.dumps(messages)
