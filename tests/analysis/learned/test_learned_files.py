"""`recast-report learned` on files of all formats, on nonsense, and on folders of our own runs."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from audit_dumps import FIXTURES as DUMPS
from commands import Done, called
from score_files import ScoreWorld, beam_ranks, candidate_rows, minionerec_rows, write_rows

from recast_analysis.cli import main
from recast_analysis.learned import own_scores
from recast_train.data import references

Rows = list[dict[str, Any]]
FIXTURES = Path(__file__).parent / "fixtures" / "verl-0.9.1"
RANKS = [beam_ranks(300, *rates, seed) for seed, rates in enumerate([(0.10, 0.4), (0.25, 0.5)])]


def plain_rows(rank_N: np.ndarray) -> Rows:
    return [
        {
            "prompt_id": f"p{n}",
            "rank": int(rank) if np.isfinite(rank) else None,
            "logprob": [-1.0 - n % 3, -0.5],
            "entropy": 2.0,
        }
        for n, rank in enumerate(rank_N)
    ]


BEFORE, AFTER = map(plain_rows, RANKS)


def learned(*arguments: object) -> Done:
    return called(main, "learned", *arguments)


def summary(*arguments: object) -> dict[str, Any]:
    done = learned(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def as_csv(rows: Rows) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(rows[0])
    writer.writerows([["" if value is None else value for value in row.values()] for row in rows])
    return text.getvalue()


def pair_of(folder: Path, before: Rows = BEFORE, after: Rows = AFTER) -> tuple[Path, Path]:
    return write_rows(folder / "before.jsonl", before), write_rows(folder / "after.jsonl", after)


@pytest.mark.parametrize("form", ["jsonl", "json", "csv", "parquet"])
def test_all_formats_say_the_same(form: str, tmp_path: Path) -> None:
    wanted = summary(*pair_of(tmp_path))
    files = []
    for name, rows in (("b", BEFORE), ("a", AFTER)):
        file = tmp_path / f"{name}.{form}"
        if form == "csv":
            file.write_text(as_csv(rows))
        elif form == "parquet":
            pl.DataFrame(rows, infer_schema_length=None).write_parquet(file)
        else:
            write_rows(file, rows)
        files.append(file)
    found = summary(*files)
    assert found["figures"] == wanted["figures"]
    assert found["verdict"] == wanted["verdict"] == "learned"
    assert found["prompts"] == 300
    assert found["figures"]["log_likelihood_level_2"]["before"] == -0.5


def test_levels_may_be_columns_and_columns_may_be_named(tmp_path: Path) -> None:
    wanted = summary(*pair_of(tmp_path))
    names = {"q": "prompt_id", "pos": "rank", "l1": "logprob_1", "l2": "logprob_2", "entropy": "entropy"}
    rows = [
        [dict(zip(names, (row["prompt_id"], row["rank"], *row["logprob"], 2.0), strict=True)) for row in side]
        for side in (BEFORE, AFTER)
    ]
    files = [write_rows(tmp_path / f"{place}.jsonl", own) for place, own in enumerate(rows)]
    found = summary(*files, "--columns", "prompt=q", "rank=pos", "logprob=l1+l2")
    assert wanted["figures"] == found["figures"]
    named = [[{names[key]: value for key, value in row.items()} for row in side] for side in rows]
    files = [write_rows(tmp_path / f"n{place}.jsonl", own) for place, own in enumerate(named)]
    assert summary(*files)["figures"] == found["figures"]


def test_the_lists_of_minionerec_as_it_writes_them(tmp_path: Path) -> None:
    files = [write_rows(tmp_path / f"{place}.json", minionerec_rows(rank_N)) for place, rank_N in enumerate(RANKS)]
    found = summary(*files)
    assert found["figures"]["hr@50"]["before"] == pytest.approx(np.isfinite(RANKS[0]).mean())
    assert found["figures"]["hr@1"]["after"] == pytest.approx((RANKS[1] == 1).mean())
    assert summary(*files, "--by-row")["figures"] == found["figures"]


def test_verls_own_validation_dumps(tmp_path: Path) -> None:
    """Written by verl 0.9.1 (tests/helpers/audit_verl.py): `output` is the model's answer there, not the target."""
    files = (FIXTURES / "0.jsonl", FIXTURES / "3.jsonl")
    refused = learned(*files)
    assert refused.returncode == 2
    assert "no column of prompt ids among ['acc', 'gts', 'input', 'output', 'score', 'step']; name it with" in refused.stderr
    for greedy in ("score", "acc"):
        found = summary(*files, "--columns", "prompt=input", f"greedy={greedy}")
        assert found["verdict"] == "learned"
        assert found["words"][0].startswith("AFTER learned: greedy hits +0.1500 [+0.0634, +0.2366]. No temperature")
    back = summary(*files[::-1], "--columns", "prompt=input", "greedy=score")
    assert back["verdict"] == "worse"
    more = summary(*files, "--columns", "prompt=input", "greedy=score", "target=gts")
    assert more["verdict"] == "learned"


