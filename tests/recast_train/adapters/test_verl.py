"""What the verl adapter does without verl: its reward, its anchors, its options, and the data set that it writes."""

import json
from itertools import zip_longest
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from data_files import CHATS, SIDS, chat, item_name, open_sid, write_openonerec
from hypothesis import given, settings
from hypothesis import strategies as st
from text_world import text_tokenizer

from recast_sim.configio import ConfigError
from recast_sim.signal import SignalConfig, SignalError, construct, list_constructors
from recast_sim.signal.declared import declared_width
from recast_train.adapters.flat_rows import select_rows, spread_levels
from recast_train.adapters.verl import parquet_export as export_module
from recast_train.adapters.verl.anchors import AnchorTokens, anchor_row, row_lengths
from recast_train.adapters.verl.handover import mark, marked_by
from recast_train.adapters.verl.options import SamplerConfig, read_sampler_config
from recast_train.adapters.verl.parquet_export import AnswerTokens, export_openonerec
from recast_train.adapters.verl.reward import compute_score
from recast_train.cli import main
from recast_train.data import DataError

pytestmark = pytest.mark.adapters
SID_NAMES = sorted({f"{part}>" for item in SIDS for part in item_name(item).split(">")[:-1]})
NAMES = ("<|sid_begin|>", "<|sid_end|>", "</think>", *SID_NAMES)
codes = st.lists(st.tuples(*[st.integers(0, 2)] * 3), min_size=1, max_size=4)


def text_of(sids: list[tuple[int, ...]], marks: bool = True) -> str:
    inner = ["".join(f"<s_{letter}_{code}>" for letter, code in zip("abc", sid, strict=True)) for sid in sids]
    return "".join(f"<|sid_begin|>{sid}<|sid_end|>" if marks else sid for sid in inner)


def structural_by_hand(found: list[tuple[int, ...]], targets: list[tuple[int, ...]]) -> float:
    """The definition of arXiv 2604.22169 over the list, as OpenOneRec's own score, in plain Python."""

    def phi(sid: tuple[int, ...], target: tuple[int, ...]) -> float:
        shared = next((level for level in range(3) if sid[level] != target[level]), 3)
        return (0.0, 0.01, 0.1, 1.0)[shared]

    return sum(max(phi(sid, target) for target in targets) for sid in found) / len(found)


@pytest.mark.property
@settings(max_examples=50, deadline=None)
@given(codes, codes, st.booleans(), st.booleans())
def test_the_reward_is_the_first_sid_after_the_thought(found: Any, targets: Any, marks: bool, thought: bool) -> None:
    said = f"<think>{text_of(targets)}</think>" if thought else ""
    scored = compute_score("d", f"{said} so: {text_of(found, marks)}", text_of(targets))
    assert scored["score"] == float(found[0] in targets)
    assert scored["structural"] == pytest.approx(structural_by_hand(found, targets))


@pytest.mark.parametrize(
    ("answer", "thinks", "wanted"),
    [
        ("<s_a_1><s_b_2><s_c_0>", False, (1, 1)),
        ("<s_a_1><s_b_2>", False, (0, 0)),  # not whole
        ("<s_a_1><s_b_2><s_c_0><s_d_0>", False, (0, 0)),  # a level too many
        ("<s_a_1><s_c_2><s_b_0>", False, (0, 0)),  # levels out of order
        ("<s_a_1> <s_b_2> <s_c_0>", False, (1, 1)),  # as some tokenizers decode
        ("nothing", False, (0, 0)),
        ("<think>it is <s_a_1><s_b_2><s_c_0>", True, (0, 0)),  # the thought was cut off
        ("well</think><s_a_1><s_b_2><s_c_0>", True, (1, 1)),
        ("<s_a_1><s_b_2><s_c_1><s_a_1><s_b_2><s_c_0>", False, (0, 0.55)),  # the second one comes too late
    ],
)
def test_rewards_by_hand(answer: str, thinks: bool, wanted: tuple[float, float]) -> None:
    extra_info = {"recast": {"anchors": [], "thought_end": 5 if thinks else None}}
    scored = compute_score("d", answer, "<|sid_begin|><s_a_1><s_b_2><s_c_0><|sid_end|>", extra_info)
    assert (scored["score"], scored["structural"]) == pytest.approx(wanted)


def test_a_ground_truth_without_an_sid_is_an_error() -> None:
    with pytest.raises(ValueError, match="ground_truth: '42' of d"):
        compute_score("d", "x", "42")


