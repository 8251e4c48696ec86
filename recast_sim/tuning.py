"""Learning rates: every method starts from one grid, which grows for it until its best rate lies inside."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from recast_sim.comparing import best_rates

GROWTHS = 6  # rates added to an end at most: where the best is still there, that is said (`at_edge`)
Place = tuple[str, str]  # setting, method
Trial = tuple[Place, float]
Scores = Mapping[str, Sequence[float]]  # of a metric, one score a tuning world


@dataclass(frozen=True)
class Tuned:
    """Rates and how they were found.

    Attributes:
        rates: the best rate by setting, method and metric.
        grids: every rate that was tried by setting and method, ascending.
        scores: of every trial.
    """

    rates: dict[tuple[str, str, str], float]
    grids: dict[Place, list[float]]
    scores: dict[Trial, Scores]


def tune(
    places: Sequence[Place],
    metrics: Sequence[str],
    grid: Sequence[float],
    run: Callable[[Sequence[Trial]], Sequence[Scores]],
    growths: int = GROWTHS,
) -> Tuned:
    """Try the grid in every place, then one rate more beyond each end at which a metric is best, until none is.

    A grid of one rate does not grow: that rate is given, not chosen. A new rate is as far from the end as the grid's rates are
    from each other on average, as a ratio, at most tenfold, to one digit.

    Args:
        run: scores of trials, in their order; -inf of a rate that diverged.
        growths: rates that an end of the grid gets at most.
    """
    grids, scores = {place: sorted(grid) for place in places}, dict[Trial, Scores]()
    rates, todo = dict[tuple[str, str, str], float](), [(place, rate) for place in places for rate in grid]
    for growth in range(growths + 1):
        scores |= zip(todo, run(todo), strict=True)
        rates = _best(scores, metrics)
        todo = [(place, rate) for place in places for rate in _beyond(place, grid, grids[place], metrics, rates)]
        if not todo or len(grid) == 1 or growth == growths:
            break
        for place, rate in todo:
            grids[place] = sorted({*grids[place], rate})
    return Tuned(rates, grids, scores)


def _best(scores: Mapping[Trial, Scores], metrics: Sequence[str]) -> dict[tuple[str, str, str], float]:
    trials = [
        ((*place, metric), rate, score)
        for (place, rate), of_metric in scores.items()
        for metric in metrics
        for score in of_metric[metric]
    ]
    return {key: rate for key, (rate, _) in best_rates(trials).items()}


def _beyond(
    place: Place,
    first: Sequence[float],
    grid: Sequence[float],
    metrics: Sequence[str],
    rates: Mapping[tuple[str, str, str], float],
) -> list[float]:
    """The next rates outside the grid, which began as `first`, where a metric is best at an end."""
    best, low, high = {rates[*place, metric] for metric in metrics}, min(first), max(first)
    ratio = min(10.0, (high / low) ** (1 / max(1, len(first) - 1)))
    below, above = sum(rate < low for rate in grid), sum(rate > high for rate in grid)
    wanted = [low / ratio ** (below + 1)] * (grid[0] in best) + [high * ratio ** (above + 1)] * (grid[-1] in best)
    return [float(f"{rate:.1g}") for rate in wanted]
