"""Tables, figure and agreement of real studies whose every figure is known."""

import io
import json
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from comparisons import write_comparison
from rich.console import Console
from study_tables import METHODS, SHARES, user_table, write_study

import recast_analysis.cli
from recast_analysis.measures.study_changes import START, StudyTables, changes_over, measure_study
from recast_analysis.reports.real import agreement, study
from recast_analysis.reports.real.agreement import PAIRS
from recast_analysis.terminal import print_report
from recast_sim.runs import RunError


def changing(method: str, seed: int, user: int) -> float:
    return {START: 0.2, "grpo": 0.3, "recast": 0.5, "sft": 0.1}[method] * (1 + seed) * (1 + 0.1 * user)


def test_values_and_changes_are_the_plain_means_and_ratios(tmp_path: Path) -> None:
    write_study(tmp_path, user_table(changing, seeds=3, users=5))
    found = measure_study(tmp_path)
    prompts = np.array([1, 2, 3, 1, 2])
    of_user = (prompts * (1 + 0.1 * np.arange(5))).sum() / prompts.sum()
    row = found["settings"]["one"]["metrics"]["hr@10"]
    assert row[START]["value"] == pytest.approx(0.2 * 2 * of_user)
    assert row["recast"]["seed_sd"] == pytest.approx(0.5 * of_user)
    assert row["recast"]["versus_start"] == pytest.approx(
        {"value": 1.5, "low": 1.5, "high": 1.5, "smallest_effect": 0}, abs=1e-12
    )
    assert row["sft"]["versus_grpo"]["value"] == pytest.approx(-2 / 3)
    assert row["grpo"]["versus_grpo"]["value"] == 0
    assert (found["settings"]["one"]["test_prompts"], found["settings"]["one"]["sft_best_step"]) == (9, [7, 7, 7])
    assert found["settings"]["one"]["regime"] == pytest.approx(SHARES)
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_one_seed_and_one_user_give_points_and_a_figure(tmp_path: Path) -> None:
    write_study(tmp_path, user_table(lambda method, seed, user: changing(method, seed, user) / 7, seeds=1, users=1))
    report = study.report(tmp_path)
    for row in report.summary["settings"]["one"]["metrics"]["ndcg@10"].values():
        assert row["seed_sd"] is None
        assert row["versus_start"]["low"] is None
    (figure,) = report.save_figures(tmp_path)
    assert Path(figure).stat().st_size > 10_000


def test_no_change_is_given_over_a_start_of_zero(tmp_path: Path) -> None:
    write_study(tmp_path, user_table(lambda method, seed, user: 0.1 * (method != START), seeds=2, users=4))
    report = study.report(tmp_path)
    row = report.summary["settings"]["one"]["metrics"]["pass@10"]
    assert row["recast"]["versus_start"] is None
    assert row["recast"]["versus_grpo"]["value"] == 0
    json.dumps(report.summary, allow_nan=False)
    console = Console(width=250, file=io.StringIO(), record=True)
    print_report(report, console)
    assert "0.1000 |" in console.export_text()
    assert all(Path(figure).exists() for figure in report.save_figures(tmp_path))


def test_curves_of_a_seed_that_starts_from_zero_are_in_points(tmp_path: Path) -> None:
    write_study(tmp_path, user_table(changing, seeds=3, users=4))
    first = (pl.col("seed") == 0) & (pl.col("step") == 0)
    evals = pl.read_parquet(tmp_path / "evals.parquet")
    evals.with_columns(pass_at_1_greedy=pl.when(first).then(0.0).otherwise("pass_at_1_greedy")).write_parquet(
        tmp_path / "evals.parquet"
    )
    (drawn,) = study.report(tmp_path).figures()
    axes = {axes.get_title(loc="left"): axes for axes in drawn.figure.axes}
    assert axes["greedy Pass@1"].get_ylabel() == "change from the start (points)"
    assert axes["NDCG@10"].get_ylabel() == "change from the start (%)"
    heights = np.concatenate([np.asarray(line.get_ydata(), float) for line in axes["greedy Pass@1"].lines])
    assert heights.max() == pytest.approx(100 * (0.2 + 0.1 + 0.1) / 3)  # one seed rises from 0, the others from .1


def test_studies_without_grpo_have_no_ratios(tmp_path: Path) -> None:
    write_study(tmp_path, user_table(changing, seeds=2, users=4, methods=("recast", "sft")))
    report = study.report(tmp_path)
    found = report.summary
    assert found["settings"]["one"]["metrics"]["hr@10"]["recast"]["versus_grpo"] is None
    assert found["settings"]["one"]["methods"]["recast"]["steps_ratio_to_grpo"] == {}
    print_report(report, Console(width=250, file=io.StringIO()))


