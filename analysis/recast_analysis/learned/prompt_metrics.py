"""Figures of each prompt before and after: what no temperature buys, what one does, and the two parts of a gain.

Axes: N prompts. A figure that a prompt lacks is NaN.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recast_analysis.learned.candidate_scores import CandidateScores, Floats, calibrated
from recast_analysis.learned.paired_prompts import PairedPrompts
from recast_analysis.learned.scored_prompts import ScoredPrompts

CUTS = (1, 5, 10, 20, 50)
K = 10  # of NDCG


@dataclass(frozen=True)
class Figure:
    """One figure of both models.

    Attributes:
        name: such as "hr@10".
        before_N, after_N: its value on each prompt; a part of a gain is a difference by itself, and its `before_N` is 0.
        supervised_N: of continued supervision, where that is there and gives it.
    """

    name: str
    before_N: Floats
    after_N: Floats
    supervised_N: Floats | None = None


@dataclass(frozen=True)
class PromptFigures:
    """All figures that the files allow, the temperatures that were fitted, and what could not be had.

    Attributes:
        depth: down to which ranks are known in all files.
        temperatures: fitted T of each model by its name, one a level.
        left_out: sentences.
    """

    figures: list[Figure]
    depth: float
    temperatures: dict[str, tuple[float, ...]]
    left_out: list[str]


def prompt_figures(paired: PairedPrompts, seed: int) -> PromptFigures:
    """Figures of matched prompts. The seed parts users in two halves, each of which is scored at the T that fits the other."""
    sides = {"BEFORE": paired.before, "AFTER": paired.after}
    if paired.supervised is not None:
        sides["SUPERVISED"] = paired.supervised
    left_out: list[str] = []
    depth = min((side.depth for side in sides.values() if side.rank_N is not None), default=np.inf)
    found = [*_of_ranks(sides, depth, left_out), *_of_scores(sides)]
    half_U = np.random.default_rng(seed).permutation(paired.units) % 2
    brought = [name for name in paired.after.given if name in paired.before.given]
    levels, temperatures = {} if brought else _fittable(sides, left_out), {}
    if levels:
        fitted = {name: calibrated(own, half_U[paired.unit_N]) for name, own in levels.items()}
        temperatures = {name: T for name, (_, T) in fitted.items()}
        found.append(_figure("calibrated_log_likelihood", {name: logprob_N for name, (logprob_N, _) in fitted.items()}))
    found += [_figure(name, {side: own.given.get(name) for side, own in sides.items()}) for name in brought]
    found += _parts(paired, left_out)
    return PromptFigures(found, depth, temperatures, left_out)


def _of_ranks(sides: dict[str, ScoredPrompts], depth: float, left_out: list[str]) -> Iterator[Figure]:
    ranks = {name: side.rank_N for name, side in sides.items()}
    if ranks["BEFORE"] is None or ranks["AFTER"] is None:
        left_out.append("HR, NDCG and MRR: a file has neither ranks nor lists")
        return
    seen = {name: np.where(rank_N <= depth, rank_N, np.inf) for name, rank_N in ranks.items() if rank_N is not None}
    for k in CUTS:
        if k <= depth:
            yield _figure(f"hr@{k}", {name: (rank_N <= k).astype(np.float64) for name, rank_N in seen.items()})
    gains = {name: np.where(rank_N <= K, 1 / np.log2(1 + rank_N), 0.0) for name, rank_N in seen.items()}
    if depth >= K:
        yield _figure(f"ndcg@{K}", gains)
    yield _figure("mrr" if np.isinf(depth) else f"mrr@{depth:.0f}", {name: 1 / rank_N for name, rank_N in seen.items()})
    if missing := [f"HR@{k}" for k in CUTS if k > depth]:
        left_out.append(f"{', '.join(missing)}: ranks are known down to {depth:.0f}; where beams were wider, give --beam WIDTH")


def _of_scores(sides: dict[str, ScoredPrompts]) -> Iterator[Figure]:
    greedy = {name: side.greedy_N for name, side in sides.items()}
    logprobs = {name: _logprob(side) for name, side in sides.items()}
    entropies = {name: _entropy(side) for name, side in sides.items()}
    sampled = {name: None if value_N is None else np.exp(value_N) for name, value_N in logprobs.items()}
    named = {"greedy": greedy, "pass_at_1_sampled": sampled, "log_likelihood": logprobs}
    widths = {None if side.logprob_NL is None else side.logprob_NL.shape[1] for side in sides.values()}
    if len(widths) == 1 and (width := widths.pop()) is not None and width > 1:
        for level in range(width):
            named[f"log_likelihood_level_{level + 1}"] = {
                name: side.logprob_NL[:, level] for name, side in sides.items() if side.logprob_NL is not None
            }
    for name, values in (named | {"entropy": entropies}).items():
        if values["BEFORE"] is not None and values["AFTER"] is not None:
            yield _figure(name, values)


def _figure(name: str, values: dict[str, Floats] | dict[str, Floats | None]) -> Figure:
    before_N, after_N = values["BEFORE"], values["AFTER"]
    assert before_N is not None
    assert after_N is not None
    return Figure(name, before_N, after_N, values.get("SUPERVISED"))


def _logprob(side: ScoredPrompts) -> Floats | None:
    """The target's log-probability: as the file has it, else from scores that are all of a distribution."""
    if side.logprob_NL is not None:
        return side.logprob_NL.sum(1)
    if side.candidates is not None and side.candidates.whole:
        return side.candidates.target_logprob()
    return np.sum([level.target_logprob() for level in side.levels], axis=0) if side.levels else None


