"""Figures of an audit on groups made by hand, and the command that prints and writes them."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from audit_dumps import FIXTURES, rollouts, write

from recast_analysis.audit.actor_corners import actor_corners
from recast_analysis.audit.audit_error import AuditError
from recast_analysis.audit.figures_of_audit import audit_summary, steps_table
from recast_analysis.audit.reading.dump_groups import read_groups
from recast_analysis.audit.reading.sid_text import find_rules, unread_sid
from recast_analysis.cli import main


def by_hand(tmp_path: Path, groups: list[list[float]], **columns: Any) -> pl.DataFrame:
    """One step; a group for each list of rewards, completions all different."""
    rewards = [reward for group in groups for reward in group]
    group = [place for place, group in enumerate(groups) for _ in group]
    text = [f"word {place}" for place in range(len(rewards))]
    return pl.DataFrame({"step": 1, "prompt_id": group, "reward": rewards, "completion": text}).with_columns(**columns)


def summary_of(table: pl.DataFrame, folder: Path, hit_above: float = 0.5, **options: Any) -> dict[str, Any]:
    return audit_summary(read_groups([write(table, folder / "a.parquet")], hit_above, **options))


def test_regimes_learnable_waste_and_duplicates(tmp_path: Path) -> None:
    groups = [[0.0] * 4, [0.0] * 4, [1.0, 0, 0, 0], [1.0, 1, 0, 0], [1.0] * 4]
    table = by_hand(tmp_path, groups).with_columns(completion=pl.Series([*["one"] * 3, *[f"the word {i}" for i in range(17)]]))
    summary = summary_of(table, tmp_path)
    assert summary["regimes"] == pytest.approx({"all_zero": 0.4, "single_hit": 0.2, "multi_hit": 0.2, "all_hit": 0.2})
    assert summary["learnable"] == {"before": pytest.approx(0.4), "after_repair": pytest.approx(0.8), "targets": None}
    assert summary["waste"]["rollouts"] == 12
    assert summary["waste"]["length"] == 3 + 9 * 3  # words
    assert summary["waste"]["length_share"] == pytest.approx(30 / 54)
    assert summary["duplicates"]["rollouts"] == 2
    assert summary["duplicates"]["groups_share"] == pytest.approx(0.2)
    assert summary["actor"] is None  # no prompts
    assert summary["warnings"] == []


def test_rewards_that_are_not_binary(tmp_path: Path) -> None:
    groups = [[0.1, 0.1, 0.1], [0.2, 0.1, 0.1], [1.5, 0.1, 0.1]]
    summary = summary_of(by_hand(tmp_path, groups), tmp_path)
    assert summary["regimes"]["all_zero"] == pytest.approx(2 / 3)
    assert summary["waste"]["rollouts"] == 3  # the second group has no hit, but an advantage
    assert any("9 rewards are neither 0 nor 1 (0.1 to 1.5); a hit is above 0.5" in words for words in summary["warnings"])
    assert summary_of(by_hand(tmp_path, groups), tmp_path, 0.15)["regimes"]["all_zero"] == pytest.approx(1 / 3)
    none = summary_of(by_hand(tmp_path, groups), tmp_path, 2.0)
    assert "no group has a hit" in none["fits"]["all steps"]["refused"]
    assert any("no reward is above 2; is --hit-above right?" in words for words in none["warnings"])


def test_groups_of_odd_sizes_and_targets_that_are_empty(tmp_path: Path) -> None:
    table = by_hand(tmp_path, [[0.0, 1], [1.0, 0], [0.0, 0, 1]], target=pl.lit(None, pl.String))
    words = summary_of(table, tmp_path)["warnings"]
    assert any("1 of 3 groups have no multiple of 2 rows" in word for word in words)
    assert any("the first rows name no target" in word for word in words)


def test_the_fit_is_of_each_window_and_says_where_it_does_not_fit(tmp_path: Path) -> None:
    table = rollouts(4000, 8, steps=8, beta=(1.0, 9.0)).drop("prompt")
    fits = summary_of(table, tmp_path)["fits"]
    assert fits["all steps"]["a"] == pytest.approx(1.0, abs=0.25)  # three standard errors
    assert fits["all steps"]["p_value"] > 0.01
    assert [fit["groups"] for fit in fits.values()] == [4000, 1000, 1000]
    assert sum(fits["all steps"]["expected_K"]) == pytest.approx(4000)
    assert sum(fits["all steps"]["observed_K"]) == 4000
    own = next(row for row in fits["all steps"]["sizes"] if row["group_size"] == 8)
    assert own["all_zero"] == pytest.approx(fits["all steps"]["observed_K"][0] / 4000, abs=0.02)
    assert own["learnable_per_1000_rollouts"] == pytest.approx(1000 * own["learnable"] / 8)
    assert fits["all steps"]["best_group_size"]["prompt_free"] == 2
    two = table.with_columns(reward=(pl.col("prompt_id") % 2 * (pl.int_range(pl.len()) % 8 < 7)).cast(pl.Float64))
    assert any("does not fit the hits of all steps" in words for words in summary_of(two, tmp_path)["warnings"])


def test_four_corners_are_the_token_counts() -> None:
    """G (P + R) / (P + 2 (R - 1)) for groups all alike, and less where a group of hits alone has no pair."""
    G, P, R = 32, 512, 4
    alike = pl.DataFrame({"rows": [G], "hits": [0], "prompt_length": [G * P], "response_length": [G * R]})
    corners = actor_corners(pl.concat([alike] * 3))
    assert corners is not None
    assert corners["factors"]["pair_shared"] == pytest.approx(G * (P + R) / (P + 2 * (R - 1)))
    assert corners["factors"]["pair_repeated"] == pytest.approx(16)
    assert corners["factors"]["all_rows_shared"] == pytest.approx(G * (P + R) / (P + G * (R - 1)))
    half = actor_corners(pl.concat([alike, alike.with_columns(hits=pl.lit(G, pl.Int64))]))
    assert half is not None
    assert half["factors"]["pair_repeated"] == pytest.approx(32)
    assert half["groups_with_a_pair"] == 0.5
    assert actor_corners(alike.drop("prompt_length")) is None


def test_sids_are_missing_malformed_or_unknown(tmp_path: Path) -> None:
    texts = [
        "<think> <s_a_9> </think> <|sid_begin|><s_a_1><s_b_2><s_c_3><|sid_end|>", "<s_a_1><s_b_2><s_c_4> <s_a_1>",
        "<s_a_1><s_b_2>", "<s_b_1><s_a_2><s_c_3>", "<think> <s_a_1> </think> none", "<s_a_1><s_b_2><s_c_3><s_d_4>",
    ]  # fmt: skip
    table = by_hand(tmp_path, [[1.0, 0, 0], [0.0, 0, 0]]).with_columns(completion=pl.Series(texts))
    items = tmp_path / "items"
    for content in ('{"7": ["<s_a_1>", "<s_b_2>", "<s_c_3>"]}', "<s_a_1><s_b_2><s_c_3>\n\n"):
        items.write_text(content)
        sids = summary_of(table, tmp_path, items=items)["sids"]
        shares = {name: sids[name] * 6 for name in ("missing", "malformed", "unknown")}
        assert shares == pytest.approx({"missing": 1, "malformed": 3, "unknown": 1})
    found = summary_of(table, tmp_path)
    assert (found["sids"]["levels"], found["sids"]["malformed"] * 6) == (3, pytest.approx(3))
    assert "unknown" not in found["sids"]
    assert any("no response comes twice in any group, as in beam search" in words for words in found["warnings"])
    assert summary_of(by_hand(tmp_path, [[1.0, 0]]), tmp_path)["sids"] is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no items"),
        ('{"a": 1', "not readable as items"),
        ("<a_1><b_2>\n<a_1>\n", "line 2: found '<a_1>'; write an SID of 2 levels"),
        ('{"x": ["<b_1>"]}', "item 'x': found \\['<b_1>'\\]; write an SID"),
        ('{"x": "<a_1><b_2>", "x": "<a_1><b_3>"}', "the key 'x' is there twice"),
        ("<a_1><b_2>\n<a_1>\0<b_3>\n", "line 2: holds a NUL"),
        ("title\n", "line 1: found 'title'"),
        ("<s_a_1>", "SIDs such as <s_a_1>, but the responses hold such as <a_1><b_2>"),
    ],
)
def test_items_that_cannot_be_used(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "items").write_text(content)
    with pytest.raises(AuditError, match=message):
        find_rules(["<a_1><b_2>"], tmp_path / "items")
    with pytest.raises(AuditError, match="none of the first 1 responses holds an SID"):
        find_rules(["text"], tmp_path / "items")


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["recast-report", "audit", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0)


def test_the_command_prints_and_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, FIXTURES / "verl-0.9.1", "--out", tmp_path / "out") == 0
    printed = capsys.readouterr().out
    rule = "(by step and 'uid' without the two numbers that verl appends), 3 steps (1 to 3)"
    assert f"verl, JSON lines: 288 rollouts in 36 groups of 8 {rule}" in printed
    assert "all rows, prompt repeated" in printed
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert names == {"audit.json", "steps.parquet", "groups.parquet", "figure.png", "figure.pdf"}
    written = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert run(monkeypatch, FIXTURES / "verl-0.9.1", "--json") == 0
    assert json.loads(capsys.readouterr().out) == written
    steps, groups = (pl.read_parquet(tmp_path / "out" / f"{name}.parquet") for name in ("steps", "groups"))
    assert steps.equals(steps_table(groups))
    assert np.average(steps["all_zero"], weights=steps["groups"]) == pytest.approx(written["regimes"]["all_zero"])


def test_the_figure_says_what_a_dump_does_not_give(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = rollouts(6, steps=1).select("step", "prompt_id", reward=pl.lit(0.0))  # one step, no hit, no length
    assert run(monkeypatch, write(table, tmp_path / "a.csv"), "--out", tmp_path / "out") == 0
    assert (tmp_path / "out" / "figure.pdf").stat().st_size > 10_000


def test_an_error_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.jsonl").write_text('{"input": "a"')
    assert run(monkeypatch, tmp_path / "a.jsonl") == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith(f"recast-report: error: {tmp_path / 'a.jsonl'}: line 1: not JSON")


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["thus <A_1><B_20> ", "<A_2><B_3>", "none"], "<A_1><B_20>"),
        (["[a_1], [b_2]", "[a_3], [b_4]"], "[a_1], [b_2]"),
        (["<|s_a_1|><|s_b_2|>"], "<|s_a_1|><|s_b_2|>"),
        (["<a_1><b_2>"], None),  # read
        (["as in [1] and [2]", "item 12", "<A_1><B_2>"], None),  # not in most
        ([], None),
    ],
)
def test_ids_in_another_notation_are_noticed(texts: list[str], said: str | None) -> None:
    assert unread_sid(texts) == said
