"""Which rows are one group: verl's uids, prompts with several targets, and warnings that hold when every group is affected."""

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from audit_dumps import audited, grouped, sizes, verl_step, write, write_lines, write_steps

from recast_analysis.audit.audit_error import AuditError

CUT = "'uid' without the two numbers that verl appends"
LITERAL = "'uid' as it stands"


def verls(prompt: int) -> str:
    return str(uuid.UUID(int=prompt))


UIDS: dict[str, tuple[Callable[[int, int], Any], str]] = {
    "verl's keys": (lambda p, r: f"{verls(p)}_{r}_0", CUT),
    "two outputs a session": (lambda p, r: f"{verls(p)}_{r // 2}_{r % 2}", CUT),
    "a readable id with verl's numbers": (lambda p, r: f"train_1_{p}_{r}_0", CUT),
    "a date with verl's numbers": (lambda p, r: f"2024_01_{p:02d}_{r}_0", CUT),
    "a readable id": (lambda p, r: f"train_1_{p}", LITERAL),
    "a date": (lambda p, r: f"2024_01_{p:02d}", LITERAL),
    "an index and a 0": (lambda p, r: f"gsm8k_{p}_0", LITERAL),
    "a plain id": (lambda p, r: f"prompt {p}", LITERAL),
    "a UUID": (lambda p, r: verls(p), LITERAL),
    "a whole number": (lambda p, r: 100 + p, LITERAL),
    "a negative number": (lambda p, r: -p, LITERAL),
}


@pytest.mark.parametrize("name", UIDS)
@pytest.mark.parametrize("form", ["lines", "csv", "parquet"])
def test_uids_are_cut_where_verl_appended_to_them_and_nowhere_else(name: str, form: str, tmp_path: Path) -> None:
    uid, rule = UIDS[name]
    if form == "lines":
        path = write_steps(tmp_path / "dump", (1, 2, 3), uid=uid)
    else:
        path = write(pl.DataFrame([row for step in (1, 2, 3) for row in verl_step(step, uid=uid)]), tmp_path / f"a.{form}")
    groups = grouped(path)
    assert sizes(groups) == [(4, 18)]
    assert (groups.table["hits"] == 0).mean() == pytest.approx(1 / 3)
    assert groups.rules.grouping == rule
    assert groups.signs == {"mixed": 0, "twins": 0, "doubled": 0}


@pytest.mark.parametrize("uid", [lambda p, r: f"q_{p}_{r}", lambda p, r: f"{verls(p)}-{r}", lambda p, r: 10 * p + r])
def test_ids_of_rows_are_no_groups(uid: Callable[[int, int], Any], tmp_path: Path) -> None:
    path = write_steps(tmp_path, (1, 2), uid=uid)
    with pytest.raises(
        AuditError, match=r"'uid' as it stands: every group of a step has one row only; .* --columns group=input"
    ):
        audited(path)
    assert sizes(grouped(path, columns=["group=input"])) == [(4, 12)]


def test_a_column_that_the_user_names_is_taken_literally(tmp_path: Path) -> None:
    readable = write_steps(tmp_path / "a", (1, 2), uid=lambda p, r: f"train_1_{p}")
    assert sizes(grouped(readable, columns=["group=uid"])) == [(4, 12)]
    keys = write_steps(tmp_path / "b", (1, 2), uid=lambda p, r: f"{verls(p)}_{r}_0")
    with pytest.raises(AuditError, match="one row only"):
        audited(keys, columns=["group=uid"])


def test_one_row_without_verls_numbers_leaves_all_uncut(tmp_path: Path) -> None:
    """The first file looks as if verl had appended to its uids."""
    write_steps(tmp_path, (1,), uid=lambda p, r: f"q{p}_{r}_0")
    write_steps(tmp_path, (2, 3), uid=lambda p, r: f"train_1_{p}")
    summary = audited(tmp_path)
    assert (summary["dump"]["group_size"], sorted(summary["dump"]["group_sizes"])) == (4, [[1, 24], [4, 12]])
    assert summary["dump"]["grouped_by"] == LITERAL
    assert any("24 of 36 groups have no multiple of 4 rows" in words for words in summary["warnings"])
    assert any("24 of 36 groups have the prompt and target of another group" in words for words in summary["warnings"])


