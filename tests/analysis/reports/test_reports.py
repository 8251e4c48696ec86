"""Reports of comparisons whose figures are known."""

import io
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from comparisons import METRICS, write_comparison
from rich.console import Console

from recast_analysis.claims import simulated as claims
from recast_analysis.drawing.words import count_words, interval_text, ratio_text
from recast_analysis.reports import budget
from recast_analysis.reports import map as heat_map
from recast_analysis.reports.budget import PARTS
from recast_analysis.reports.pieces.learned_figure import learned_figure
from recast_analysis.reports.report import Report, Table
from recast_analysis.terminal import print_report
from recast_sim.runs import RunWriter

SLOW, FAST = (0.1, 0.2, 0.3, 0.3, 0.3), (0.1, 0.4, 0.4, 0.4, 0.4)
FALLS = (0.2, 0.1, 0.1, 0.1, 0.1)


def shown(report: Report) -> str:
    console = Console(width=330, file=io.StringIO(), record=True)
    print_report(report, console)
    return console.export_text()


def test_budget_ratios_of_known_curves(tmp_path: Path) -> None:
    curves = {"grpo": SLOW, "recast": FAST, "sft": FAST, "sft_hard_negative": SLOW, "falls": FALLS}
    write_comparison(tmp_path / "methods", {"one": curves})
    report = budget.report(tmp_path)
    summary = report.summary
    rows = summary["metrics"][METRICS[0]]
    ratio = rows["recast"]["budget"]["grpo"]["rollouts"]
    assert ratio["value"] == pytest.approx((2 / 3) * 100 / 400)  # 0.3 lies two thirds of the way to the first evaluation
    assert ratio["censored"] == []
    assert rows["sft"]["budget"]["grpo"]["rollouts"]["value"] == 0  # needs none
    assert rows["sft"]["budget"]["grpo"]["optimiser_steps"]["value"] == pytest.approx((2 / 3) / 4)
    assert rows["recast"]["versus_grpo"]["value"] == pytest.approx(1 / 3)
    assert rows["recast"]["versus_base"]["value"] == pytest.approx(3)
    assert len(rows["falls"]["budget"]["grpo"]["rollouts"]["censored"]) == 5
    assert summary["reported_worlds"] == 5
    text = shown(report)
    assert "0.17 [0.17, 0.17]" in text
    assert "1.00 [1.00, 1.00] (5/5)" in text
    learned = summary["learning"]["rows"]
    assert list(learned) == ["base", "base_temperature", "base_level_weights", *curves]
    assert learned["recast"]["greedy"]["value"] == learned["recast"]["sampled"]["value"] == pytest.approx(3)
    assert learned["recast"]["calibrated"]["value"] == pytest.approx(0.3)
    assert learned["recast"]["sharpened"]["value"] == pytest.approx(0.75, rel=0.01)
    assert learned["recast"]["learned"]["value"] == pytest.approx(2.25, rel=0.01)
    assert learned["base"]["sampled"]["value"] == 0
    assert "the parts of recast's gain" not in text


def test_parts_of_the_gain_are_one_controlled_change_each(tmp_path: Path) -> None:
    methods = {name for pair in PARTS.values() for name in pair}
    curves = {name: FAST if name.startswith("recast rate_of") else SLOW for name in methods}
    write_comparison(tmp_path / "methods", {"one": {"grpo": SLOW}})
    write_comparison(tmp_path / "controls", {"one": curves})
    parts = budget.report(tmp_path).summary["parts"][METRICS[0]]
    assert parts["groups"]["relative_difference"]["value"] == 0
    assert parts["weight"]["relative_difference"]["value"] == pytest.approx(1 / 3)
    assert parts["direction"]["log10_budget_ratio"]["value"] == 0
    assert parts["all of recast"]["log10_budget_ratio"]["value"] < 0


def test_log_likelihood_is_told_in_nats_and_has_no_curve(tmp_path: Path) -> None:
    methods = {name for pair in PARTS.values() for name in pair}
    metrics = (*METRICS, "calibrated_log_likelihood")
    write_comparison(tmp_path / "methods", {"one": {"grpo": SLOW}}, metrics=metrics)
    write_comparison(tmp_path / "controls", {"one": dict.fromkeys(methods, SLOW)}, metrics=metrics)
    report = budget.report(tmp_path)
    finals, steps = (part for part in report.parts if isinstance(part, Table) and part.title.startswith("parts of"))
    assert tuple(finals.header[1:]) == metrics
    assert all(" %" in row[1] and row[3].endswith(" nats") for row in finals.rows)
    assert tuple(steps.header[1:]) == METRICS
    drawn = {one.name: one for one in report.figures()}
    panels = [axes.get_title(loc="left") for axes in drawn["figure"].figure.axes if axes.axison]
    assert panels == ["greedy Pass@1", "sampled Pass@1", "Parts of recast's gain over grpo (SGD)"]


