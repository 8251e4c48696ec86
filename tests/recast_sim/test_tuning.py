"""A grid grows until the best rate lies inside, and says where it does not."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from recast_sim.tuning import GROWTHS, Scores, Trial, Tuned, tune

PLACE = ("world", "method")


def tuned(score: Callable[[float], float], grid: Sequence[float] = (0.01, 0.03, 0.1)) -> tuple[Tuned, list[float]]:
    tried: list[float] = []

    def run(trials: Sequence[Trial]) -> list[Scores]:
        tried.extend(rate for _, rate in trials)
        return [{"metric": [score(rate), score(rate)]} for _, rate in trials]

    return tune([PLACE], ["metric"], grid, run), tried


@pytest.mark.parametrize("best", [0.001, 0.003, 0.03, 0.3, 1.0])
def test_the_grid_grows_to_either_side_until_the_best_rate_is_inside(best: float) -> None:
    found, tried = tuned(lambda rate: -abs(np.log(rate / best)))
    assert found.rates[*PLACE, "metric"] == best
    grid = found.grids[PLACE]
    assert grid[0] < best < grid[-1]
    assert sorted(tried) == grid  # nothing is tried twice
    assert len(grid) <= 3 + GROWTHS


def test_a_best_rate_inside_needs_no_more() -> None:
    found, tried = tuned(lambda rate: -abs(np.log(rate / 0.03)))
    assert tried == [0.01, 0.03, 0.1]
    assert found.scores[PLACE, 0.03] == {"metric": [0.0, 0.0]}


def test_a_method_that_only_gets_worse_stops_growing_and_one_given_rate_is_not_a_grid() -> None:
    found, _ = tuned(lambda rate: -rate)
    assert len(found.grids[PLACE]) == 3 + GROWTHS
    assert found.rates[*PLACE, "metric"] == found.grids[PLACE][0]
    assert tuned(lambda rate: rate, (0.01,))[0].grids[PLACE] == [0.01]


def test_a_new_rate_lies_at_most_tenfold_beyond() -> None:
    assert tuned(lambda rate: -rate, (0.001, 1e9))[1] == [0.001, 1e9, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9]


def test_each_method_has_its_own_grid_and_each_metric_its_own_rate() -> None:
    wanted = {("world", "a"): {"x": 0.03, "y": 0.3}, ("world", "b"): {"x": 0.03, "y": 0.03}}

    def run(trials: Sequence[Trial]) -> list[Scores]:
        return [{m: [-abs(np.log(rate / best))] for m, best in wanted[place].items()} for place, rate in trials]

    found = tune(list(wanted), ["x", "y"], (0.01, 0.03, 0.1), run)
    assert found.rates == {(*place, metric): best for place, of_metric in wanted.items() for metric, best in of_metric.items()}
    assert found.grids["world", "b"] == [0.01, 0.03, 0.1]
    assert found.grids["world", "a"][-1] > 0.3


def test_a_rate_that_diverged_is_never_chosen() -> None:
    found, _ = tuned(lambda rate: -np.inf if rate > 0.05 else rate)
    assert found.rates[*PLACE, "metric"] <= 0.05
