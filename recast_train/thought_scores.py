"""What a served model would answer behind one sampled thought. Axis letters: N or P prompts, T targets, Y leaves."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from recast_sim.catalog import Catalog
from recast_train.data import Prompts
from recast_train.engine import Engine
from recast_train.evaluate import EvaluationConfig, joined_rows, own_part, search
from recast_train.model import SidModel
from recast_train.rollout import Part, ThoughtConfig, ThoughtMarkers, sample_thoughts
from recast_train.rollout.targets import target_leaves


@dataclass(frozen=True)
class ThoughtScores:
    """Figures of each prompt behind one sampled thought of its own, float64 (N,).

    Attributes:
        greedy_N: 1 where the greedy item is any of the targets.
        logprob_N: log-probability that one draw is any of them, nats.
    """

    greedy_N: NDArray[np.float64]
    logprob_N: NDArray[np.float64]


def thought_scores_over_ranks(
    engine: Engine,
    model: SidModel,
    catalog: Catalog,
    prompts: Prompts,
    thought: ThoughtConfig,
    markers: ThoughtMarkers,
    seed: int,
) -> ThoughtScores:
    """Each rank on its own part; the same on all ranks, whatever their number. `model` is `Engine.replica`'s."""
    mine = own_part(engine, len(prompts))
    own, place = np.unique(mine, return_inverse=True)  # the last prompt may stand there several times
    parts = [
        _scored(model, catalog, prompts, rows, thought, markers, seed)
        for rows in np.split(own, range(EvaluationConfig.batch, len(own), EvaluationConfig.batch))
    ]
    columns = (np.concatenate(column)[place] for column in zip(*parts, strict=True))
    return ThoughtScores(*(joined_rows(engine, column, len(prompts)) for column in columns))


@torch.no_grad()
def _scored(
    model: SidModel,
    catalog: Catalog,
    prompts: Prompts,
    rows: NDArray[np.int64],
    thought: ThoughtConfig,
    markers: ThoughtMarkers,
    seed: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Greedy hits and log-probabilities of some prompts, which follow each other; their draws are those of the whole set."""
    asked, part = prompts.take(rows), Part(int(rows[0]), len(prompts))
    tokens = model.vocabulary.encode(asked.history_NH, thought=True, chat_P=asked.chat_N).to(model.device)
    longer, _ = sample_thoughts(model, tokens, thought, markers, torch.Generator().manual_seed(seed), part)
    target_PT = target_leaves(catalog, asked).to(model.device)
    logprob_PY, _, greedy_P = search(model, longer, target_PT, 1)
    own_PT = logprob_PY.gather(1, target_PT.clamp(min=0)).masked_fill(target_PT < 0, -torch.inf).double()
    hit_P = (greedy_P[:, None] == target_PT).any(1)
    return hit_P.double().cpu().numpy(), own_PT.logsumexp(1).clamp(max=0.0).cpu().numpy()