def test_trls_completions_are_no_scores() -> None:
    """They hold several rows a prompt: rollouts for the audit and the planner."""
    file = DUMPS / "trl-1.16" / "completions_00001.parquet"
    assert (
        "no scores among ['advantage', 'completion', 'liked', 'prompt', 'step']; name a column of rank"
        in learned(file, file).stderr
    )
    several = learned(file, file, "--columns", "greedy=liked")
    assert several.returncode == 2
    assert "is there already, at " in several.stderr


def test_what_a_temperature_may_have_moved_is_not_judged(tmp_path: Path) -> None:
    files = [
        write_rows(tmp_path / f"{name}.jsonl", [{"prompt_id": n, "logprob": -value - n % 5} for n in range(60)])
        for name, value in (("base", 2.0), ("rl", 1.0))
    ]
    found = summary(*files)
    assert found["verdict"] == "not judged"
    (words,) = found["words"]
    assert words.startswith("Not judged: a temperature may have moved every figure that is there. It takes ranks, greedy hits,")
    assert "The verdict judges" not in learned(*files).stdout


def test_a_page_of_what_it_says(tmp_path: Path) -> None:
    done = learned(*pair_of(tmp_path), "--out", tmp_path / "out")
    assert done.returncode == 0
    for words in ("300 prompts in pairs, none left out", "verdict: learned", "HR@1", "With 80 % power", "another training run"):
        assert words in done.stdout
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"learned.json", "learned.png", "learned.pdf"}
    assert json.loads((tmp_path / "out" / "learned.json").read_text())["verdict"] == "learned"


def test_a_file_against_itself_says_that_nothing_changed(tmp_path: Path) -> None:
    file, _ = pair_of(tmp_path)
    found = summary(file, file)
    assert found["verdict"] == "nothing found"
    assert all(row["difference"]["value"] == 0 for row in found["figures"].values())


def test_scores_of_all_items_give_temperatures_and_parts_in_any_order(tmp_path: Path) -> None:
    world = ScoreWorld.of(300, seed=0)
    policies = [world.policy(0.5, 1), world.policy(0.9, 2, temperature=0.7)]
    rows = [candidate_rows(world, policy) for policy in policies]
    found = summary(*pair_of(tmp_path, *rows))
    assert found["verdict"] == "both"
    assert set(found["temperatures"]) == {"BEFORE", "AFTER"}
    for side in rows:
        for row in side:
            row["ranked"], row["scores"] = row["ranked"][::-1], row["scores"][::-1]
    assert summary(*pair_of(tmp_path, *rows))["figures"]["hr@5"] == found["figures"]["hr@5"]


def test_beams_that_hold_other_items_give_no_temperature(tmp_path: Path) -> None:
    world = ScoreWorld.of(50, seed=0)
    rows = []
    for seed in (1, 2):
        rows.append(candidate_rows(world, world.policy(0.9, seed)))
        for row in rows[-1]:
            slot = row["ranked"].index(row["target"])
            kept = sorted({*range(8), slot})
            row["ranked"], row["scores"] = ([row[key][place] for place in kept] for key in ("ranked", "scores"))
    found = summary(*pair_of(tmp_path, *rows))
    assert not found["temperatures"]
    assert any("the files score different items" in note for note in found["notes"])


