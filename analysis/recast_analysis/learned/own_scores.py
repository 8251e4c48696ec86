"""Scores of our own runs: what the evaluation of a stage of `recast-train run` or `study` left, read without torch."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recast_analysis.learned.learned_error import LearnedError
from recast_analysis.learned.prompt_metrics import CUTS
from recast_analysis.learned.scored_prompts import ScoredPrompts
from recast_sim.bounded import MEGABYTE, read_bounded, read_json_file
from recast_sim.runs.reader import read_manifest

_MOST = 4096 * MEGABYTE
_REPEATS = 0.05  # share of targets seen before from which seen items are not filtered, as recast_train.data.references has it
_WANTED = ("user_N", "rank_seen_filtered_N", "rank_unfiltered_N", "repeats_N", "probability_N", "greedy_N")
_PARTS = ("sharpened", "learned")
Arrays = dict[str, NDArray[Any]]


def read_stage(folder: Path, before: Path | None) -> ScoredPrompts:
    """The scores of a stage's folder (RUN/sft, RUN/rl/METHOD) or of the evaluation/ in it.

    Ids are places among the test prompts with a hash of all of them, so that runs of other prompts never match.

    Args:
        before: the folder that it is held against; the ready-made parts, sharpened and learned, count if it began from that.

    Raises:
        LearnedError: no evaluated stage, or a damaged one; RunError: a damaged manifest.
    """
    where = folder if (folder / "scores.safetensors").exists() else folder / "evaluation"
    if not (where / "scores.safetensors").exists():
        stages = sorted(str(found.parent.parent) for found in folder.glob("**/evaluation/scores.safetensors"))[:6]
        fix = (
            f"name one of {', '.join(stages)}"
            if stages
            else "name a score file, or RUN/sft or RUN/rl/METHOD of recast-train run"
        )
        raise LearnedError(f"{folder}: no evaluated stage of a run; {fix}")
    found = _arrays(where / "scores.safetensors", _WANTED)
    made_from = _json(where / "made_from.json")
    policy = "unfiltered" if found["repeats_N"].mean() >= _REPEATS else "seen_filtered"
    rank_N, bound_N = found[f"rank_{policy}_N"], found.get(f"bound_{policy}_N")
    lowest = np.inf if bound_N is None else rank_N[bound_N > 0].min(initial=np.inf)
    if np.isfinite(lowest):  # exact down to the evaluation's largest cut, and by chance a little deeper
        lowest = 1.0 + max((k for k in CUTS if k < lowest), default=0)
    probability_N = found["probability_N"]
    prompts = made_from.get("test prompts", "")
    positive = bool((probability_N > 0).all())
    notes = [] if positive else [f"{where}: some targets have probability 0, so log-likelihoods are left out"]
    given = _learning(where, len(rank_N), found["user_N"], _began_from(where.parent, before))
    return ScoredPrompts(
        source=str(folder),
        id_N=[f"{prompts}/{place}" for place in range(len(rank_N))],
        user_N=[str(user) for user in found["user_N"]],
        rank_N=np.where(rank_N < lowest, rank_N, np.inf),
        depth=lowest - 1,
        logprob_NL=np.log(probability_N)[:, None] if positive else None,
        greedy_N=found["greedy_N"],
        given=given,
        notes=(*notes, f"{where}: ranks are {policy.replace('_', '-')} ones, as the run's own report has them"),
    )


def _learning(where: Path, count: int, user_N: NDArray[Any], with_parts: bool) -> dict[str, NDArray[np.float64]]:
    """Figures of the prompts on which learning was told from sharpening, NaN on the others.

    The folder names their users alone, so figures of a user with several prompts are placed in the order of both tables.
    """
    file = where / "learning.safetensors"
    if not file.exists():
        return {}
    names = ("calibrated_log_likelihood", *(_PARTS if with_parts else ()))
    found = _arrays(file, ("user", *names))
    places: dict[Any, list[int]] = {}
    for place, user in enumerate(user_N.tolist()):
        places.setdefault(user, []).append(place)
    try:
        index = np.array([places[user].pop(0) for user in found["user"].tolist()], dtype=np.int64)
    except (KeyError, IndexError):
        raise LearnedError(f"{file}: its users are not those of scores.safetensors; evaluate the run again") from None
    given = {name: np.full(count, np.nan) for name in names}
    for name, value_N in given.items():
        value_N[index] = found[name]
    return given


def _began_from(stage: Path, before: Path | None) -> bool:
    """Whether a stage's training began from the stage in another folder."""
    if before is None or not (stage / "manifest.json").exists():
        return False
    own = read_manifest(stage)["config"].get("made_from", {})
    inside = before if (before / "made_from.json").exists() else before / "evaluation"
    there = _json(inside / "made_from.json")
    return isinstance(own, dict) and own.get("start") is not None and own["start"] == there.get("model")


def _json(file: Path) -> dict[str, Any]:
    try:
        found = read_json_file(file, LearnedError)
    except OSError as error:
        raise LearnedError(f"{file}: not readable ({error.strerror}); evaluate the run again") from error
    if not isinstance(found, dict):
        raise LearnedError(f"{file}: holds no JSON object; evaluate the run again")
    return found


def _arrays(file: Path, wanted: tuple[str, ...]) -> Arrays:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        found = load(read_bounded(file, _MOST, LearnedError))
    except (OSError, SafetensorError, KeyError, TypeError) as error:
        raise LearnedError(f"{file}: not readable ({error}); evaluate the run again") from error
    lengths = {value.shape for value in found.values()}
    missing = [name for name in wanted if name not in found]
    if missing or len(lengths) != 1 or len(next(iter(lengths))) != 1 or not next(iter(lengths))[0]:
        fault = f"lacks {missing[0]}" if missing else f"holds columns of shapes {sorted(map(str, lengths))}"
        raise LearnedError(f"{file}: {fault}; evaluate the run again with this version")
    numbers = [name for name in wanted if found[name].dtype.kind not in "iuf" or np.isnan(found[name].astype(float)).any()]
    if numbers:
        raise LearnedError(f"{file}: {numbers[0]} holds what is no number; evaluate the run again")
    return found
