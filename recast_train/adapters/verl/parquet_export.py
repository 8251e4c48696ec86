"""OpenOneRec's RL files as the parquet that verl's data set reads, with the anchors' token ids in `extra_info`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl
from polars.io.plugins import register_io_source

from recast_sim.runs import atomic_directory
from recast_train.data import BadRows, ChatRow, DataError, message_text, scan_openonerec
from recast_train.data.readers.folder_layout import split_files

BATCH = 4096  # rows of a written batch
_THOUGHT_END = "</think>"
_ANCHORS = pl.Struct({"anchors": pl.List(pl.List(pl.Int64)), "thought_end": pl.Int64, "codes": pl.List(pl.Int64)})
SCHEMA = pl.Schema(
    {
        "data_source": pl.String,
        "prompt": pl.List(pl.Struct({"role": pl.String, "content": pl.String})),
        "reward_model": pl.Struct({"style": pl.String, "ground_truth": pl.String}),
        "extra_info": pl.Struct({"index": pl.Int64, "split": pl.String, "recast": _ANCHORS}),
    }
)


@dataclass(frozen=True)
class AnswerTokens:
    """Token ids of an answer that is one target's SID: `before`, the SID, the end of the text.

    Attributes:
        tokenizer: the policy's; each token of an SID must be one of its tokens.
        before: text between the prompt, or the thought, and the SID.
        thought: rollouts think first, and an anchor keeps a thought of its group.
    """

    tokenizer: Any
    before: str = ""
    thought: bool = False

    def thought_end(self) -> int | None:
        """Id of the token that closes a thought, None where rollouts do not think. Raises DataError: no such token."""
        return self._known([_THOUGHT_END], "--thought")[0] if self.thought else None

    def answer(self, where: str, item: str) -> list[int]:
        """Ids of the answer `item` (an SID's tokens in a row, without marks).

        Raises:
            DataError: the tokenizer lacks one of its tokens, does not keep it whole, or has no token that ends a text.
        """
        text = _marked(item)
        own = self._known([f"{part}>" for part in text.split(">")[:-1]], where)
        ids = self.tokenizer(self.before + text, add_special_tokens=False)["input_ids"]
        if ids[-len(own) :] != own or self.tokenizer.eos_token_id is None:
            raise DataError(f"{where}: {text} becomes {ids}, expected ... {own} and an end; mend the tokenizer's added tokens")
        return [*ids, self.tokenizer.eos_token_id]

    def _known(self, names: list[str], where: str) -> list[int]:
        table = self.tokenizer.get_vocab()
        for name in names:
            if name not in table:
                raise DataError(f"{where}: the tokenizer has no token {name!r}; give that of the policy, with its SID tokens")
        return [table[name] for name in names]


def export_openonerec(
    path: Path, out: Path, tokens: AnswerTokens, data_source: str, bad: BadRows | None = None
) -> dict[str, int]:
    """Write `out`/train.parquet and so on, one file a split, and return the rows of each. Memory holds a batch at a time. With
    `bad`, rows that cannot be read are left out and counted there.

    Raises:
        DataError: `out` exists, or what `scan_openonerec` and `AnswerTokens` refuse, with file, row and column. Then nothing
            is written.
    """
    if out.exists():
        raise DataError(f"{out}: exists already; choose another --out")
    codes: dict[str, tuple[int, ...]] = {}
    written: dict[str, int] = {}
    with atomic_directory(out) as folder:
        for split, files in split_files(path, ".parquet").items():
            rows = _Rows(files, split, codes, tokens, data_source, bad)
            register_io_source(rows.batches, schema=SCHEMA).sink_parquet(folder / f"{split}.parquet")
            written[split] = rows.written
    return written


def codes_place(item: str, answer: Sequence[int]) -> list[int]:
    """Place of the first code in an answer, which ends with the SID's end mark and the end of the text, and their number."""
    levels = item.count("<")
    return [len(answer) - 2 - levels, levels]


class _Rows:
    """The rows of one split's files, as verl wants them."""

    def __init__(
        self,
        files: list[Path],
        split: str,
        codes: dict[str, tuple[int, ...]],
        tokens: AnswerTokens,
        data_source: str,
        bad: BadRows | None,
    ) -> None:
        self.bad = bad
        self.files, self.split, self.codes, self.tokens, self.data_source = files, split, codes, tokens, data_source
        self.answers: dict[str, list[int]] = {}
        self.thought_end = tokens.thought_end()
        self.written = 0

    def batches(self, *_: Any) -> Iterator[pl.DataFrame]:
        """For polars: it asks for no column, filter or number of rows here, since all is written."""
        rows = self._rows()
        while batch := list(islice(rows, BATCH)):
            yield pl.DataFrame(batch, schema=SCHEMA)

    def _rows(self) -> Iterator[dict[str, Any]]:
        for file in self.files:
            for row in scan_openonerec(file, self.codes, self.bad):
                yield self._row(row)
                self.written += 1

    def _row(self, row: ChatRow) -> dict[str, Any]:
        targets = list(dict.fromkeys(row.targets))
        for item in targets:
            if item not in self.answers:
                self.answers[item] = self.tokens.answer(row.where, item)
        anchors = {
            "anchors": [self.answers[item] for item in targets],
            "thought_end": self.thought_end,
            "codes": codes_place(targets[0], self.answers[targets[0]]),
        }
        return {
            "data_source": self.data_source,
            "prompt": [{"role": message["role"], "content": message_text(row.where, message)} for message in row.asked],
            "reward_model": {"style": "rule", "ground_truth": "".join(map(_marked, targets))},
            "extra_info": {"index": self.written, "split": self.split, "recast": anchors},
        }


def _marked(item: str) -> str:
    return f"<|sid_begin|>{item}<|sid_end|>"
