"""Planned numbers of worlds have the power that is said."""

from pathlib import Path

import numpy as np
import pytest
from commands import called
from comparisons import write_comparison
from scipy.stats import ttest_1samp

from analysis.measures.power import power, smallest_effect, worlds_needed
from analysis.reports.plan import report
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


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "run: missing"),
        (["{folder}", "--against", "sft"], "against: 'sft' is not among the methods"),
        (["{folder}", "--effect", "0"], "--effect: 0 must be above 0"),
        (["nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_planned_is_one_line(tmp_path: Path, arguments: list[str], words: str) -> None:
    write_comparison(tmp_path / "methods", {"one": {"grpo": SLOW, "recast": FAST}})
    done = called(main, "plan", *(word.format(folder=tmp_path) for word in arguments))
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
