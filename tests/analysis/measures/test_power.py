"""Planned numbers of worlds have the power that is said."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from commands import called
from comparisons import write_comparison
from scipy.stats import ttest_1samp

from recast_analysis.measures.power import power, smallest_effect, worlds_needed
from recast_analysis.reports.plan import report
from recast_sim.cli import main

SLOW, FAST = (0.1, 0.2, 0.3, 0.3, 0.3), (0.1, 0.4, 0.4, 0.4, 0.4)


@pytest.mark.property
@pytest.mark.parametrize(("effect", "scatter"), [(0.1, 0.05), (0.1, 0.2), (-0.03, 0.1)])
def test_planned_studies_find_the_effect_as_often_as_planned(effect: float, scatter: float) -> None:
    worlds = worlds_needed(effect, scatter)
    assert worlds is not None
    drawn = np.random.default_rng(0).normal(effect, scatter, (4000, worlds))
    found = (ttest_1samp(drawn, 0, axis=1).pvalue < 0.05).mean()
    assert found == pytest.approx(power(effect, scatter, worlds), abs=0.025)
    assert power(effect, scatter, worlds) >= 0.8
    if worlds > 2:
        assert power(effect, scatter, worlds - 1) < 0.8


def test_what_is_seen_is_what_needs_so_many_worlds() -> None:
    for worlds in (2, 5, 20):
        effect = smallest_effect(0.1, worlds)
        assert power(effect, 0.1, worlds) == pytest.approx(0.8)
        assert worlds_needed(effect * 1.0001, 0.1) == worlds
    assert power(0.0, 0.1, 10) == pytest.approx(0.05)
    assert worlds_needed(1e-5, 1.0) is None
    with pytest.raises(ValueError, match=r"worlds, scatter: 1 and 0\.1"):
        power(0.1, 0.1, 1)


def test_a_plan_from_a_pilot(tmp_path: Path) -> None:
    write_comparison(tmp_path / "methods", {"one": {"grpo": SLOW, "recast": FAST}})
    rows = report(tmp_path, 0.1, "grpo").summary["rows"]
    assert [(row["method"], row["against"]) for row in rows] == [("recast", "grpo")] * 2
    assert rows[0]["scatter"] == pytest.approx(0, abs=1e-9)
    assert rows[0]["worlds"] == 2
    done = called(main, "plan", tmp_path, "--effect", 0.05)
    assert done.returncode == 0
    assert "worlds for 0.05" in done.stdout


def test_halves_of_the_prompts_tell_their_chance_from_the_worlds(tmp_path: Path) -> None:
    of_worlds, of_prompts, worlds = 0.02, 0.03, 400  # relative standard deviations of a difference; the whole set of prompts
    write_comparison(tmp_path / "methods", {"one": {"grpo": SLOW, "recast": FAST}}, worlds, ("pass_at_1_greedy",))
    runs, rng = pl.read_parquet(tmp_path / "methods" / "runs.parquet"), np.random.default_rng(1)
    world_S = rng.normal(0, of_worlds, worlds)
    first_S, second_S = (world_S + rng.normal(0, of_prompts * 2**0.5, worlds) for _ in range(2))
    noise = pl.DataFrame({"seed": range(worlds), "whole": (first_S + second_S) / 2, "first": first_S})
    noisy = runs.join(noise, on="seed").with_columns(
        pl.when(pl.col("method") == "recast").then(0.4 * (1 + pl.col(part))).otherwise(0.4).alias(column)
        for part, column in (("whole", "pass_at_1_greedy"), ("first", "pass_at_1_greedy_first_half"))
    )
    noisy.write_parquet(tmp_path / "methods" / "runs.parquet")
    (row,) = report(tmp_path, 0.01, "grpo").summary["rows"]
    whole = (of_worlds**2 + of_prompts**2) ** 0.5
    assert row["scatter"] == pytest.approx(whole, rel=0.1)
    assert row["prompt_share"] == pytest.approx((of_prompts / whole) ** 2, rel=0.15)
    fewer = worlds_needed(0.01, (of_worlds**2 + of_prompts**2 / 4) ** 0.5)
    assert row["worlds_at_four_times_the_prompts"] == pytest.approx(fewer, rel=0.25)


def test_a_pilot_of_an_older_version_says_so(tmp_path: Path) -> None:
    write_comparison(tmp_path / "methods", {"one": {"grpo": SLOW, "recast": FAST}})
    file = tmp_path / "methods" / "worlds.parquet"
    pl.read_parquet(file).drop("heldout_prompts").write_parquet(file)
    done = called(main, "plan", tmp_path)
    assert done.returncode == 2
    assert "no column 'heldout_prompts', so an older version made this comparison; run it again" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "run: missing"),
        (["{folder}", "--against", "sft"], "against: 'sft' is not among the methods"),
        (["{folder}", "--effect", "0"], "--effect: 0.0 must be above 0"),
        (["nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_planned_is_one_line(tmp_path: Path, arguments: list[str], words: str) -> None:
    write_comparison(tmp_path / "methods", {"one": {"grpo": SLOW, "recast": FAST}})
    done = called(main, "plan", *(word.format(folder=tmp_path) for word in arguments))
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
