"""How often studies that `recast-report plan` planned for 80 % power find the effect; how often its intervals hold the truth.

    PYTHONPATH=analysis python benchmarks/planned_studies.py [--studies 200] [--logs 1000] [--json]

A study: a log of 400 prompts, 16 rollouts each, is drawn and planned from, for an effect of 20 % and as many prompts as the
planner says. Then S seeds of two methods are drawn on prompts of their own, one draw a prompt, and judged by the two-way
interval. A seed lifts the better method's hit rates by 1 + effect + scatter * N(0, 1). Coverage: of dead and learnable shares,
mean hit rates and prompts needed, on logs of several kinds.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recast_analysis.measures.two_way import two_way_interval
from recast_analysis.planner.hit_rates import Estimate, Fitted, hit_rates
from recast_analysis.planner.prompt_hits import PromptHits
from recast_analysis.planner.study_size import Scatter, prompts_needed, scatter_between, study
from recast_sim.closed_forms.hit_prediction import flat_shares, power_moment

A, B = 0.5, 4.5  # of the hit rates: mean .1, so that half of the groups of 8 are dead
LOG_PROMPTS, LOG_ROLLOUTS = 400, 16
EFFECT, MOST_PROMPTS = 0.2, 100_000
COVERED = ((1.0, 9.0, 50, 8), (1.0, 9.0, 400, 8), (0.3, 10.0, 400, 16), (1.2, 227.0, 1000, 32), (5.0, 5.0, 100, 4))
SIZES = (4, 32, 512)


@dataclass(frozen=True)
class Case:
    """A kind of study: its seeds, their scatter, the effect that is there, and how the scatter is known.

    Attributes:
        replicates: logs of other seeds that the scatter is measured by; 0: it is given.
        same_flips: each prompt's difference is the same in every seed, as greedy hits may be.
    """

    name: str
    seeds: int
    scatter: float
    effect: float = EFFECT
    replicates: int = 0
    same_flips: bool = False


CASES = (
    Case("one seed, a pair of checkpoints", 1, 0.0),
    Case("5 seeds, no scatter", 5, 0.0),
    Case("5 seeds, scatter 5 % given", 5, 0.05),
    Case("10 seeds, scatter 10 % given", 10, 0.10),
    Case("10 seeds, scatter 10 % by 4 logs", 10, 0.10, replicates=4),
    Case("10 seeds, scatter 10 % by 10 logs", 10, 0.10, replicates=10),
    Case("5 seeds that hit the same prompts, planned as one seed", 5, 0.0, same_flips=True),
    Case("10 seeds, scatter 10 % given, no effect there", 10, 0.10, effect=0.0),
)


def log_of(hits_P: NDArray[np.int64], rollouts: int) -> PromptHits:
    """A log of so many rollouts of each prompt."""
    rows_P = np.full(len(hits_P), rollouts)
    return PromptHits(np.arange(len(hits_P)), hits_P, rows_P, rollouts, None, None, None, None, "drawn", [])


def planned_prompts(case: Case, rng: np.random.Generator) -> float:
    """What the planner asks for, from a fresh log; infinite where it says that no number is enough."""
    rate_P = rng.beta(A, B, LOG_PROMPTS)
    log = log_of(rng.binomial(LOG_ROLLOUTS, rate_P), LOG_ROLLOUTS)
    scatter = Scatter(Estimate(case.scatter, case.scatter, case.scatter), "given") if case.scatter else None
    if case.replicates:
        own_R = 1 + case.scatter / 2**0.5 * rng.standard_normal(case.replicates)
        scatter = scatter_between(
            [log_of(rng.binomial(LOG_ROLLOUTS, np.clip(rate_P * own, 0, 1)), LOG_ROLLOUTS) for own in own_R]
        )
    found = study(hit_rates(log), EFFECT, None, scatter)
    assert not isinstance(found, str), found
    seeds = 1 if case.same_flips else case.seeds
    return float(next(row for row in found.rows if row.seeds == seeds).prompts.value or np.inf)


def drawn_study(case: Case, prompts: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Differences of one draw a prompt, (S, P)."""
    rate_P = rng.beta(A, B, prompts)
    lift_S1 = 1 + case.effect + case.scatter * rng.standard_normal((case.seeds, 1))
    shape = (1, prompts) if case.same_flips else (case.seeds, prompts)
    better = rng.random(shape) < np.clip(rate_P * lift_S1, 0, 1)
    return better.astype(np.float64) - (rng.random(shape) < rate_P)


