"""Files that are no parts of one dump: copies, resumed runs, validation beside training. Nothing is pooled in silence."""

import os
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from audit_dumps import as_trl, audited, grouped, rollouts, sizes, verl_step, write, write_lines, write_steps

from recast_analysis.audit.audit_error import AuditError


def refusal(*paths: Path, **options: Any) -> str:
    with pytest.raises(AuditError) as caught:
        grouped(*paths, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("shape", [{}, {"uid": lambda p, r: f"train_1_{p}"}, {"uid": lambda p, r: f"q{p}_{r}_0"}])
def test_a_copied_file_is_named(shape: dict[str, Any], tmp_path: Path) -> None:
    write_steps(tmp_path, (1, 2, 3), **shape)
    write_lines(tmp_path / "2 (copy).jsonl", verl_step(2, **shape)[::-1])
    assert f"{tmp_path / '2.jsonl'}: holds the same rows as {tmp_path / '2 (copy).jsonl'}; leave one" in refusal(tmp_path)


def test_a_step_that_stands_in_two_files_is_named(tmp_path: Path) -> None:
    first = write_steps(tmp_path / "first", (1, 2, 3, 4))
    resumed = write_steps(tmp_path / "resumed", (3, 4, 5), output=lambda p, r: f"other {p} {r}")
    message = refusal(first, resumed)
    assert (
        f"dumps: steps 3, 4 in both {first / '3.jsonl'} and {resumed / '3.jsonl'}, but verl writes a step into one" in message
    )
    write_lines(first / "part.jsonl", verl_step(2)[:5])
    assert "dumps: step 2 in both" in refusal(first)
    trl = write(as_trl(rollouts(8)).filter(pl.col("step") < 3), tmp_path / "completions_1.parquet")
    other = write(as_trl(rollouts(8, seed=1)), tmp_path / "completions_2.parquet")
    assert "dumps: steps 1, 2 in both" in (message := refusal(trl, other))
    assert "but trl writes a step into one file" in message


def test_the_folder_above_several_dumps_is_refused(tmp_path: Path) -> None:
    rollout = write_steps(tmp_path / "run" / "rollout", (1, 2, 3), uid=lambda p, r: f"q{p}_{r}_0")
    for steps in ((1, 3), (0, 10)):
        validation = write_steps(tmp_path / "run" / "validation", steps, group_size=1, uid=lambda p, r: f"v{p}")
        assert f"{tmp_path / 'run'}: holds rollouts in 2 folders (rollout, validation)" in refusal(tmp_path / "run")
        for file in validation.iterdir():
            file.unlink()
    (tmp_path / "run" / "validation").rmdir()
    assert sizes(grouped(tmp_path / "run")) == [(4, 18)]
    write_steps(rollout / "backup", (1, 2))
    assert "holds rollouts in 2 folders (., backup)" in refusal(rollout)


@pytest.mark.parametrize(("steps", "size"), [((0, 10), 1), ((0, 10), 4), ((7, 9), 1)])
def test_folders_named_one_by_one_are_one_run_or_refused(steps: tuple[int, ...], size: int, tmp_path: Path) -> None:
    rollout = write_steps(tmp_path / "rollout", (1, 2, 3))
    validation = write_steps(tmp_path / "validation", steps, group_size=size)
    message = refusal(rollout, validation)
    assert f"validation (groups of {size}, steps {steps[0]} to {steps[1]})" in message
    assert "are no parts of one run; audit them apart" in message


def test_a_run_that_went_on_in_a_second_folder_is_read(tmp_path: Path) -> None:
    folders = write_steps(tmp_path / "first", (1, 2)), write_steps(tmp_path / "second", (3, 4, 5))
    groups = grouped(*folders)
    assert (sizes(groups), groups.folders) == ([(4, 30)], 2)


def test_a_file_counts_once_however_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_steps(tmp_path / "dump", (1, 2))
    (tmp_path / "link").symlink_to(tmp_path / "dump")
    monkeypatch.chdir(tmp_path)
    for paths in (["dump", "dump"], ["dump", str(tmp_path / "dump")], ["dump/1.jsonl", "dump"], ["dump", "link"]):
        groups = grouped(*map(Path, paths))
        assert (groups.files, sizes(groups)) == (2, [(4, 12)])


def test_tables_may_be_parts_and_say_so(tmp_path: Path) -> None:
    table = rollouts(24)
    parts = [write(table.gather_every(2, place), tmp_path / f"rank-{place}.csv") for place in range(2)]
    summary = audited(*parts)
    assert summary["dump"]["group_sizes"] == [[8, 24]]
    assert any("the rows of 4 of 4 steps stand in several files and are pooled" in words for words in summary["warnings"])
    one, two = write(table.head(70), tmp_path / "a.csv"), write(table.tail(-70), tmp_path / "b.csv")
    assert grouped(one, two).pooled_steps == 1
    assert grouped(write(table, tmp_path / "whole.csv")).pooled_steps == 0


def test_tables_that_are_copies_or_resumed_are_refused(tmp_path: Path) -> None:
    table, again = rollouts(24), rollouts(24, seed=1)
    whole = write(table, tmp_path / "a.csv")
    assert "b.csv: holds the same rows as" in refusal(whole, write(table, tmp_path / "b.csv"))
    resumed = write(again.filter(pl.col("step") > 2).with_columns(step=pl.col("step") + 0), tmp_path / "c.csv")
    message = refusal(whole, resumed)
    assert "dumps: steps 3, 4 in both" in message
    assert "but other steps have far fewer rows" in message


def test_copies_inside_one_file_are_named(tmp_path: Path) -> None:
    rows = [row for step in (1, 2, 3) for row in verl_step(step)]
    twice = audited(write_lines(tmp_path / "twice.jsonl", rows + rows))
    assert twice["dump"]["group_sizes"] == [[8, 18]]
    assert any("each row stands in its group an even number of times" in words for words in twice["warnings"])
    few = verl_step(1, prompts=3)
    assert grouped(write_lines(tmp_path / "few.jsonl", few + few)).signs["doubled"] == 3
    pairs = verl_step(1, prompts=5, output=lambda p, r: str(r // 2), score=lambda p, r: 0.0)
    assert grouped(write_lines(tmp_path / "pairs.jsonl", pairs)).signs["doubled"] == 0  # so few completions may do so by chance
    resumed = rows + [row for step in (3, 4) for row in verl_step(step, output=lambda p, r: f"other {p} {r}")]
    words = audited(write_lines(tmp_path / "resumed.jsonl", resumed))["warnings"]
    assert any("a multiple of the rows that most steps have is in step 3;" in word for word in words)
    assert any("6 of 24 groups have a multiple of 4 rows" in word for word in words)
    uids = [row | {"uid": f"{run} {row['input']}"} for run in "ab" for row in rows]
    words = audited(write_lines(tmp_path / "runs.jsonl", uids))["warnings"]
    assert any("36 of 36 groups have the prompt and target of another group of their step" in word for word in words)


@pytest.mark.parametrize("how", ["pipe", "device", "link to nothing", "link to itself"])
def test_a_step_that_is_no_file_is_not_left_out_unseen(how: str, tmp_path: Path) -> None:
    dump = write_steps(tmp_path / "dump", (1, 2, 3))
    (dump / "2.jsonl").unlink()
    if how == "pipe":
        os.mkfifo(dump / "2.jsonl")
    else:
        to = {"device": "/dev/zero", "link to nothing": "gone", "link to itself": "2.jsonl"}[how]
        (dump / "2.jsonl").symlink_to(to)
    assert refusal(dump).startswith(f"{dump / '2.jsonl'}: ")
    assert refusal(dump / "2.jsonl").startswith(f"{dump / '2.jsonl'}: ")


def test_a_linked_folder_is_not_left_out_unseen(tmp_path: Path) -> None:
    dump, more = write_steps(tmp_path / "dump", (1, 2)), write_steps(tmp_path / "more", (3, 4))
    (dump / "more").symlink_to(more)
    assert f"{dump / 'more'}: is a link to a folder, which is not followed; name that folder" in refusal(dump)
    (tmp_path / "latest").symlink_to(more)
    assert sizes(grouped(tmp_path / "latest")) == [(4, 12)]


@pytest.mark.parametrize("column", ["prompt", "group"])
def test_values_of_two_kinds_are_no_one_dump(column: str, tmp_path: Path) -> None:
    names = {"prompt": "input", "group": "uid"}
    for step, value in ((1, lambda p, r: f"q{p}"), (2, lambda p, r: p)):
        rows = verl_step(step, **{names[column]: value})
        pl.DataFrame(rows).write_parquet(tmp_path / f"{step}.parquet")
    assert f"{column} {names[column]} of numbers" in refusal(tmp_path)
