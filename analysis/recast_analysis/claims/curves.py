"""Claims 2, 3 and 9 to 12 from training curves, simulated or real alike.

Axes: S seeds, E evaluations of a run.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recast_analysis.claims.measurement import FAILS, FEWEST, WHERE, Row, judged, over_seeds
from recast_analysis.claims.paper import BUDGET, LEAST_GAIN, PERSISTS
from recast_analysis.measures.budget_curves import Curves, budget_ratio, gain
from recast_analysis.measures.metric_names import GREEDY, SAMPLED
from recast_analysis.measures.statistics import Interval
from recast_analysis.measures.trajectories import Trajectory, by_method, by_setting

GAIN = "+9.1 % to +36.6 % Pass@1"
_STABLE = "boundary-focused updates stabilise optimisation"


def training_rows(runs: Sequence[Trajectory], final_scores: bool = True) -> list[Row]:
    """All that the curves of grpo and recast say, from each start that has both.

    Args:
        final_scores: also claim 2, from the curves' ends; a real study has better ones, on test prompts.
    """
    rows = []
    for setting, own in by_setting(runs).items():
        methods, where = by_method(own), setting or "one start"
        if not {"grpo", "recast"} <= set(methods):
            continue
        recast, grpo = methods["recast"], methods["grpo"]
        for metric in (SAMPLED, GREEDY):
            ours, theirs = curves_of(recast, metric), curves_of(grpo, metric)
            if final_scores and (theirs.finals_S > 0).all():
                rows.append(gain_row(ours, theirs, where, metric))
            rows.append(budget_row(ours, theirs, where, metric))
        rows += dynamics(recast, grpo, where)
        rows += stability(recast, grpo, where)
    return rows


def curves_of(runs: Sequence[Trajectory], metric: str) -> Curves:
    """Curves of a method's evaluations."""
    return Curves.of({run.seed: run.evals for run in runs}, metric)


def gain_row(recast: Curves, grpo: Curves, where: str, metric: str) -> Row:
    """Claim 2: final scores."""
    found = gain(metric, [recast.finals_S], [grpo.finals_S])
    return judged_gain(found, f"{where}: final score of recast over grpo's, minus 1", metric)


def judged_gain(found: Interval, setting: str, metric: str) -> Row:
    """Claim 2 of a relative gain."""
    return judged(
        2, GAIN, found, setting, lambda i: i.above > 0, lambda i: i.above <= 0 and i.below >= LEAST_GAIN, metric=metric
    )


def budget_row(recast: Curves, grpo: Curves, where: str, metric: str) -> Row:
    """Claim 3: rollouts to the baseline's final score."""
    ratio = budget_ratio([recast], [grpo])
    interval, gained = Interval(ratio.value, ratio.low, ratio.high, ratio.seeds), 2 * ratio.trivial <= ratio.seeds
    note = f"; censored in {len(ratio.censored)} of {ratio.seeds} worlds" if ratio.censored else ""
    note += "" if gained else "; grpo itself gains nothing, so there is no budget to save"
    row = judged(
        3,
        "4.1 % of the baseline's rollouts",
        interval,
        f"{where}: rollouts to grpo's final score, of grpo's, restricted mean{note}",
        lambda i: i.above <= BUDGET and i.below < 1 and gained,
        lambda i: i.above <= BUDGET and gained,
        metric=metric,
    )
    if row["verdict"] == FAILS and interval.below < 1 and gained:
        row |= {"verdict": WHERE, "setting": row["setting"] + "; cheaper, not by the paper's factor"}
    return row


def dynamics(recast: Sequence[Trajectory], grpo: Sequence[Trajectory], where: str) -> list[Row]:
    """Claims 9 and 10: the first and the last tenth of the logged steps."""
    (first_S, last_S), (_, recast_S) = (_ends(runs, "before_all_zero") for runs in (grpo, recast))
    before_S, after_S = _ends(recast, "repaired")
    rows = [
        judged(
            9,
            "the all-zero / single-hit regime persists in the baseline",
            over_seeds(last_S),
            f"{where}: all-zero share in grpo's last steps (first steps {first_S.mean():.2f}); criterion above one half",
            lambda i: i.above > PERSISTS,
        ),
        judged(
            9,
            "ReCast relieves it",
            over_seeds(recast_S - last_S),
            f"{where}: all-zero share as sampled in the last steps, recast minus grpo",
            lambda i: i.below < 0,
        ),
    ]
    if (before_S > 0).all():  # a share of nothing cannot fade
        words = f"{where}: repaired share in the last steps over the first steps (first {before_S.mean():.2f})"
        ratio = over_seeds(after_S / before_S)
        rows.append(judged(10, "repair triggers often at first, then fades", ratio, words, lambda i: i.below < 1))
    return rows