@pytest.mark.parametrize("constructor", [c for c in list_constructors() if not c.needs], ids=lambda c: c.name)
def test_the_width_of_a_constructor_bounds_its_rows(constructor: Any) -> None:
    P, G = 6, 12
    rewards = torch.rand(P, G, generator=torch.Generator().manual_seed(1)).gt(0.8).float()
    rewards[0] = 1.0  # a constructor of hits alone is at its width where every row is a hit
    signal = construct(constructor, rewards, rewards / 2, has_anchor_P=torch.ones(P, dtype=torch.bool))
    rows_P = (signal.plan.rows_N // signal.group_size).bincount(minlength=P)
    assert int(rows_P.max()) == declared_width(constructor.width, G, SignalConfig())


def test_options_come_from_verls_keyword_arguments() -> None:
    assert read_sampler_config({}) == SamplerConfig()
    read = read_sampler_config({"constructor": "hybrid", "signal": {"w_minus": 0.5}, "seed": 3})
    assert read == SamplerConfig("hybrid", SignalConfig(w_minus=0.5), seed=3)
    for bad, said in (
        ({"constructer": "x"}, "constructer"),
        ({"signal": {"w_minus": "much"}}, "w_minus"),
        ({"signal": 3}, "signal"),
    ):
        with pytest.raises(ConfigError, match=said):
            read_sampler_config(bad)


def test_marks_say_who_handed_rows_over() -> None:
    assert marked_by([mark("recast", "a_0_0"), mark("recast", "b_1_0")]) == "recast"
    assert marked_by(["a", "b"]) is marked_by([]) is None
    for mixed in ([mark("recast", "a"), "b"], [mark("recast", "a"), mark("sft", "b")]):
        with pytest.raises(SignalError, match="uid: rows handed over by"):
            marked_by(mixed)


def rollout(**more: Any) -> dict[str, Any]:
    own = {"prompts": torch.tensor([5, 6]), "responses": torch.tensor([7, 9, 8]), "position_ids": torch.arange(5)}
    return {**own, "extra_info": {}, "num_turns": 2, "attention_mask": torch.ones(5), **more}


def test_an_anchors_row_fits_its_tokens() -> None:
    row = anchor_row(rollout(), torch.tensor([7, 9, 1, 2, 3]))
    assert row["input_ids"].tolist() == [5, 6, 7, 9, 1, 2, 3]
    assert {name: len(row[name]) for name in ("response_mask", "loss_mask", "responses")} == dict.fromkeys(
        ("response_mask", "loss_mask", "responses"), 5
    )
    assert len(row["attention_mask"]) == len(row["position_ids"]) == 7
    assert row["num_turns"] == 2
    assert row_lengths(row) == {"prompt_len": 2, "response_len": 5, "seq_len": 7}


@pytest.mark.parametrize("field", [{"rollout_log_probs": torch.zeros(3)}, {"position_ids": torch.zeros(3, 5)}])
def test_a_row_that_no_anchor_can_copy_is_refused(field: dict[str, Any]) -> None:
    with pytest.raises(SignalError, match="which an anchor has not"):
        anchor_row(rollout(**field), torch.tensor([1]))


def test_a_thought_ends_at_its_first_end() -> None:
    anchors = AnchorTokens.of({"recast": {"anchors": [[1, 2], [3]], "thought_end": 9}})
    thought = anchors.thought(torch.tensor([7, 9, 8, 9]))
    assert thought is not None
    assert thought.tolist() == [7, 9]
    assert anchors.thought(torch.tensor([7, 8])) is None
    drawn = {tuple(anchors.choose("random", torch.Generator().manual_seed(seed)).tolist()) for seed in range(20)}
    assert drawn == {(1, 2), (3,)}
    assert anchors.choose("first", torch.Generator()).tolist() == [1, 2]
    plain = AnchorTokens.of({"recast": {"anchors": [[1]], "thought_end": None}}).thought(torch.tensor([7]))
    assert plain is not None
    assert len(plain) == 0
    assert AnchorTokens.of({"index": 3}) == AnchorTokens.of(None) == AnchorTokens()


def tokens(**more: Any) -> AnswerTokens:
    return AnswerTokens(text_tokenizer(names=NAMES), **more)


def test_codes_are_read_behind_the_thought_and_spread_over_the_tokens() -> None:
    """Answers are begin 2, codes of two levels, end 3; 9 closes a thought."""
    own = {"anchors": [[2, 10, 20, 3], [2, 11, 21, 3]], "thought_end": 9, "codes": [1, 2]}
    anchors = AnchorTokens.of({"recast": own})
    assert anchors.sid(torch.tensor([7, 9, 2, 10, 21, 3])) == ([10, 21], 3)
    assert anchors.sid(torch.tensor([7, 9, 2, 10])) == ([10, -1], 3)
    assert anchors.sid(torch.tensor([7, 7])) == ([-1, -1], 2)
    assert anchors.targets() == [[10, 20], [11, 21]]
    numbers = spread_levels(torch.tensor([[0.5, -1.0]]), torch.tensor([3]), 6)
    assert numbers.tolist() == [[0.5, 0.5, 0.5, 0.5, -1.0, -1.0]]
    with pytest.raises(SignalError, match=r"extra_info: no 'codes', which .*; run recast-train export verl again"):
        AnchorTokens.of({"recast": own | {"codes": None}}).targets()


def test_flat_rows_of_credit_by_level_are_those_of_groups() -> None:
    """Rows in any order, one group of two and one of three."""
    sids = [[1, 2], [1, 5], [8, 8], [3, 4], [3, 5]]
    targets = [[[1, 2]], [[1, 2]], [[3, 4]], [[3, 4]], [[3, 4]]]
    rows = ([0, 0, 1, 1, 1], [1.0, 0.0, 0.0, 1.0, 0.0], [1.0, 0.1, 0.0, 1.0, 0.1])
    order = [4, 0, 3, 1, 2]
    group, reward, score = ([column[r] for r in order] for column in rows)
    told = {"sids_RL": [sids[r] for r in order], "targets_RTL": [targets[r] for r in order]}
    kept = select_rows("recast_masked", group, reward, score, has_anchor_R=[True] * 5, **told)
    found = {order[r]: numbers for r, numbers in zip(kept.row_N.tolist(), kept.coefficient_NL.tolist(), strict=True)}
    assert found == {0: [1, 1], 1: [0, -1], 3: [1, 1], 4: [0, -1]}
    with pytest.raises(SignalError, match="recast_masked is level-wise; read coefficient_NL"):
        _ = kept.coefficient_N


def test_the_data_set_holds_chats_targets_and_anchors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, own = write_openonerec(tmp_path / "data"), tokens(before=" the ", thought=True)
    written = export_openonerec(source, tmp_path / "out", own, "mine")
    assert written == {"train": 3, "validation": 1, "test": 2}
    table = own.tokenizer.get_vocab()
    for split, name in (("train", "train"), ("valid", "validation"), ("test", "test")):
        rows = pl.read_parquet(tmp_path / "out" / f"{name}.parquet").to_dicts()
        for place, (row, (history, targets)) in enumerate(zip_longest(rows, CHATS[split])):
            system, user, _ = chat(history, targets)
            assert row["prompt"] == [system, user]  # content is one string, also where the file has parts
            assert row["reward_model"] == {"style": "rule", "ground_truth": "".join(map(open_sid, targets))}
            assert (row["data_source"], row["extra_info"]["index"], row["extra_info"]["split"]) == ("mine", place, name)
            recast = row["extra_info"]["recast"]
            assert recast["thought_end"] == table["</think>"]
            for target, ids in zip(targets, recast["anchors"], strict=True):
                inner = [table[f"{part}>"] for part in item_name(target).split(">")[:-1]]
                assert ids == [table["the"], table["<|sid_begin|>"], *inner, table["<|sid_end|>"], table["<eos>"]]
                first, levels = recast["codes"]
                assert ids[first : first + levels] == inner
            assert compute_score("mine", "x</think>" + open_sid(targets[0]), row["reward_model"]["ground_truth"])["score"] == 1
    monkeypatch.setattr(export_module, "BATCH", 2)
    export_openonerec(source, tmp_path / "again", own, "mine")
    assert pl.read_parquet(tmp_path / "again" / "train.parquet").equals(pl.read_parquet(tmp_path / "out" / "train.parquet"))


def test_a_bad_row_stops_the_export_and_leaves_nothing(tmp_path: Path) -> None:
    source = write_openonerec(tmp_path / "data")
    texts = [json.dumps(chat(["0"], ["1"])), json.dumps(chat(["0"], ["1"])[:1])]
    pl.DataFrame({"messages": texts}).write_parquet(source / "train.parquet")
    with pytest.raises(DataError, match=r"train.parquet: row 1, column messages: the last message is of 'system'"):
        export_openonerec(source, tmp_path / "out", tokens(), "mine")
    assert not list(tmp_path.glob("*out*"))


def test_a_tokenizer_without_the_sids_is_refused(tmp_path: Path) -> None:
    source = write_openonerec(tmp_path / "data")
    lacking = AnswerTokens(text_tokenizer(names=[name for name in NAMES if name != "<s_c_1>"]))
    with pytest.raises(DataError, match=r"test.parquet: row 0, column messages: the tokenizer has no token '<s_c_1>'"):
        export_openonerec(source, tmp_path / "out", lacking, "mine")
    with pytest.raises(DataError, match="--thought: the tokenizer has no token '</think>'"):
        export_openonerec(source, tmp_path / "out", AnswerTokens(text_tokenizer(), thought=True), "mine")


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_openonerec(tmp_path / "data")
    text_tokenizer(names=NAMES).save_pretrained(tmp_path / "policy")

    def call(*arguments: object) -> int:
        monkeypatch.setattr("sys.argv", ["recast-train", "export", "verl", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        assert isinstance(stop.value.code, int)
        return stop.value.code

    both = ("--tokenizer", tmp_path / "policy", "--out", tmp_path / "out")
    assert call(source, *both, "--json") == 0
    assert json.loads(capsys.readouterr().out)["rows"] == {"train": 3, "validation": 1, "test": 2}
    for arguments, said in (
        ((source, *both), "exists already"),
        ((source,), "tokenizer: missing"),
        ((tmp_path / "no", *both), "no such"),
    ):
        assert call(*arguments) == 2
        assert said in capsys.readouterr().err
