"""Planned studies have the promised power, intervals hold the truth. The full figures: benchmarks/planned_studies.py."""

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from recast_analysis.measures.crossed_means import mean_squares
from recast_analysis.measures.two_way import TwoWayParts, two_way_interval
from recast_sim.world.environment import EnvironmentConfig

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
STUDIES = 60  # a standard error of 5 % at 80 %


@pytest.fixture
def planned_studies(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import planned_studies

    return planned_studies


@pytest.mark.parametrize("case", [1, 3])
def test_studies_that_are_planned_for_80_percent_find_the_effect_as_often(planned_studies: ModuleType, case: int) -> None:
    found = planned_studies.studies(planned_studies.CASES[case], STUDIES, seed=1)
    assert found["never"] == 0
    assert 0.65 <= found["found"] <= 0.95  # three standard errors


def test_intervals_of_small_logs_hold_the_truth(planned_studies: ModuleType) -> None:
    held = planned_studies.coverage(1.0, 9.0, 100, 8, logs=60, seed=3)
    assert held.pop("refused") == 0
    assert min(held.values()) >= 0.85  # 95 expected, standard error 2.8
    assert len(held) == 8


def test_studies_of_trained_policies_run_on_a_tiny_world(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import planned_runs

    small = EnvironmentConfig(items=40, sizes=(4, 4, 4), dim=6, beta=4.0, train_prompts=256, heldout_prompts=128)
    for name, value in {"WORLD": small, "STEPS": 4, "SEEDS": (1, 3)}.items():
        monkeypatch.setattr(planned_runs, name, value)
    planned_runs.main(["--studies", "5", "--seeds", "4", "--json"])
    rows = json.loads(capsys.readouterr().out)
    assert [(row["metric"], row["seeds"]) for row in rows] == [(name, n) for name in ("sampled", "greedy") for n in (1, 3)]
    assert all(row["effect"] > 0 and 2 <= row["prompts"] <= 100_000 and 0 <= row["found"] <= 1 for row in rows)


def test_mean_squares_are_those_of_a_table_by_hand() -> None:
    assert mean_squares(np.array([[1.0, 3.0], [2.0, 4.0], [3.0, 8.0]])) == pytest.approx((6.5, 13.5, 1.5))


@pytest.mark.property
@pytest.mark.parametrize(("seeds", "prompts", "rest"), [(0.02, 0.0, 0.1), (0.01, 0.3, 0.3), (0.0, 0.0, 1.0)])
def test_the_two_way_interval_holds_the_mean_and_its_power_is_had(seeds: float, prompts: float, rest: float) -> None:
    rng, parts, S, P = np.random.default_rng(6), TwoWayParts(seeds, prompts, rest), 5, 40
    effect = 3.2 * (seeds / S + prompts / P + rest / (S * P)) ** 0.5
    held = found = 0
    for _ in range(1500):
        own = rng.standard_normal((S, 1)) * seeds**0.5 + rng.standard_normal(P) * prompts**0.5
        interval = two_way_interval(effect + own + rng.standard_normal((S, P)) * rest**0.5)
        held += interval.above <= effect <= interval.below
        found += interval.p is not None and interval.p < 0.05
    assert held / 1500 == pytest.approx(0.95, abs=0.025)
    assert found / 1500 == pytest.approx(parts.power(effect, S, P), abs=0.05)


def test_one_seed_is_a_test_over_prompts_and_bad_tables_are_refused() -> None:
    values = np.array([[0.0, 1.0, 0.0, 1.0, 1.0]])
    assert two_way_interval(values).n == 5
    assert TwoWayParts(9.0, 0.2, 0.3).power(0.1, 1, 100) == pytest.approx(TwoWayParts(0.0, 0.3, 0.2).power(0.1, 1, 100))
    assert two_way_interval(np.ones((3, 4))).p == 0
    with pytest.raises(ValueError, match=r"shape \(3,\) must be"):
        two_way_interval(np.ones(3))
    with pytest.raises(ValueError, match="must be finite"):
        two_way_interval(np.array([[1.0, np.nan]]))
    with pytest.raises(ValueError, match="seeds, prompts: 0 and 9"):
        TwoWayParts(1.0, 1.0, 1.0).power(0.1, 0, 9)