@pytest.mark.parametrize("name", ["starts", "rates", "evals", "users"])
def test_a_missing_or_damaged_table_is_an_unfinished_study(tmp_path: Path, name: str) -> None:
    write_study(tmp_path, user_table(changing, seeds=1, users=2))
    (tmp_path / f"{name}.parquet").write_bytes(b"PAR1")
    with pytest.raises(RunError, match="no finished study"):
        StudyTables.read(tmp_path)
    (tmp_path / f"{name}.parquet").unlink()
    with pytest.raises(RunError, match=r"no finished study \(.*; go on with --resume"):
        measure_study(tmp_path)


@pytest.mark.parametrize("name", ["starts", "rates", "evals", "users"])
def test_a_table_without_rows_is_one_error(tmp_path: Path, name: str) -> None:
    write_study(tmp_path, user_table(changing, seeds=1, users=2))
    pl.read_parquet(tmp_path / f"{name}.parquet").clear().write_parquet(tmp_path / f"{name}.parquet")
    with pytest.raises(RunError, match=rf"no finished study \({tmp_path / name}.parquet: has no rows\)"):
        StudyTables.read(tmp_path)


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["recast-report", *arguments])
    with pytest.raises(SystemExit) as stop:
        recast_analysis.cli.main()
    return int(stop.value.code or 0)


def test_the_report_prints_the_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    both = [user_table(changing, seeds=2, users=6, setting=label) for label in ("low", "high")]
    write_study(tmp_path, pl.concat(both))
    assert command(monkeypatch, "tables", str(tmp_path)) == 0
    out = capsys.readouterr().out
    for words in (
        "low: test scores",
        "high: test scores",
        "80.0 / 15.0 / 5.0 %",
        "0.01*",
        "+150.0 [+150.0, +150.0]",
        "Means over 2 seeds",
    ):
        assert words in out
    assert command(monkeypatch, "tables", str(tmp_path), "--json") == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert set(found["settings"]) == {"low", "high"}
    (tmp_path / "users.parquet").unlink()
    assert command(monkeypatch, "tables", str(tmp_path)) == 2
    assert "no finished study" in capsys.readouterr().err


def test_methods_are_held_against_any_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_study(tmp_path, user_table(changing, seeds=3, users=6))
    metrics = measure_study(tmp_path)["settings"]["one"]["metrics"]
    for over in (START, "grpo"):
        changes = changes_over(tmp_path, over)["settings"]["one"]
        assert changes == {
            metric: {name: row[f"versus_{over}"] for name, row in rows.items()} for metric, rows in metrics.items()
        }
    assert command(monkeypatch, "compare", str(tmp_path), "--over", "sft", "--json") == 0
    over_sft = json.loads(capsys.readouterr().out)["settings"]["one"]["hr@10"]
    for name, row in metrics["hr@10"].items():
        assert over_sft[name]["value"] == pytest.approx(row["value"] / metrics["hr@10"]["sft"]["value"] - 1)
    assert command(monkeypatch, "compare", str(tmp_path), "--over", "sft") == 0
    assert "change over sft" in capsys.readouterr().out
    assert command(monkeypatch, "compare", str(tmp_path), "--over", "dpo") == 2
    assert "over: 'dpo' is not in" in capsys.readouterr().err
    assert command(monkeypatch, "compare") == 2
    assert "run: missing" in capsys.readouterr().err


def write_both(folder: Path, finals: dict[str, tuple[float, float]], start: float = 0.1) -> tuple[Path, Path]:
    """A study and a simulated run whose methods end at the given (real, simulated) multiples of their starts."""
    real, simulated = folder / "real", folder / "simulated"
    scores = {START: 1.0} | {name: ours for name, (ours, _) in finals.items()}
    write_study(real, user_table(lambda method, seed, user: 0.2 * scores[method], seeds=2, users=4, methods=tuple(finals)))
    curves = {name: (start, *(4 * [start * theirs])) for name, (_, theirs) in finals.items()}
    write_comparison(simulated / "methods", {"one": curves, "other": curves}, metrics=tuple(PAIRS.values()))
    return real, simulated


def test_agreement_has_both_changes_their_rank_correlation_and_signs(tmp_path: Path) -> None:
    finals = {"grpo": (1.2, 1.1), "recast": (1.4, 1.5), "sft": (1.3, 1.6), "rloo": (1.1, 1.3), "dapo": (1.2, 1.4)}
    found = agreement.report(*write_both(tmp_path, finals)).summary
    assert list(found["settings"]) == ["one"]
    for part in found["settings"]["one"]["metrics"].values():
        for name, (ours, theirs) in finals.items():
            expected = {"real": ours - 1, "simulated": theirs - 1}
            for side, value in expected.items():
                assert part["methods"][name][side] == pytest.approx({"value": value, "low": value, "high": value})
        # ranks 2.5 5 4 1 2.5 against 1 4 5 2 3
        assert part["spearman"] == pytest.approx(np.corrcoef([2.5, 5, 4, 1, 2.5], [1, 4, 5, 2, 3])[0, 1])
        assert part["versus_grpo"] == {"agree": 2, "of": 3}  # rloo is worse than grpo in one world only, dapo equal in one
    assert found["settings"]["one"]["regime"]["simulated"] == pytest.approx(
        {"all_zero": 0.85, "single_hit": 0.13, "multi_hit": 0.02}
    )
    json.dumps(found, allow_nan=False)


