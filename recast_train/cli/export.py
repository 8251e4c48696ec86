"""`recast-train export verl` and `recast-train export vllm`."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from recast_sim.commandline import Flag, Positional, Printing
from recast_train.data import BadRows, DataError


@dataclass(frozen=True)
class Export(Printing):
    """OpenOneRec's RL data for verl, or a catalog's answers for vLLM's rollouts.

    For verl the rows bring the anchors of repair. vLLM's rollouts are held to the answers.

    Attributes:
        trainer: for whom.
        path: verl: a parquet file, or a folder with those of train, valid and test. vllm: the items' semantic IDs, a .json or
            .parquet file or a folder of recast-train tokenize.
        out: the folder to write; vllm: the file.
        tokenizer: a local folder with the policy's tokenizer.
        thought: rollouts think before they answer; anchors keep the thought and only answer anew.
        before: text between the prompt, or the thought, and the SID of an answer.
        skip_bad: leave out rows that cannot be read, and say how many and where (verl).
        data_source: name of the data in the trainer's metrics (verl).
    """

    trainer: Positional[Literal["verl", "vllm"]] = "verl"
    path: Positional[Path | None] = None
    out: Path | None = None
    tokenizer: Path | None = None
    thought: Flag = False
    before: str = ""
    skip_bad: Flag = False
    data_source: str = "openonerec"


def export(command: Export) -> None:
    for name in ("path", "tokenizer", "out"):
        if getattr(command, name) is None:
            usage = f"recast-train export {command.trainer} PATH --tokenizer FOLDER --out PATH"
            raise DataError(f"{name}: missing; write {usage}")
    assert command.path is not None
    assert command.tokenizer is not None
    assert command.out is not None
    if not command.path.exists():
        raise DataError(f"{command.path}: there is no such file or folder")
    write = _for_verl if command.trainer == "verl" else _for_vllm
    write(command, command.path, command.tokenizer, command.out)


def _for_verl(command: Export, path: Path, tokenizer: Path, out: Path) -> None:
    from recast_train.adapters.verl.parquet_export import AnswerTokens, export_openonerec
    from recast_train.model.text_vocabulary import load_tokenizer

    tokens = AnswerTokens(load_tokenizer(tokenizer), command.before, command.thought)
    bad = BadRows() if command.skip_bad else None
    written = export_openonerec(path, out, tokens, command.data_source, bad)
    if bad is not None:
        print(f"recast-train: {bad.words()}", file=sys.stderr)
    if command.json:
        print(json.dumps({"out": str(out), "rows": written}))
    else:
        for split, rows in written.items():
            print(f"{out / split}.parquet: {rows:,} rows")


def _for_vllm(command: Export, path: Path, tokenizer: Path, out: Path) -> None:
    import numpy as np

    from recast_train.adapters.verl.parquet_export import AnswerTokens
    from recast_train.adapters.vllm.answer_trie import write_answers
    from recast_train.adapters.vllm.catalog_answers import catalog_answers
    from recast_train.model.text_vocabulary import load_tokenizer
    from recast_train.semantic_id.given_table import read_sid_file

    if out.exists():
        raise DataError(f"{out}: exists already; choose another --out")
    tokens = AnswerTokens(load_tokenizer(tokenizer), command.before, command.thought)
    codes, _ = read_sid_file(path)
    trie = write_answers(out, catalog_answers(np.array(list(codes.values())), tokens, list(codes)))
    asked = {"answers": str(out.absolute()), "after": tokens.thought_end()}
    if command.json:
        print(json.dumps({"out": str(out), "answers": trie.answers, "tokens": trie.length, "recast": asked}))
    else:
        print(f"{out}: {trie.answers:,} answers of {trie.length} tokens. A request is held to them by")
        print(f"SamplingParams(extra_args={{'recast': {asked}}})")