def test_keys_of_verl_that_stand_twice_are_a_copy(tmp_path: Path) -> None:
    rows = verl_step(1, uid=lambda p, r: f"{verls(p)}_{r}_0")
    with pytest.raises(AuditError, match=r"column 'uid': .* 24 rows repeat one of their step; is a file there twice"):
        audited(write_lines(tmp_path / "1.jsonl", rows + rows))


def test_a_uid_that_nobody_filled_is_none(tmp_path: Path) -> None:
    groups = grouped(write_steps(tmp_path, (1, 2), uid=lambda p, r: None))
    assert (sizes(groups), groups.rules.grouping) == ([(4, 12)], "'input' with 'gts'")


@pytest.mark.parametrize(
    "target",
    [
        lambda p, r: f"<a_{p}>", lambda p, r: [f"<a_{p}>", 1], lambda p, r: {"truth": [p]}, lambda p, r: p,
        lambda p, r: p if p % 2 else [p], lambda p, r: p or None,
    ],
)  # fmt: skip
def test_one_prompt_with_several_targets_is_several_groups(target: Callable[[int, int], Any], tmp_path: Path) -> None:
    path = write_steps(tmp_path, (1, 2), input=lambda p, r: "the same", gts=target)
    groups = grouped(path)
    assert sizes(groups) == [(4, 12)]
    assert (groups.table["hits"] == 0).mean() == pytest.approx(1 / 3)
    merged = grouped(path, columns=["group=input"])
    assert (sizes(merged), merged.signs["mixed"]) == ([(24, 2)], 2)


def test_several_targets_in_tables_and_in_trl(tmp_path: Path) -> None:
    rows = pl.DataFrame([row for step in (1, 2) for row in verl_step(step)]).with_columns(input=pl.lit("the same"))
    names = {"input": "prompt", "output": "completion", "gts": "target", "score": "reward"}
    for name, target in {"a.csv": pl.col("target"), "a.parquet": pl.concat_list("target", pl.lit("x"))}.items():
        table = rows.rename(names).with_columns(target=target)
        assert sizes(grouped(write(table, tmp_path / name))) == [(4, 12)]
    trl = rows.rename(names).with_columns(advantage=pl.lit(0.0)).rename({"target": "answer"})
    path = write(trl, tmp_path / "trl.parquet")
    assert sizes(grouped(path, columns=["target=answer"])) == [(4, 12)]
    assert "each step is one group; does 'prompt' tell its prompts apart?" in audited(path)["warnings"]


def test_an_id_of_several_prompts_is_named_when_all_groups_are_affected(tmp_path: Path) -> None:
    for name, uid in {"constant": lambda p, r: "", "pairs": lambda p, r: p // 2}.items():
        summary = audited(write_steps(tmp_path / name, (1, 2, 3), uid=uid))
        groups = summary["dump"]["groups"]
        assert any(f"{groups} of {groups} groups hold rows of more than one prompt" in words for words in summary["warnings"])


def test_sizes_that_differ_are_said_as_they_are(tmp_path: Path) -> None:
    """Of groups of 4 and 8 either may be the true size; one row alone is never a group's size where others have more."""
    few = verl_step(1, prompts=4, gts=lambda p, r: None, input=lambda p, r: str(max(p, 1)))
    words = audited(write_lines(tmp_path / "few.jsonl", few))["warnings"]
    assert any("1 of 3 groups have a multiple of 4 rows, as where the same 'input' with 'gts'" in word for word in words)
    most = verl_step(1, prompts=10, gts=lambda p, r: None, input=lambda p, r: str(p // 2 if p < 8 else p))
    words = audited(write_lines(tmp_path / "most.jsonl", most))["warnings"]
    assert any("2 of 6 groups have fewer rows than 8, which is a multiple of theirs" in word for word in words)
    alone = audited(write_lines(tmp_path / "a.jsonl", verl_step(1) + verl_step(2, prompts=30, group_size=1)))
    assert (alone["dump"]["group_size"], alone["dump"]["group_sizes"]) == (4, [[4, 6], [1, 30]])
    assert any("30 of 36 groups have no multiple of 4 rows" in word for word in alone["warnings"])
    assert not any("multiple of 1 rows" in word for word in alone["warnings"])
