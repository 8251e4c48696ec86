"""The trie over whole answers, where a request stands in it, and the logits that are left; no vLLM."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file
from text_world import text_tokenizer

from recast_train.adapters.vllm.answer_trie import AnswerError, AnswerTrie, read_answers, write_answers
from recast_train.adapters.vllm.answer_walk import AnswerWalk, hold_to_answers
from recast_train.cli import main

pytestmark = pytest.mark.adapters
END, THINKS = 9, 7
TABLE = np.array([[1, 4, 5, END], [1, 4, 6, END], [1, 5, 6, END], [1, 4, 5, END]])


@st.composite
def tables(draw: st.DrawFn) -> np.ndarray:
    answers, length = draw(st.integers(1, 12)), draw(st.integers(1, 4))
    codes = draw(st.lists(st.lists(st.integers(0, 5), min_size=length, max_size=length), min_size=answers, max_size=answers))
    return np.array([[*row, END] for row in codes])


@pytest.mark.property
@given(tables(), st.data())
def test_next_tokens_are_those_of_the_answers_that_begin_so(table: np.ndarray, data: st.DataObject) -> None:
    trie, node, written = AnswerTrie(table), 0, []
    for place in range(table.shape[1]):
        own = sorted({int(row[place]) for row in table if row[:place].tolist() == written})
        assert trie.next_tokens(place, node).tolist() == own
        for token in set(range(END + 2)) - set(own):
            with pytest.raises(AnswerError, match=f"token {token}: cannot stand at place {place} of an answer"):
                trie.child(place, node, token)
        written.append(data.draw(st.sampled_from(own)))
        node = trie.child(place, node, written[-1])
    assert trie.next_tokens(table.shape[1], node).tolist() == [END]
    assert trie.child(table.shape[1], node, END) == trie.child(table.shape[1] + 1, 0, END) == 0


@pytest.mark.property
@given(tables(), st.lists(st.tuples(st.booleans(), st.integers(0, 4)), min_size=1, max_size=6), st.integers(0, 2**16))
def test_logits_are_left_to_what_goes_on_and_to_nothing_else(
    table: np.ndarray, requests: list[tuple[bool, int]], seed: int
) -> None:
    """Some rows think or belong to nobody: they keep every logit."""
    trie, generator = AnswerTrie(table), torch.Generator().manual_seed(seed)
    logits = torch.randn(2 * len(requests), END + 3, generator=generator)
    before, walks, wanted = logits.clone(), {}, {}
    for place, (thinks, count) in enumerate(requests):
        answer = table[(seed + place) % len(table)][:count].tolist()
        walks[2 * place] = AnswerWalk(trie, THINKS if thinks else None, answer)  # THINKS is in no answer: it is not behind it
        if not thinks:
            begins = [row for row in table if row[: len(answer)].tolist() == answer]
            wanted[2 * place] = {int(row[len(answer)]) if len(answer) < table.shape[1] else END for row in begins}
    assert hold_to_answers(logits, walks) is logits
    for row in range(len(logits)):
        legal = sorted(wanted.get(row, range(END + 3)))
        assert torch.equal(logits[row, legal], before[row, legal])
        assert int(torch.isfinite(logits[row]).sum()) == len(legal)


def test_a_walk_follows_the_list_that_vllm_appends_to() -> None:
    written: list[int] = []
    walk = AnswerWalk(AnswerTrie(TABLE), THINKS, written)
    assert walk.place() is None
    written += [3, 1, 4]  # a thought may hold tokens of answers
    assert walk.place() is None
    written += [THINKS, 1]
    assert walk.place() == (1, 0)
    written.append(4)
    assert walk.place() == (2, 0)
    written += [6, END, END]  # behind an answer its last token alone
    assert walk.place() == (5, 0)
    del written[5:]  # taken back
    assert walk.place() == (1, 0)
    written.append(-1)
    with pytest.raises(AnswerError, match="token -1: vLLM does not know yet what it sampled; set async_scheduling to false"):
        walk.place()
    written[-1] = 6
    with pytest.raises(AnswerError, match=r"token 6: cannot stand at place 1 of an answer, where 4, 5 \(2\) can"):
        walk.place()


def test_a_file_holds_each_answer_once(tmp_path: Path) -> None:
    written = write_answers(tmp_path / "a.safetensors", TABLE)
    read = read_answers(tmp_path / "a.safetensors")
    assert read.table_YS.tolist() == written.table_YS.tolist() == TABLE[:3].tolist()
    assert (read.answers, read.length, read.end, read.largest) == (3, 4, END, END)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (TABLE[:0], "answers: codes_IL: shape"),
        (TABLE.astype(float), "answers: codes_IL: dtype float64 must be an integer type"),
        (TABLE[:, :3], r"answers: end with the tokens \[5, 6\]; close each with the one that ends a text"),
        (-TABLE, "answers: codes_IL: item 0 has code -1"),
    ],
)
def test_answers_that_no_request_can_be_held_to(table: np.ndarray, said: str, tmp_path: Path) -> None:
    with pytest.raises(AnswerError, match=said):
        write_answers(tmp_path / "a.safetensors", table)
    assert list(tmp_path.iterdir()) == []


def test_files_that_hold_no_answers(tmp_path: Path) -> None:
    other, cut, bad = (tmp_path / name for name in ("other", "cut", "bad"))
    save_file({"codes_IL": TABLE}, other)
    cut.write_bytes(b"x" * 20)
    save_file({"answers_YS": TABLE[:, :3]}, bad)
    for path, said in (
        (tmp_path / "none", "there is no such file of answers; write it with recast-train export vllm"),
        (other, r"holds \['codes_IL'\], no answers_YS; write it with recast-train export vllm"),
        (cut, "cannot be read as a file of answers"),
        (tmp_path, "is no ordinary file"),
        (bad, "answers: end with the tokens"),
    ):
        with pytest.raises(AnswerError, match=f"{path}: {said}"):
            read_answers(path)


SIDS = {"x": [0, 1], "y": [1, 1], "z": [1, 0]}
NAMES = ("<|sid_begin|>", "<|sid_end|>", "</think>", "<s_a_0>", "<s_a_1>", "<s_b_0>", "<s_b_1>")


def exported(folder: Path, monkeypatch: pytest.MonkeyPatch, *arguments: Any, names: tuple[str, ...] = NAMES) -> int:
    """The command's status for SIDS as a file of the user's."""
    text_tokenizer(names=names).save_pretrained(folder / "policy")
    (folder / "items.json").write_text(json.dumps(SIDS))
    own = [folder / "items.json", "--tokenizer", folder / "policy", "--out", folder / "answers.safetensors", *arguments]
    monkeypatch.setattr("sys.argv", ["recast-train", "export", "vllm", *map(str, own)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert isinstance(stop.value.code, int)
    return stop.value.code


def test_the_command_writes_every_items_answer_as_the_anchors_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exported(tmp_path, monkeypatch, "--before", "the", "--thought") == 0
    table, path = text_tokenizer(names=NAMES).get_vocab(), tmp_path / "answers.safetensors"
    said = capsys.readouterr().out
    assert f"{path}: 3 answers of 6 tokens." in said
    assert f"extra_args={{'recast': {{'answers': '{path}', 'after': {table['</think>']}}}}}" in said
    answers = [["the", NAMES[0], f"<s_a_{a}>", f"<s_b_{b}>", NAMES[1], "<eos>"] for a, b in sorted(SIDS.values())]
    assert read_answers(path).table_YS.tolist() == [[table[name] for name in answer] for answer in answers]
    assert exported(tmp_path, monkeypatch) == 2
    assert "exists already; choose another --out" in capsys.readouterr().err


def test_the_command_without_a_thought_as_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exported(tmp_path, monkeypatch, "--json") == 0
    path = tmp_path / "answers.safetensors"
    wanted = {"out": str(path), "answers": 3, "tokens": 5, "recast": {"answers": str(path), "after": None}}
    assert json.loads(capsys.readouterr().out) == wanted


def test_the_command_needs_a_tokenizer_with_every_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exported(tmp_path, monkeypatch, names=NAMES[:-2]) == 2
    assert "item x: the tokenizer has no token '<s_b_1>'" in capsys.readouterr().err
    assert exported(tmp_path, monkeypatch, names=(*NAMES[:-2], NAMES[-1])) == 2
    assert "item z: the tokenizer has no token '<s_b_0>'" in capsys.readouterr().err
    assert not (tmp_path / "answers.safetensors").exists()


def test_without_vllm_the_extra_is_named() -> None:
    code = "import sys; sys.modules['vllm'] = None; import recast_train.adapters.vllm.trie_processor"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError: recast_train.adapters.vllm.trie_processor needs vLLM's V1 engine (")
    assert last.endswith("); pip install 'recast-rl[vllm]'")


def test_the_package_loads_no_vllm() -> None:
    code = "import recast_train.adapters.vllm.answer_walk, recast_train.adapters.vllm.catalog_answers, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "recast_train.adapters.vllm.answer_trie" in done.stdout.split()
    assert "vllm" not in done.stdout.split()
