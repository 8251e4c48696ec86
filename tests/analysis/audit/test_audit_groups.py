"""Groups of a dump against a plain dictionary, whatever its format, order, pieces and files; dumps that verl and TRL wrote."""

import json
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from audit_dumps import FIXTURES, as_trl, as_verl, rollouts, write, write_big
from audit_trl import GROUP, PROMPTS_A_STEP, train

from recast_analysis.audit.figures_of_audit import audit_summary, steps_table
from recast_analysis.audit.reading import csv_file, json_lines, parquet_file
from recast_analysis.audit.reading.dump_groups import DumpGroups, read_groups


def oracle(rows: list[dict[str, Any]], group: str, completion: str, reward: str) -> set[tuple[int, ...]]:
    """(step, rows, hits, distinct completions, response words) of each group; a marker <...> is one word."""
    groups: dict[tuple[int, Any], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["step"], row[group]].append(row)
    found = []
    for (step, _), members in groups.items():
        texts = [row[completion] for row in members]
        words = sum(len(text.replace("<", " ").replace(">", " ").split()) for text in texts)
        found.append((step, len(members), sum(row[reward] > 0.5 for row in members), len(set(texts)), words))
    return set(found)


def as_set(groups: DumpGroups) -> set[tuple[int, ...]]:
    return set(groups.table.select("step", "rows", "hits", "distinct", "response_length").iter_rows())


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_groups_are_the_same_in_any_format_order_and_number_of_pieces(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = rollouts(60)
    expected = oracle(table.to_dicts(), "prompt_id", "completion", "reward")
    monkeypatch.setattr(json_lines, "BLOCK", 700)  # a few lines
    monkeypatch.setattr(csv_file, "CHUNK", 7)
    monkeypatch.setattr(parquet_file, "SLICE", 7)
    whole = read_groups([write(table, tmp_path / f"whole{suffix}")], 0.5)
    assert as_set(whole) == expected
    mixed = table.sample(fraction=1, shuffle=True, seed=1)
    for part in range(3):
        write(mixed.gather_every(3, part), tmp_path / f"part-{part}{suffix}")
    spread = read_groups([tmp_path / f"part-{part}{suffix}" for part in range(3)], 0.5)
    assert as_set(spread) == expected
    assert spread.table.height == whole.table.height == 60


def test_a_name_says_nothing_about_the_format(tmp_path: Path) -> None:
    write(rollouts(8), tmp_path / "a.csv").rename(tmp_path / "rollouts.parquet")
    assert read_groups([tmp_path / "rollouts.parquet"], 0.5).form == "table, CSV"


@pytest.mark.parametrize("version", ["verl-0.9.1", "verl-0.9.1-ray", "verl-0.5.0"])
def test_verls_own_dumps(version: str) -> None:
    groups = read_groups([FIXTURES / version], 0.5)
    rows = [json.loads(line) for file in (FIXTURES / version).iterdir() for line in file.read_text().splitlines()]
    assert as_set(groups) == oracle(rows, "input", "output", "score")
    assert (groups.table.height, groups.files, groups.form) == (36, 3, "verl, JSON lines")
    rules = {"verl-0.9.1": "'uid' without the two numbers that verl appends", "verl-0.9.1-ray": "'input' with 'gts'"}
    assert groups.rules.grouping == rules.get(version, "'input'")
    malformed = sum(len(re.findall(r"<", row["output"])) != 3 for row in rows)
    assert groups.table["sid_malformed"].sum() == malformed > 0


def test_uids_tell_groups_of_one_prompt_apart(tmp_path: Path) -> None:
    table = as_verl(rollouts(6)).with_columns(input=pl.lit("the same prompt"), step=pl.lit(1, pl.Int64))
    uids = table.with_columns(uid=pl.Series([f"id_{i // 8}_{i % 8}_0" for i in range(48)]))
    assert read_groups([write(uids, tmp_path / "v1.jsonl")], 0.5).table["rows"].to_list() == [8] * 6
    merged = read_groups([write(pl.concat([table, as_verl(rollouts(6))]), tmp_path / "v0.jsonl")], 0.5)
    summary = audit_summary(merged)
    assert (summary["dump"]["group_size"], summary["dump"]["merged_groups"]) == (8, 1)
    assert any("'input' with 'gts' stands in one step more than once" in words for words in summary["warnings"])


def test_trls_own_dump_counts_each_generation_once() -> None:
    groups = read_groups([FIXTURES / "trl-1.16"], 0.5)
    frames = [pl.read_parquet(FIXTURES / "trl-1.16" / f"completions_0000{step}.parquet") for step in (1, 2, 3, 4)]
    assert frames[0].drop("step").equals(frames[1].drop("step"))  # TRL wrote one generation twice
    rows = pl.concat([frames[0], frames[2]]).to_dicts()
    assert as_set(groups) == oracle(rows, "prompt", "completion", "liked")
    assert (groups.repeated_steps, groups.form) == (2, "trl, parquet")
    assert any("2 steps hold the rows of the step before" in words for words in audit_summary(groups)["warnings"])


@pytest.mark.slow
@pytest.mark.parametrize("conversations", [False, True])
def test_what_the_installed_trl_writes_is_read(conversations: bool, tmp_path: Path) -> None:
    groups = read_groups([train(tmp_path, conversations)], 0.5)
    assert groups.rules.layout.columns["reward"] == ("liked",)
    assert groups.rules.unit == "words"
    assert groups.table["rows"].to_list() == [GROUP] * 2 * PROMPTS_A_STEP
    assert groups.repeated_steps == 2
    assert steps_table(groups.table)["step"].to_list() == [1, 3]


def test_several_rewards_of_trl_are_chosen_or_added(tmp_path: Path) -> None:
    two = as_trl(rollouts(12)).with_columns(form=pl.lit(0.25)).with_columns(hit=pl.when(pl.col("hit") > 0).then("hit"))
    path = write(two, tmp_path / "a.parquet")
    added = read_groups([path], 0.5, ["reward=hit+form"])
    assert added.table["hits"].sum() == rollouts(12)["reward"].sum()  # a reward that is null counts 0, as in TRL
    assert read_groups([path], 0.2, ["reward=form"]).table["hits"].sum() == 96


def test_lengths_are_tokens_where_the_dump_has_them(tmp_path: Path) -> None:
    counted = rollouts(6).with_columns(prompt_tokens=100, response_tokens=pl.int_range(48))
    groups = read_groups([write(counted, tmp_path / "a.jsonl")], 0.5)
    assert groups.rules.unit == "tokens"
    assert (groups.table["prompt_length"].sum(), groups.table["response_length"].sum()) == (4800, 48 * 47 // 2)
    ids = rollouts(6).select("step", "reward", prompt=pl.concat_list("prompt_id", "prompt_id"), completion=[1, 2, 3])
    for name in ("ids.parquet", "ids.jsonl"):
        groups = read_groups([write(ids, tmp_path / name)], 0.5)
        assert (groups.rules.unit, groups.table["response_length"].to_list()) == ("tokens", [24] * 6)
        assert groups.table["prompt_length"].to_list() == [16] * 6
    bare = rollouts(6).select("step", "reward", group="prompt_id")
    assert read_groups([write(bare, tmp_path / "b.csv")], 0.5, ["group=group"]).rules.unit is None


def test_what_python_writes_besides_json_is_read_past_in_columns_without_a_role(tmp_path: Path) -> None:
    lines = [row | {"metric": float("nan"), "gts": [1, "a", None]} for row in as_verl(rollouts(6)).to_dicts()]
    path = tmp_path / "a.jsonl"
    path.write_text("\n\n".join(map(json.dumps, lines)), encoding="utf-8-sig")
    expected = read_groups([write(as_verl(rollouts(6)), tmp_path / "plain.jsonl")], 0.5)
    assert as_set(read_groups([path], 0.5)) == as_set(expected)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_memory_is_bounded(suffix: str, tmp_path: Path) -> None:
    """300,000 rows, 190 MB of text: held at once, as bytes and as a frame, it would take twice that."""
    path = write_big(tmp_path / f"big{suffix}", 300_000, words=40)
    code = (
        "import sys; from pathlib import Path; from recast_analysis.audit.reading.dump_groups import read_groups\n"
        "def peak(): return next(int(l.split()[1]) for l in open('/proc/self/status') if l.startswith('VmHWM'))\n"
        "before = peak(); groups = read_groups([Path(sys.argv[1])], 0.5)\n"
        "print(groups.table['rows'].sum(), (peak() - before) // 1000)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    rows, megabytes = map(int, done.stdout.split())
    assert rows == 300_000
    assert megabytes < 250