def test_twins_are_left_out_of_the_rank_correlation_and_its_p_is_exact(tmp_path: Path) -> None:
    finals = {"grpo": (1.1, 1.1), "recast": (1.2, 1.3), "sft_hard_negative": (1.2, 1.3), "sft": (1.3, 1.2), "dapo": (1.5, 1.6)}
    part = agreement.report(*write_both(tmp_path, finals)).summary["settings"]["one"]["metrics"]["ndcg@10"]
    assert part["twins"] == ["sft_hard_negative"]
    assert part["spearman"] == pytest.approx(1 - 6 * 2 / (4 * 15))  # one neighbouring pair of four in the wrong order
    # of the 24 orders 4 have a correlation of at least .8 (one has 1, three swap a neighbouring pair), and 4 of at most -.8
    assert part["p"] == pytest.approx(8 / 24)
    assert part["versus_grpo"] == {"agree": 3, "of": 3}


def test_agreement_is_one_in_the_same_order_and_minus_one_in_the_other(tmp_path: Path) -> None:
    same = {"grpo": (1.1, 1.2), "recast": (1.2, 1.3), "sft": (1.3, 1.9)}
    other = {"grpo": (1.3, 1.2), "recast": (1.2, 1.3), "sft": (1.1, 1.9)}
    for finals, rank, agree in ((same, 1.0, 2), (other, -1.0, 0)):
        part = agreement.report(*write_both(tmp_path / str(rank), finals)).summary["settings"]["one"]["metrics"]["ndcg@10"]
        assert (part["spearman"], part["versus_grpo"]) == (pytest.approx(rank), {"agree": agree, "of": 2})


def test_agreement_is_undefined_where_a_side_does_not_vary_or_starts_at_zero(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flat = {name: (1.0 + place / 10, 1.0) for place, name in enumerate(METHODS)}
    part = agreement.report(*write_both(tmp_path / "flat", flat)).summary["settings"]["one"]["metrics"]["ndcg@10"]
    assert (part["spearman"], part["versus_grpo"]) == (None, {"agree": 0, "of": 0})
    real, simulated = write_both(tmp_path / "zero", flat, start=0.0)
    found = agreement.report(real, simulated).summary["settings"]["one"]["metrics"]["ndcg@10"]
    assert found["methods"]["recast"]["simulated"] is None
    assert found["spearman"] is None
    assert command(monkeypatch, "agree", str(real), str(simulated), "--json") == 0
    assert json.loads(capsys.readouterr().out)["settings"]["one"]["metrics"]["ndcg@10"] == found
    assert command(monkeypatch, "agree", str(real), str(simulated)) == 0
    assert "Spearman's rank correlation over methods undefined" in capsys.readouterr().out


def test_runs_that_do_not_match_are_refused(tmp_path: Path) -> None:
    finals = dict.fromkeys(METHODS, (1.1, 1.2))
    real, simulated = write_both(tmp_path, finals)
    curves = dict.fromkeys(METHODS, (0.1, 0.2, 0.2))
    with pytest.raises(RunError, match="no finished comparison"):
        agreement.report(real, tmp_path / "nowhere")
    with pytest.raises(RunError, match="no finished study"):
        agreement.report(tmp_path / "nowhere", simulated)
    write_comparison(tmp_path / "label" / "methods", {"two": curves}, metrics=tuple(PAIRS.values()))
    with pytest.raises(RunError, match=r"settings \['two'\] and methods .* do not match"):
        agreement.report(real, tmp_path / "label")
    few = {"one": {name: curves[name] for name in METHODS[:2]}}
    write_comparison(tmp_path / "few" / "methods", few, metrics=tuple(PAIRS.values()))
    with pytest.raises(RunError, match=r"methods \['grpo', 'recast'\] do not match"):
        agreement.report(real, tmp_path / "few")
    write_comparison(tmp_path / "metric" / "methods", {"one": curves})
    with pytest.raises(RunError, match=r"has no recall_at_k; run it with these among protocol\.metrics"):
        agreement.report(real, tmp_path / "metric")


def test_agreement_is_printed(tmp_path: Path) -> None:
    console = Console(width=250, file=io.StringIO(), record=True)
    finals = {n: (1.1 + i / 10, 1.2 + i / 10) for i, n in enumerate(METHODS)}
    print_report(agreement.report(*write_both(tmp_path, finals)), console)
    text = console.export_text()
    assert "one: regime 80.0 / 15.0 / 5.0 real, 85.0 / 13.0 / 2.0 simulated" in text
    assert "+20.0 % [+20.0, +20.0]" in text
    assert "rank correlation over methods +1.00 (permutation p 0.33); sign against grpo equal for 2 of 2 methods" in text