def test_level_scores_give_a_temperature_a_level(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    scores_NLB = rng.normal(size=(400, 2, 4))
    targets_NL = (scores_NLB + rng.gumbel(size=scores_NLB.shape)).argmax(2)
    sides = [
        [
            {"prompt_id": n, "level_scores": (scores_NLB[n] * [[b], [c]]).tolist(), "level_target": targets_NL[n].tolist()}
            for n in range(400)
        ]
        for b, c in ((1.0, 1.0), (3.0, 0.5))
    ]  # fmt: skip
    found = summary(*pair_of(tmp_path, *sides))
    before, after = found["temperatures"]["BEFORE"], found["temperatures"]["AFTER"]
    assert after == pytest.approx([3 * before[0], 0.5 * before[1]], rel=1e-5)
    assert found["figures"]["calibrated_log_likelihood"]["difference"]["value"] == pytest.approx(0, abs=1e-7)
    assert found["verdict"] == "nothing found"


# matching


def test_prompts_without_a_partner_are_counted(tmp_path: Path) -> None:
    found = summary(*pair_of(tmp_path, BEFORE[:200], AFTER[50:]))
    assert found["prompts"] == 150
    assert found["unmatched"] == {"BEFORE": 50, "AFTER": 100}
    assert "left out: 50 of BEFORE have no partner" in learned(tmp_path / "before.jsonl", tmp_path / "after.jsonl").stdout


def test_numbers_and_digits_are_one_id_and_other_writings_are_not_merged(tmp_path: Path) -> None:
    numbers = [row | {"prompt_id": n} for n, row in enumerate(BEFORE)]
    digits = [row | {"prompt_id": str(n)} for n, row in enumerate(AFTER)]
    assert summary(*pair_of(tmp_path, numbers, digits))["prompts"] == 300
    for other in ("{n}.0", "0{n}", " {n}"):
        written = [row | {"prompt_id": other.format(n=n) if n > 200 else str(n)} for n, row in enumerate(AFTER)]
        done = learned(*pair_of(tmp_path, numbers, written))
        assert done.returncode == 2
        assert "differ only in how they are written" in done.stderr
    both = [*digits, digits[7] | {"prompt_id": "07"}]
    assert summary(*pair_of(tmp_path, [*numbers, numbers[7] | {"prompt_id": "07"}], both))["prompts"] == 301


def test_ranks_are_known_as_deep_as_the_beams_were(tmp_path: Path) -> None:
    shallow = [row | {"rank": row["rank"] if row["rank"] and row["rank"] <= 12 else None} for row in BEFORE]
    found = summary(*pair_of(tmp_path, shallow, AFTER))
    assert "hr@20" not in found["figures"]
    assert any("give --beam WIDTH" in note for note in found["notes"])
    assert "hr@20" in summary(*pair_of(tmp_path, shallow, AFTER), "--beam", 20)["figures"]
    whole = [row | {"rank": row["rank"] or 70 + n} for n, row in enumerate(BEFORE)]
    assert "mrr" in summary(*pair_of(tmp_path, whole, whole))["figures"]


# what cannot be used


def changed(row: int = 3, **values: Any) -> Callable[[Rows], Rows]:
    return lambda rows: [one | values if place == row else one for place, one in enumerate(rows)]


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        (changed(rank=0), (), "line 4, column rank: found 0; write a whole number of 1 or more"),
        (changed(rank=2.5), (), "line 4, column rank: found 2.5"),
        (changed(rank="soon"), (), "column rank: found 'soon'; write a number"),
        (changed(rank=float("nan")), (), "column rank: found nan; write a finite number"),
        (changed(rank=True), (), "column rank: found True"),
        (changed(logprob=[0.3, -1]), (), "column logprob: found 0.3; write natural logarithms of probabilities"),
        (changed(logprob=[-1.0]), (), "1 level, but 2 in the first row"),
        (changed(logprob=float("-inf")), (), "column logprob: found -inf; write a finite number"),
        (changed(logprob=-1e300), (), "column logprob: found -1e+300; write a finite number, of 1,000,000 at most"),
        (changed(logprob=None), (), "column logprob: missing"),
        (changed(prompt_id=None), (), "line 4, column prompt_id: missing; write ids as text or whole numbers"),
        (changed(prompt_id="nan"), (), "column prompt_id: found 'nan'; give every row an id"),
        (changed(prompt_id=7.0), (), "column prompt_id: found 7.0; write ids as text"),
        (changed(prompt_id="p9"), (), "prompt 'p9' is there already, at line 4"),
        (lambda rows: [], (), "the file is empty"),
        (lambda rows: [{"prompt_id": "a", "text": 1}], (), "no scores among ['prompt_id', 'text']"),
        (lambda rows: [row | {"prompt_id": row["prompt_id"] + "x"} for row in rows], (), "prompts: none is in all files"),
        (lambda rows: rows[:1], (), "two are the least"),
        (lambda rows: rows[:7], ("--by-row",), "by-row: the files have other numbers of rows"),
        (lambda rows: [row | {"ranked": ["a"]} for row in rows], (), "ranked says nothing without target"),
        (lambda rows: rows, ("--columns", "rank"), "columns: 'rank' must be ROLE=COLUMN"),
        (lambda rows: rows, ("--columns", "rank=a", "rank=b"), "columns: 'rank' is given twice"),
        (lambda rows: rows, ("--columns", "rank=a"), "no column 'a' (for rank)"),
        (lambda rows: rows, ("--beam", "0"), "--beam: 0 must be at least 1"),
        (lambda rows: rows, ("--supervised", "nowhere"), "nowhere: cannot be read"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_one_line(
    change: Callable[[Rows], Rows], options: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    done = learned(*pair_of(tmp_path, BEFORE, change(AFTER)), *options)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert words in done.stderr


def test_missing_arguments_and_folders_that_are_no_stage(tmp_path: Path) -> None:
    assert "before: missing; give two score files" in learned().stderr
    assert "no evaluated stage of a run" in learned(tmp_path, tmp_path).stderr


def test_a_target_or_user_that_differs_is_refused(tmp_path: Path) -> None:
    rows = [row | {"target": "a", "user": "u"} for row in BEFORE]
    rows[5] |= {"user": "v"}
    for name, value in (("target", "b"), ("user", "w")):
        done = learned(*pair_of(tmp_path, rows, changed(3, **{name: value})(rows)))
        assert f"its {name} is " in done.stderr
        assert done.returncode == 2


def test_prompts_of_few_users_are_counted_by_user(tmp_path: Path) -> None:
    sides = [[row | {"user": f"u{n % 30}"} for n, row in enumerate(side)] for side in (BEFORE, AFTER)]
    found = summary(*pair_of(tmp_path, *sides))
    assert found["users"] == 30
    assert found["figures"]["hr@1"]["difference"]["n"] == 30


# our own runs


def test_stages_of_a_real_run(run_folders: dict[str, Path]) -> None:
    root = run_folders["real"]
    found = summary(root / "sft", root / "rl" / "grpo", "--supervised", root / "rl" / "sft")
    told = json.loads((root / "results.json").read_text())
    assert found["figures"]["hr@10"]["before"] == pytest.approx(told["sft"]["hr@10"])
    assert found["figures"]["pass_at_1_sampled"]["after"] == pytest.approx(told["methods"]["grpo"]["pass_at_1_sampled"])
    learning = told["learning"]["grpo"]
    for name in ("sharpened", "learned"):
        assert found["figures"][name]["difference"]["value"] == pytest.approx(learning[name])
    assert found["figures"]["calibrated_log_likelihood"]["after"] == pytest.approx(learning["calibrated_log_likelihood"])
    assert "learned" not in summary(root / "rl" / "sft", root / "rl" / "grpo")["figures"]
    done = learned(root, root / "sft")
    assert done.returncode == 2
    assert "name one of" in done.stderr


def test_the_share_of_targets_seen_before_that_counts_is_the_trainers() -> None:
    assert own_scores._REPEATS == references.REPEATS