def studies(case: Case, number: int, seed: int) -> dict[str, float]:
    """The share of studies that found a difference above 0, and the prompts that they took."""
    rng = np.random.default_rng(seed)
    planned = [planned_prompts(case, rng) for _ in range(number)]
    found = 0
    for prompts in planned:
        interval = two_way_interval(drawn_study(case, int(min(prompts, MOST_PROMPTS)), rng))
        found += interval.p is not None and interval.p < 0.05 and (interval.value > 0 or case.effect == 0)
    return {"found": found / number, "prompts": float(np.median(planned)), "never": float(np.isinf(planned).mean())}


def coverage(a: float, b: float, prompts: int, rollouts: int, logs: int, seed: int) -> dict[str, float]:
    """How often the intervals hold the truth: shares at `SIZES`, mean hit rate, and prompts needed for one seed."""
    rng = np.random.default_rng(seed)
    mean, theta = np.array([a / (a + b)]), np.array([1 / (a + b)])
    zero, full = flat_shares(mean, theta, SIZES)
    need = prompts_needed(float(mean[0]), float(power_moment(mean, theta, 2, 0)[0]), EFFECT, 0.0, 1)
    held: dict[str, list[bool]] = {}
    for _ in range(logs):
        rates = hit_rates(log_of(rng.binomial(rollouts, rng.beta(a, b, prompts)), rollouts))
        if not isinstance(rates, Fitted):
            held.setdefault("refused", []).append(True)
            continue
        for name, truth, estimate in _held(rates, zero[0], full[0], float(mean[0]), need):
            held.setdefault(name, []).append(estimate.low <= truth <= estimate.high)
    refused = len(held.pop("refused", []))
    return {name: float(np.mean(values)) for name, values in held.items()} | {"refused": refused / logs}


def _held(
    rates: Fitted, zero_G: NDArray[np.float64], full_G: NDArray[np.float64], mean: float, need: float
) -> Iterator[tuple[str, float, Estimate]]:
    for G, zero, full in zip(SIZES, zero_G, full_G, strict=True):
        of_zero, _, of_learnable = rates.flat(G)
        yield f"all-zero at {G}", float(zero), of_zero
        yield f"learnable at {G}", float(1 - zero - full), of_learnable
    yield "mean", mean, rates.mean
    planned = study(rates, EFFECT, None, None)
    assert not isinstance(planned, str), planned
    yield "prompts for one seed", need, planned.rows[0].prompts


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=200)
    parser.add_argument("--logs", type=int, default=1000)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    result = {
        "studies": {case.name: studies(case, given.studies, seed) for seed, case in enumerate(CASES if given.studies else ())},
        "coverage": {
            f"Beta({a:g}, {b:g}), {P} prompts of {n}": coverage(a, b, P, n, given.logs, seed)
            for seed, (a, b, P, n) in enumerate(COVERED if given.logs else ())
        },
    }
    if given.json:
        print(json.dumps(result))
        return
    print(f"{given.studies} studies each: found, median prompts, planned as impossible")
    for name, row in result["studies"].items():
        print(f"  {name:58} {100 * row['found']:5.1f} % {row['prompts']:9,.0f} {100 * row['never']:5.1f} %")
    print(f"{given.logs} logs each: share of intervals that hold the truth, %")
    for name, row in result["coverage"].items():
        print(f"  {name}: " + ", ".join(f"{key} {100 * value:.1f}" for key, value in row.items()))


if __name__ == "__main__":
    main(sys.argv[1:])