def test_curves_over_a_base_of_zero_are_differences(tmp_path: Path) -> None:
    write_comparison(tmp_path / "methods", {"one": {"grpo": SLOW, "recast": FAST}}, seeds=2)
    runs = pl.read_parquet(tmp_path / "methods" / "runs.parquet")
    no_hit = (pl.col("seed") == 1) & (pl.col("step") == 0)
    runs = runs.with_columns(pass_at_1_greedy=pl.when(no_hit).then(0.0).otherwise("pass_at_1_greedy"))
    runs.write_parquet(tmp_path / "methods" / "runs.parquet")
    figure = next(one.figure for one in budget.report(tmp_path).figures() if one.name == "figure")
    axes = {axes.get_title(loc="left"): axes for axes in figure.axes}
    assert axes["greedy Pass@1"].get_ylabel() == "greedy Pass@1, minus the base policy's"
    assert axes["sampled Pass@1"].get_ylabel() == "sampled Pass@1, over the base policy's"
    highest = max(np.asarray(line.get_ydata(), float).max() for line in axes["greedy Pass@1"].lines)
    assert highest == pytest.approx((0.3 + 0.4 * 1.001) / 2)


def test_settings_stand_two_by_two() -> None:
    row = {key: {"value": 0.1, "low": 0.0, "high": 0.2} for key in ("greedy", "greedy_levels")}
    rows = {"base_level_weights": row | {"greedy_levels": None}, "grpo": row, "sft": row}
    settings = {f"setting {number}": rows for number in range(3)}
    figure = learned_figure({"rows": rows, "by_setting": settings, "metric": METRICS[0]}, 60).figure
    places = [axis.get_position() for axis in figure.axes]
    assert len({round(place.x0, 2) for place in places}) == len({round(place.y0, 2) for place in places}) == 2
    assert figure.get_size_inches()[0] < 8.5  # 800 px show its letters
    assert [axis.get_title("left") for axis in figure.axes if axis.axison] == list(settings)


def test_map_cells_know_who_wins(tmp_path: Path) -> None:
    pairs = [["recast", "grpo"], ["recast", "sft"], ["sft", "base"]]
    writer = RunWriter.create(tmp_path, "map", {"pairs": pairs, "protocol": {"seeds": 5}}, 0)
    cells = [{"setting": s, "x": "c", "x_label": s, "y": "", "y_label": ""} for s in ("wins", "loses", "gone")]
    pl.DataFrame([*cells, cells[0] | {"x": "again"}]).write_parquet(tmp_path / "cells.parquet")
    curves = {
        "wins": {"grpo": SLOW, "recast": FAST, "sft": FAST},
        "loses": {"grpo": FAST, "recast": SLOW, "sft": FALLS},
    }
    write_comparison(tmp_path / "methods", curves)
    chosen = [
        {"setting": "wins", "choice": "best", "line": line, "difference": 0.1, "p": 0.01, "chosen": c}
        for line, c in (("sft", False), ("recast", True))
    ]
    pl.DataFrame(chosen).write_parquet(tmp_path / "methods" / "choices.parquet")
    writer.close()
    report = heat_map.report(tmp_path)
    summary = report.summary
    assert summary["missing"] == ["gone"]
    rows = {(row["x"], row["x_label"], row["against"]): row for row in summary["cells"] if row["metric"] == METRICS[0]}
    fast, slow = (np.mean(curve[-3:]) for curve in (FAST, SLOW))
    assert rows["c", "wins", "grpo"]["gain"]["value"] == pytest.approx(fast / slow - 1)
    assert rows["c", "loses", "grpo"]["gain"]["value"] == pytest.approx(slow / fast - 1)
    assert rows["again", "wins", "grpo"]["gain"] == rows["c", "wins", "grpo"]["gain"]
    assert rows["c", "wins", "grpo"]["significant"]
    assert not rows["c", "wins", "sft"]["significant"]
    assert rows["c", "loses", "base"]["gain"]["value"] < 0
    whole = next(row for row in summary["pooled"] if row["metric"] == METRICS[0] and row["against"] == "grpo")
    assert whole["gain"]["value"] == pytest.approx((fast / slow + slow / fast) / 2 - 1)
    assert summary["settings"] == 2
    text = shown(report)
    assert "equal" in text
    assert "left out: gone" in text
    assert "was chosen" in text
    assert "20 / 50 / 30" in text