def stability(recast: Sequence[Trajectory], grpo: Sequence[Trajectory], where: str) -> list[Row]:
    """Claim 11 of training: falls of greedy Pass@1 on the way, spikes of the gradient's norm, scatter over seeds.

    None of them changes when all gradients are rescaled. Falls and scatter need a start above 0, the scatter three seeds.
    """
    rows, curves = [], [curves_of(runs, GREEDY) for runs in (recast, grpo)]
    if all((c.starts_S > 0).all() for c in curves):  # a fall is a share of the start
        falls = [((np.maximum.accumulate(c.scores_SE, 1) - c.scores_SE) / c.scores_SE[:, :1]).max(1) for c in curves]
        words = f"{where}: deepest fall of {GREEDY} below its running best, of the start, recast minus grpo"
        rows.append(judged(11, _STABLE, over_seeds(falls[0] - falls[1]), words, lambda i: i.below < 0, metric=GREEDY))
    spikes = [np.array([_spike(run) for run in runs]) for runs in (recast, grpo)]
    if all(np.isfinite(part).all() for part in spikes):
        words = f"{where}: log of the largest gradient norm of a run over its median, recast minus grpo"
        rows.append(judged(11, _STABLE, over_seeds(np.log(spikes[0] / spikes[1])), words, lambda i: i.below < 0))
    if all((c.starts_S > 0).all() and (c.finals_S > 0).all() for c in curves) and len(recast) >= FEWEST:
        gains = [np.log(c.finals_S / c.starts_S) for c in curves]
        off = [np.abs(part - np.median(part)) for part in gains]  # as Brown and Forsythe compare variances
        words = f"{where}: distance of a seed's log gain in {GREEDY} from the median seed's, recast minus grpo"
        rows.append(judged(11, _STABLE, over_seeds(off[0] - off[1]), words, lambda i: i.below < 0, metric=GREEDY))
    return rows


def variance_row(recast_S: NDArray[np.float64], grpo_S: NDArray[np.float64], groups: int, where: str) -> Row:
    """Claim 11 of relative variances of one group's gradient estimate: the share of a step's mean squared norm that is noise,
    so that both methods take steps of the same size."""
    shares = [noise / groups / (1 + noise / groups) for noise in (recast_S, grpo_S)]
    words = (
        f"{where}: share of a step's mean squared norm that is noise, {groups} groups, recast minus grpo "
        f"(grpo {shares[1].mean():.3f})"
    )
    return judged(11, _STABLE, over_seeds(shares[0] - shares[1]), words, lambda i: i.below < 0)


def repair_row(found: Interval, where: str, metric: str) -> Row:
    """Claim 12 of repair_only's relative gain over grpo."""
    paper = "repair alone can turn negative on a strong backbone"
    words = f"{where}: final score of repair_only over grpo's, minus 1"
    return judged(12, paper, found, words, lambda i: i.below < 0, metric=metric)


def scale_row(log_ratio_RS: NDArray[np.float64], names: Sequence[str], where: str, metric: str) -> Row:
    """Claim 4 of log(recast / grpo) on R rungs of a ladder of sizes, smallest first."""
    slopes_S = np.polynomial.polynomial.polyfit(np.arange(len(names)), log_ratio_RS, 1)[1]
    middles = [100 * np.expm1(row.mean()) for row in log_ratio_RS]
    ends = ", ".join(f"{name} {middle:+.0f} %" for name, middle in zip(names, middles, strict=True))
    ahead = bool(middles[-1] > 0)  # an advantage that is not there cannot widen
    words = f"{where}: slope of log(recast / grpo) a rung of capacity ({ends})"
    words += "" if ahead else "; recast is behind on the largest"
    slope = over_seeds(slopes_S)
    return judged(4, "the advantage widens with model scale", slope, words, lambda i: i.above > 0 and ahead, metric=metric)


def _spike(run: Trajectory) -> float:
    """Largest gradient norm of a step over the median; inf where there is none."""
    steps = run.steps
    if "gradient_norm" not in steps.columns:
        return np.inf
    largest = steps["gradient_norm_max" if "gradient_norm_max" in steps.columns else "gradient_norm"].drop_nulls().to_numpy()
    middle = steps["gradient_norm"].drop_nulls().to_numpy()
    return float(largest.max() / np.median(middle)) if len(middle) and np.median(middle) > 0 else np.inf


def _ends(runs: Sequence[Trajectory], column: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means over the first and the last tenth of each seed's logged steps, (S,) each."""
    shares = [run.steps[column].to_numpy().astype(np.float64) for run in runs]
    tenths = [max(1, len(share) // 10) for share in shares]
    ends = [(share[:n].mean(), share[-n:].mean()) for share, n in zip(shares, tenths, strict=True)]
    return np.array([first for first, _ in ends]), np.array([last for _, last in ends])
