"""Score files of made-up models: a world of prompts whose true scores are known, policies that know part of them, and beams."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from recast_analysis.learned.candidate_scores import CandidateScores
from recast_analysis.learned.scored_prompts import ScoredPrompts

ITEMS = 20
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ScoreWorld:
    """Prompts with the true logits of each item, (N, ITEMS), a target drawn from them, and the user of each."""

    true_NA: Floats
    target_N: NDArray[np.int64]
    user_N: NDArray[np.int64]

    @classmethod
    def of(cls, users: int, seed: int, most: int = 1) -> "ScoreWorld":
        """Users of one to `most` prompts, whose tastes are alike."""
        rng = np.random.default_rng(seed)
        user_N = np.repeat(np.arange(users), rng.integers(1, most + 1, users))
        shared_UA = rng.normal(size=(users, ITEMS))
        true_NA = 1.5 * (0.7 * shared_UA[user_N] + 0.7 * rng.normal(size=(len(user_N), ITEMS)))
        target_N = (true_NA + rng.gumbel(size=true_NA.shape)).argmax(1)
        return cls(true_NA, target_N, user_N)

    def policy(self, knows: float, seed: int, temperature: float = 1.0) -> Floats:
        """Log-probabilities of all items by a policy that knows a share of the true logits, the rest being noise."""
        noise_NA = 1.5 * np.random.default_rng(seed).normal(size=self.true_NA.shape)
        logit_NA = knows * self.true_NA + (1 - knows**2) ** 0.5 * 0.6 * noise_NA
        return log_softmax(logit_NA / temperature, axis=1)

    def scored(self, logprob_NA: Floats, name: str = "made") -> ScoredPrompts:
        """A policy's scores of all items, as a file would give them."""
        N = len(self.target_N)
        own_N1 = np.take_along_axis(logprob_NA, self.target_N[:, None], 1)
        size_N = np.full(N, ITEMS)
        scores = CandidateScores(logprob_NA.ravel(), size_N, self.target_N, size_N.astype(np.uint64))
        rank_N = (logprob_NA >= own_N1).sum(1).astype(np.float64)
        users = [str(user) for user in self.user_N]
        return ScoredPrompts(name, list(map(str, range(N))), users, rank_N=rank_N, depth=float(ITEMS), candidates=scores)


def candidate_rows(world: ScoreWorld, logprob_NA: Floats) -> list[dict[str, Any]]:
    """Rows with all items, best first, and their log-probabilities."""
    order_NA = (-logprob_NA).argsort(1)
    return [
        {
            "prompt_id": f"p{n}",
            "target": f"<a_{world.target_N[n]}>",
            "ranked": [f"<a_{a}>" for a in order_NA[n]],
            "scores": logprob_NA[n, order_NA[n]].tolist(),
        }
        for n in range(len(world.target_N))
    ]


def beam_ranks(prompts: int, head: float, breadth: float, seed: int, width: int = 50) -> Floats:
    """Ranks in a beam with given HR@1 and HR@width; the same prompts are easy under every seed."""
    easy_N = np.random.default_rng(0).normal(size=prompts)
    place_N = (-(easy_N + 0.3 * np.random.default_rng(seed).normal(size=prompts))).argsort().argsort() / prompts
    rank_N = np.where(place_N < head, 1.0, np.inf)
    listed_N = (place_N >= head) & (place_N < breadth)
    rank_N[listed_N] = 2 + np.floor((width - 1) * ((place_N[listed_N] - head) / (breadth - head)) ** 2)
    return rank_N


def minionerec_rows(rank_N: Sequence[float] | Floats, width: int = 50) -> list[dict[str, Any]]:
    """What MiniOneRec's evaluate.py writes: input, output with a line end, and the beam's items under predict."""
    rows = []
    for n, rank in enumerate(rank_N):
        items = [f"<a_{n % 7}><b_{place}><c_{n % 5}>" for place in range(width)]
        if np.isfinite(rank):
            items[int(rank) - 1] = "<a_99><b_99><c_99>"
        rows.append({"input": f"history {n}", "output": "<a_99><b_99><c_99>\n", "predict": items})
    return rows


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """JSON lines, or a JSON array where the name ends in .json."""
    text = json.dumps(list(rows)) if path.suffix == ".json" else "".join(json.dumps(row) + "\n" for row in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


if __name__ == "__main__":  # the example of docs/learned.md: score_files.py FOLDER
    for seed, (name, head, breadth) in enumerate([("base", 0.0671, 0.2160), ("rl", 0.0743, 0.1756)]):
        write_rows(Path(sys.argv[1]) / f"{name}.json", minionerec_rows(beam_ranks(4500, head, breadth, seed)))