def test_claims_get_the_verdict_of_their_criterion(tmp_path: Path) -> None:
    curves = {
        "weak": {"grpo": SLOW, "recast": FAST, "repair_only": SLOW},
        "strong": {"grpo": FAST, "recast": SLOW, "repair_only": SLOW},
    }
    write_comparison(tmp_path / "methods", curves)
    rungs = {
        "small": {"grpo": SLOW, "recast": SLOW, "repair_only": FAST},
        "large": {"grpo": FAST, "recast": FAST, "repair_only": SLOW},
    }
    rungs["large"] |= {"grpo": (0.1, 0.35, 0.35, 0.35, 0.35)}
    write_comparison(tmp_path / "ladder", rungs)
    write_comparison(tmp_path / "passes", {"weak base, 3 passes": curves["weak"]}, metrics=("pass_at_1_greedy",))
    gradients = [
        {"setting": setting, "seed": seed, "constructor": name, "variance": variance, "groups_per_step": 64}
        for setting in curves
        for seed in range(5)
        for name, variance in (("grpo", 900.0), ("recast", 500.0))
    ]
    pl.DataFrame(gradients).write_parquet(tmp_path / "gradients.parquet")
    report = claims.report(tmp_path)
    rows = report.summary["claims"]
    verdicts = {
        (row["claim"], row["setting"].split(" ")[0], row["paper"]): row["verdict"]
        for row in rows
        if row["metric"] != "pass_at_1_sampled"
    }
    by_claim = {claim: {row["verdict"] for row in rows if row["claim"] == claim} for claim in (1, 2, 3, 4, 9, 10, 11, 12)}
    assert by_claim[1] == {"holds"}
    assert by_claim[2] == {"holds where", "does not hold", "not the paper's metric"}
    assert {row["metric"] for row in rows if row["verdict"] == "not the paper's metric"} == {"pass_at_1_sampled"}
    assert verdicts[2, "weak", "+9.1 % to +36.6 % Pass@1"] == "holds where"
    assert verdicts[3, "weak", "4.1 % of the baseline's rollouts"] == "holds where"  # cheaper, not by the paper's factor
    assert verdicts[3, "strong", "4.1 % of the baseline's rollouts"] == "does not hold"
    assert by_claim[4] == {"holds", "not the paper's metric"}
    assert by_claim[10] == {"holds"}
    alone = {row["setting"]: row["verdict"] for row in rows if row["claim"] == 12 and row["metric"] == "pass_at_1_greedy"}
    assert [alone[next(k for k in alone if size in k)] for size in ("small", "large")] == ["does not hold", "holds where"]
    (noise,) = (row for row in rows if row["claim"] == 11 and "weak" in row["setting"] and "noise" in row["setting"])
    share = [v / 64 / (1 + v / 64) for v in (500.0, 900.0)]
    assert noise["ours"] == pytest.approx(share[0] - share[1])
    spikes = next(row for row in rows if row["claim"] == 11 and "largest gradient norm" in row["setting"])
    assert spikes["ours"] == pytest.approx(np.log(2 / 3))
    strong = next(row for row in rows if row["claim"] == 3 and row["setting"].startswith("strong"))
    assert strong["ours"] == 1
    assert "censored in 5 of 5" in strong["setting"]
    assert "does not hold" in shown(report)


def test_numbers_as_words() -> None:
    ratio = {"value": 0.5, "low": 0.25, "high": 0.75, "seeds": 4, "censored": [3], "trivial": 0}
    assert ratio_text(ratio) == "0.50 [0.25, 0.75] (1/4)"
    assert ratio_text(ratio | {"low": None, "high": None}) == "0.50 (1/4)"
    assert ratio_text(ratio | {"trivial": 3}) == "no gain"
    assert interval_text({"value": 0.1, "low": -0.2, "high": 0.3}, percent=True) == "+10.0 % [-20.0, +30.0]"
    assert [count_words(number, "world") for number in (0, 1, 1200)] == ["0 worlds", "1 world", "1,200 worlds"]
