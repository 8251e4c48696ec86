"""`recast-train export verl`."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from recast_sim.commandline import Common, Flag, Positional
from recast_train.data import BadRows, DataError


@dataclass(frozen=True)
class Export(Common):
    """OpenOneRec's RL parquet as another trainer's data set, with the anchors of repair.

    Attributes:
        trainer: for whom.
        path: a parquet file, or a folder with those of train, valid and test; --out is the folder to write.
        tokenizer: a local folder with the policy's tokenizer.
        thought: rollouts think before they answer; anchors keep the thought and only answer anew.
        before: text between the prompt, or the thought, and the SID of an answer.
        skip_bad: leave out rows that cannot be read, and say how many and where.
        data_source: name of the data in the trainer's metrics.
    """

    trainer: Positional[Literal["verl"]] = "verl"
    path: Positional[Path | None] = None
    tokenizer: Path | None = None
    thought: Flag = False
    before: str = ""
    skip_bad: Flag = False
    data_source: str = "openonerec"


def export(command: Export) -> None:
    from recast_train.adapters.verl.parquet_export import AnswerTokens, export_openonerec
    from recast_train.model.text_vocabulary import load_tokenizer

    for name in ("path", "tokenizer", "out"):
        if getattr(command, name) is None:
            raise DataError(f"{name}: missing; write recast-train export verl PATH --tokenizer FOLDER --out FOLDER")
    assert command.path is not None
    assert command.tokenizer is not None
    assert command.out is not None
    if not command.path.exists():
        raise DataError(f"{command.path}: there is no such file or folder")
    tokens = AnswerTokens(load_tokenizer(command.tokenizer), command.before, command.thought)
    bad = BadRows() if command.skip_bad else None
    written = export_openonerec(command.path, command.out, tokens, command.data_source, bad)
    if bad is not None:
        print(f"recast-train: {bad.words()}", file=sys.stderr)
    if command.json:
        print(json.dumps({"out": str(command.out), "rows": written}))
    else:
        for split, rows in written.items():
            print(f"{command.out / split}.parquet: {rows:,} rows")