def _entropy(side: ScoredPrompts) -> Floats | None:
    if side.entropy_N is not None:
        return side.entropy_N
    return side.candidates.entropy() if side.candidates is not None and side.candidates.whole else None


def _fittable(sides: dict[str, ScoredPrompts], left_out: list[str]) -> dict[str, tuple[CandidateScores, ...]]:
    """What a temperature can be fitted to, the same for all models: levels, or scores of the same items."""
    what = "log-likelihood at a fitted temperature"
    if all(side.levels for side in sides.values()):
        return {name: side.levels for name, side in sides.items()}
    lists = {name: side.candidates for name, side in sides.items() if side.candidates is not None}
    if len(lists) < len(sides):
        left_out.append(
            f"{what}: from the target's own log-probability no temperature can be fitted; it takes the scores of all "
            "candidates (scores), or of each level's (level_scores), in all files"
        )
        return {}
    same = all((own.set_N == lists["BEFORE"].set_N).all() for own in lists.values())
    if not same and not all(own.whole for own in lists.values()):
        held = " and ".join(f"{100 * own.mass:.0f} %" for own in lists.values())
        left_out.append(
            f"{what}: the files score different items, which hold {held} of the probability, so that the fitted figures "
            "would be of two different questions; score the same items in all files"
        )
        return {}
    return {name: (own,) for name, own in lists.items()}


def _parts(paired: PairedPrompts, left_out: list[str]) -> Iterator[Figure]:
    """Sharpened, learned, and sampled Pass@1 at the entropy of BEFORE (`recast_sim.world.learning` defines them).

    The T of a matched mean entropy depends on all prompts. To first order that moves a prompt's part by the slope of Pass@1 in
    entropy times the prompt's own mismatch; it adds 0 to the mean, and makes the interval hold the chance of T too.
    """
    before, after, nothing_N = paired.before.candidates, paired.after.candidates, np.zeros(len(paired.before))
    if before is None or after is None or not (before.whole and after.whole):
        ready = [name for name in ("sharpened", "learned") if name in paired.after.given]
        yield from (Figure(name, nothing_N, paired.after.given[name]) for name in ready)
        if not ready:
            left_out.append(
                "sharpened and learned parts, Pass@1 at BEFORE's entropy: they take the scores of all items in both"
            )
        return
    own_N, start_N = np.exp(after.target_logprob()), np.exp(before.target_logprob())
    cooled_N = _at_entropy(before, after.entropy())
    yield Figure("pass_at_1_sampled_at_start_entropy", start_N, _at_entropy(after, before.entropy()))
    yield Figure("sharpened", nothing_N, cooled_N - start_N)
    yield Figure("learned", nothing_N, own_N - cooled_N)


def _at_entropy(own: CandidateScores, entropy_N: NDArray[np.float64]) -> Floats:
    temperature = own.temperature_of(float(entropy_N.mean()))
    mismatch_N = entropy_N - own.entropy(temperature)
    if abs(mismatch_N.mean()) > 1e-6:  # out of reach
        mismatch_N = np.zeros_like(mismatch_N)
    return np.exp(own.target_logprob(1 / temperature)) + own.pass_at_1_by_entropy(temperature) * mismatch_N
