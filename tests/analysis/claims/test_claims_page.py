"""The claims page: each claim, each world, judged by the stated rules."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from comparisons import write_comparison
from study_tables import user_table, write_study

from recast_analysis.claims import claims_page, read_evidence
from recast_analysis.claims.curves import budget_row
from recast_analysis.claims.measurement import NOT_PAPERS, interval_words, judged, judged_factor
from recast_analysis.claims.paper import CLAIMS
from recast_analysis.measures.metric_names import GREEDY, SAMPLED
from recast_analysis.measures.statistics import Interval
from recast_analysis.measures.study_changes import START
from recast_sim.runs import RunError, RunWriter

SLOW, FAST = (0.1, 0.2, 0.3, 0.3, 0.3), (0.1, 0.4, 0.4, 0.4, 0.4)


def entry(name: str, value: float, unit: str) -> dict[str, Any]:
    return {"name": name, "value": value, "unit": unit, "target": None, "at_least": True, "met": None}


def write_benchmarks(file: Path, *entries: dict[str, Any]) -> Path:
    file.write_text(json.dumps({"actor": {"entries": entries, "command": "python benchmarks/run.py --only actor"}}))
    return file


def write_claims(root: Path) -> Path:
    writer = RunWriter.create(root, "claims", {}, 0)
    curves = {
        "weak": {"grpo": SLOW, "recast": FAST, "repair_only": SLOW},
        "strong": {"grpo": FAST, "recast": SLOW, "repair_only": SLOW},
    }
    write_comparison(root / "methods", curves)
    write_comparison(root / "passes", {"weak base, 3 passes": curves["weak"]}, metrics=("pass_at_1_greedy",))
    noise = [
        {"setting": setting, "seed": seed, "constructor": name, "variance": variance, "groups_per_step": 64}
        for setting in curves
        for seed in range(5)
        for name, variance in (("grpo", 900.0), ("recast", 500.0))
    ]
    pl.DataFrame(noise).write_parquet(root / "gradients.parquet")
    writer.close()
    return root


def verdicts(paths: list[Path], claim: int) -> list[str]:
    return [row["verdict"] for source in read_evidence(paths) for row in source.rows if row["claim"] == claim]


@pytest.mark.parametrize(
    ("value", "words"),
    [(15.9, "holds"), (14.95, "holds"), (14.9, "holds where"), (1.01, "holds where"), (0.9, "does not hold")],
)
def test_a_factor_is_held_against_the_papers(value: float, words: str) -> None:
    row = judged_factor(5, "16.60x", Interval(value, value, value, 1), "here", 16.60, 1, fewest=1)
    assert row["verdict"] == words
    assert judged_factor(5, "16.60x", Interval(value, value, value, 1), "here", 16.60, 1)["verdict"] == "undecided"
    assert interval_words(row) == f"{value:.3g}"


@pytest.mark.parametrize(
    ("low", "high", "seeds", "words"),
    [
        (0.01, 0.5, 5, "holds"),
        (-0.1, 0.2, 5, "undecided"),
        (-0.1, 0.05, 5, "does not hold"),
        (0.01, 0.5, 2, "undecided"),
    ],
)
def test_an_interval_that_holds_the_papers_figure_too_decides_nothing(low: float, high: float, seeds: int, words: str) -> None:
    row = judged(2, "+9.1 %", Interval(0.0, low, high, seeds), "here", lambda i: i.low > 0, lambda i: i.high >= 0.091)
    assert row["verdict"] == words


def test_a_page_holds_all_twelve_and_says_what_was_not_measured(tmp_path: Path) -> None:
    folder = write_claims(tmp_path / "a|<b>")
    file = write_benchmarks(
        tmp_path / "cpu.json",
        entry("claim 5: rows dropped, prompt repeated", 15.9, "x"),
        entry("claim 5: rows dropped, prompt shared", 1.2, "x"),
        entry("claim 7: rows dropped", 20.0, "%"),
        entry("tokens a second", 1e6, ""),
    )
    page = claims_page(read_evidence([folder, file]))
    assert [int(n) for n in re.findall(r"^## (\d+)\.", page, re.MULTILINE)] == list(range(1, 13))
    sections = dict(zip(range(1, 13), re.split(r"^## ", page, flags=re.MULTILINE)[1:], strict=False))
    for claim in CLAIMS:
        assert claim.figure in sections[claim.number]
        assert ("Not measured here." in sections[claim.number]) == (claim.number in (4, 6, 8, 12))
    assert "| simulator | 4.1 % of the baseline's rollouts | 0.167 [0.167, 0.167] |" in sections[3]
    assert "| benchmark | actor update 16.60x | 15.9 | actor: rows dropped, prompt repeated" in sections[5]
    summary = next(line for line in page.splitlines() if line.startswith("| 5. "))
    assert summary.endswith("| not measured here | not measured here | holds where |")
    assert "a\\|&lt;b>" in page
    assert "`python benchmarks/run.py --only actor`" in page
    for table in re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE):  # no cell adds a column
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1
    assert verdicts([file], 7) == ["holds"]
    of_base = ["does not hold", "holds where", "does not hold", "holds where"]  # no falls, lower spikes, no scatter, less noise
    assert verdicts([folder], 11) == of_base * 2
    assert verdicts([folder], 9) == ["holds", "holds"]
    assert verdicts([folder], 10) == ["holds"]


def test_a_ladder_of_sizes_is_judged_by_its_slope(tmp_path: Path) -> None:
    gains = {"tiny": -0.1, "small": 0.1, "base": 0.3}  # log(recast / grpo), two tenths more a rung

    def of(label: str) -> pl.DataFrame:
        scores = {START: 0.1, "grpo": 0.2, "recast": 0.2 * np.exp(gains[label]), "repair_only": 0.1}
        return user_table(lambda m, s, u: scores[m] * (1 + s), 4, 6, ("grpo", "recast", "repair_only"), label)

    points = [{"label": label, "model.size": label} for label in gains]
    config = {"points": points, "setting": {"evaluation": {"group_size": 32}}}
    write_study(tmp_path / "ladder", pl.concat([of(label) for label in gains]), config)
    (source,) = read_evidence([tmp_path / "ladder"])
    scale = [row for row in source.rows if row["claim"] == 4]
    assert [row["ours"] for row in scale] == pytest.approx([0.2, 0.2])
    assert {row["metric"]: row["verdict"] for row in scale} == {GREEDY: "holds", SAMPLED: NOT_PAPERS}
    assert "tiny -10 %, small +11 %, base +35 %" in scale[0]["setting"]
    gain = [row for row in source.rows if row["claim"] == 2 and row["setting"].startswith("base")]
    assert [row["ours"] for row in gain] == pytest.approx([np.expm1(0.3)] * 2)
    assert {row["verdict"] for row in source.rows if row["claim"] == 12} == {"holds", NOT_PAPERS}
    assert {row["verdict"] for row in source.rows if row["claim"] == 1} == {"does not hold"}  # 80 % all-zero
    plain = {"points": [{"label": "tiny"}], "setting": {"evaluation": {"group_size": 8}}}
    write_study(tmp_path / "plain", of("tiny"), plain)
    (source,) = read_evidence([tmp_path / "plain"])
    assert not {1, 4} & {row["claim"] for row in source.rows}  # no ladder, and not the paper's G


def test_one_seed_decides_no_score_but_its_tokens_are_counted(run_folders: dict[str, Path]) -> None:
    (source,) = read_evidence([run_folders["real"]])
    by_paper = {row["paper"]: row for row in source.rows}
    results = json.loads((run_folders["real"] / "results.json").read_text())
    tokens = {name: results["methods"][name]["actor_tokens"] for name in ("grpo", "recast")}
    counted = by_paper["actor tokens 14.7x"]
    assert counted["ours"] == pytest.approx(tokens["grpo"] / tokens["recast"])
    assert counted["verdict"] == "holds where"
    assert {row["verdict"] for row in source.rows if row is not counted} == {"undecided", NOT_PAPERS}
    assert {row["claim"] for row in source.rows} >= {2, 3, 5, 6, 9, 10}


def test_sources_that_say_nothing_are_named(run_folders: dict[str, Path], tmp_path: Path) -> None:
    writer = RunWriter.create(tmp_path / "unfinished", "real-study", {}, 0)
    writer.step({"step": 1})
    sources = read_evidence([run_folders["map"], tmp_path / "unfinished"])
    assert [source.rows for source in sources] == [[], []]
    page = claims_page(sources)
    assert "a run of kind 'map' speaks to no claim" in page
    assert "left out: the run is not finished" in page
    with pytest.raises(RunError, match=r"manifest\.json is missing"):
        read_evidence([tmp_path])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[1]", "holds no results of benchmarks"),
        ('{"actor": 3}', "holds no results of benchmarks"),
        ("{", "not readable"),
        (json.dumps({"a": {"entries": [entry("claim 7: x", 1.0, "GiB")]}}), "'claim 7: x' is in 'GiB'; claim 7 needs '%'"),
    ],
)
def test_files_that_are_no_results_are_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "cpu.json").write_text(text)
    with pytest.raises(RunError, match=re.escape(words)):
        read_evidence([tmp_path / "cpu.json"])


def test_a_budget_that_nobody_needs_is_no_saving(tmp_path: Path) -> None:
    from recast_analysis.measures.comparison import Comparison

    write_comparison(tmp_path / "methods", {"one": {"grpo": SLOW[::-1], "recast": FAST}})
    found = Comparison.read(tmp_path / "methods")
    recast, grpo = (found.curves("one", name, "pass_at_1_greedy") for name in ("recast", "grpo"))
    row = budget_row(recast, grpo, "one", GREEDY)
    assert row["verdict"] == "does not hold"
    assert "grpo itself gains nothing" in row["setting"]
