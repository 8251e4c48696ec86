"""TRL's completions: steps that only look like copies, content in parts, calls of tools, names of rewards."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from audit_dumps import audited, grouped, sizes, write, write_lines

from recast_analysis.audit.audit_error import AuditError

Row = dict[str, Any]
ROWS = [(prompt, rollout) for prompt in range(4) for rollout in range(4)]


def rows(step: int = 1, **columns: Callable[[int, int], Any]) -> list[Row]:
    """Prompt p has p hits; completions all differ. `columns` are functions of prompt and rollout."""
    shape: dict[str, Callable[[int, int], Any]] = {
        "prompt": lambda p, r: f"user {p}", "completion": lambda p, r: f"<a_{p}><b_{r}>", "hit": lambda p, r: float(r < p),
        **columns, "advantage": columns.get("advantage", lambda p, r: 0.0),
    }  # fmt: skip
    return [{"step": step, **{name: value(*row) for name, value in shape.items()}} for row in ROWS]


def dump(folder: Path, steps: dict[int, list[Row]]) -> Path:
    folder.mkdir()
    for step, table in steps.items():
        write(pl.DataFrame(table, infer_schema_length=None), folder / f"completions_{step:05d}.parquet")
    return folder


@pytest.mark.parametrize(
    "differing",
    [
        {"hit": lambda step: lambda p, r: float((step + p) % 4 == 0)},
        {"hit": lambda step: lambda p, r: float(r == 0 and p == step % 4)},  # as many hits in each step
        {"advantage": lambda step: lambda p, r: float(step)},  # of rewards that are not chosen
        {"prompt": lambda step: lambda p, r: f"step {step} user {p}"},
    ],
)
def test_collapsed_steps_with_other_rewards_or_prompts_are_no_copies(differing: dict[str, Any], tmp_path: Path) -> None:
    steps = {
        step: rows(step, **{"completion": lambda p, r: "<a_0>"} | {name: of(step) for name, of in differing.items()})
        for step in range(1, 6)
    }
    groups = grouped(dump(tmp_path / "a", steps))
    assert (sizes(groups), groups.repeated_steps, groups.alike_steps) == ([(4, 20)], 0, 0)


def test_rewards_of_the_same_completions_tell_steps_apart(tmp_path: Path) -> None:
    steps = {step: rows(step, hit=lambda p, r, step=step: float(r == step % 4)) for step in range(1, 6)}
    groups = grouped(dump(tmp_path / "a", steps))
    assert (sizes(groups), groups.repeated_steps, groups.alike_steps) == ([(4, 20)], 0, 0)


def test_steps_that_are_all_alike_count_and_are_named(tmp_path: Path) -> None:
    steps = {step: rows(step, completion=lambda p, r: "<a_0>", hit=lambda p, r: 0.0) for step in range(1, 6)}
    summary = audited(dump(tmp_path / "a", steps))
    assert (summary["dump"]["steps"], summary["dump"]["groups"], summary["dump"]["alike_steps"]) == (5, 20, 4)
    assert any(
        "4 steps hold the rows of the step before once more, and one completion a group" in w for w in summary["warnings"]
    )


def test_copies_of_a_step_are_left_out(tmp_path: Path) -> None:
    steps = {step: rows(step, hit=lambda p, r, step=step: float(r == step // 3)) for step in range(1, 6)}  # 1 1 | 3 3 3
    groups = grouped(dump(tmp_path / "a", steps))
    assert (sizes(groups), groups.repeated_steps) == ([(4, 8)], 3)


def message(content: Any, **more: Any) -> list[Row]:
    return [{"role": "assistant", "content": content, **more}]


def parts(*texts: str) -> list[Row]:
    return [{"type": "image", "text": None}, *({"type": "text", "text": text} for text in texts)]


MESSAGES: dict[str, dict[str, Callable[[int, int], Any]]] = {
    "text": {"prompt": lambda p, r: message(f"user {p}"), "completion": lambda p, r: message(f"<a_{p}><b_{r}>")},
    "parts": {
        "prompt": lambda p, r: message(parts("user", str(p))),
        "completion": lambda p, r: message(parts(f"<a_{p}>", f"<b_{r}>")),
    },
    "tool calls": {"completion": lambda p, r: message("", tool_calls=[{"name": "search", "arguments": f"{p} {r}"}])},
    "tool calls and no content": {"completion": lambda p, r: message(None, tool_calls=[{"name": "search", "item": r}])},
    "names": {"completion": lambda p, r: message("<a_1><b_2>", name=f"tool {r}")},
    "two messages": {"prompt": lambda p, r: message("be brief") + message(f"user {p}")},
    "roles of prompts": {"prompt": lambda p, r: [{"role": f"user {p}", "content": "hello"}]},
}  # fmt: skip


@pytest.mark.parametrize("name", MESSAGES)
@pytest.mark.parametrize("form", ["parquet", "lines"])
def test_messages_are_told_apart_by_all_that_they_say(name: str, form: str, tmp_path: Path) -> None:
    table = rows(**MESSAGES[name])
    path = dump(tmp_path / "a", {1: table}) if form == "parquet" else write_lines(tmp_path / "a.jsonl", table)
    summary = audited(path)
    assert summary["dump"]["group_sizes"] == [[4, 4]]
    assert summary["regimes"] == {"all_zero": 0.25, "single_hit": 0.25, "multi_hit": 0.5, "all_hit": 0.0}
    assert summary["duplicates"]["rollouts"] == 0
    if name == "parts":
        assert (summary["sids"]["levels"], summary["sids"]["malformed"]) == (2, 0)
        assert (summary["actor"]["mean_prompt"], summary["actor"]["mean_response"]) == (2, 2)


def test_messages_that_are_the_same_are_duplicates(tmp_path: Path) -> None:
    table = rows(completion=lambda p, r: message("", tool_calls=[{"name": "search", "item": r // 2}]))
    for path in (dump(tmp_path / "a", {1: table}), write_lines(tmp_path / "a.jsonl", table)):
        groups = grouped(path)
        assert groups.table["rows"].sum() - groups.table["distinct"].sum() == 8


def test_json_lines_may_mix_text_parts_and_calls(tmp_path: Path) -> None:
    def completion(p: int, r: int) -> list[Row]:
        kinds = message(f"<a_{p}><b_0>"), message([{"type": "text", "text": f"<a_{p}><b_1>"}]), message(None, call=p), []
        return kinds[r]

    summary = audited(write_lines(tmp_path / "a.jsonl", rows(completion=completion)))
    assert summary["duplicates"]["rollouts"] == 0
    assert (summary["sids"]["levels"], summary["sids"]["missing"]) == (2, 0.5)
    odd = rows(completion=lambda p, r: message(5))
    with pytest.raises(AuditError, match=r"'completion' .* write it as text, token ids or messages with text"):
        audited(write_lines(tmp_path / "odd.jsonl", odd))


REWARDS = {"a+b": 0.25, "a": 0.5, "b": 2.0, "c": 4.0}


@pytest.mark.parametrize(
    ("given", "columns", "reward"),
    [
        ("a+b", ("a", "a+b", "b"), 0.25),  # the column of that name
        ("b+a", ("a", "a+b", "b"), 2.5),
        ("a+b+c", ("a+b", "c"), 4.25),
        ("c+a+b", ("a+b", "c"), 4.25),
        ("a+b", ("a", "b"), 2.5),
        ("a+b", ("a+b", "c"), 0.25),
    ],
)
def test_a_rewards_name_may_hold_a_plus(given: str, columns: tuple[str, ...], reward: float, tmp_path: Path) -> None:
    table = pl.DataFrame(rows()).drop("hit").with_columns(pl.lit(REWARDS[name]).alias(name) for name in columns)
    table = grouped(write(table, tmp_path / "a.parquet"), columns=[f"reward={given}"]).table
    assert (table["reward_low"].min(), table["reward_high"].max()) == (reward, reward)


def test_a_sum_of_rewards_with_two_readings_is_refused(tmp_path: Path) -> None:
    table = pl.DataFrame(rows()).with_columns(pl.lit(1.0).alias(name) for name in ("a", "b+c", "a+b", "c"))
    path = write(table, tmp_path / "a.parquet")
    with pytest.raises(AuditError, match=r"columns: reward='a\+b\+c' can be read as \('a', 'b\+c'\) or as \('a\+b', 'c'\)"):
        audited(path, columns=["reward=a+b+c"])
    with pytest.raises(AuditError, match=r"no column 'x' .*; mend --columns reward="):
        audited(path, columns=["reward=a+x"])


def test_a_prompt_drawn_twice_is_named_when_all_are(tmp_path: Path) -> None:
    again = rows(completion=lambda p, r: f"<a_{p}><b_{r + 4}>")
    summary = audited(dump(tmp_path / "a", {1: rows() + again}))
    assert summary["dump"]["group_sizes"] == [[8, 4]]
    assert any("the rows of 4 of 4 groups do not stand together" in words for words in summary["warnings"])
