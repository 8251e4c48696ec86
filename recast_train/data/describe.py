"""What is in a data set, in figures: sizes, lengths, ties, splits, popularity, and what the reference recommenders reach.

Not imported by the package itself: the references import it in turn.
"""

from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recast_train.data.data_config import PROMPT_FORMATS
from recast_train.data.interactions import Prompts, sample_prompts
from recast_train.data.references import choose_neighbours, policy_of, references, repeats, shared_sids
from recast_train.data.source import SPLITS, Source


def describe(source: Source, count: int, seed: int) -> dict[str, Any]:
    """Figures of a source; the references are measured on at most `count` test prompts, drawn by the seed.

    A length is the number of a user's interactions. Of a format that comes as prompts, an interaction is a target, a length
    is that of a prompt's history and targets, and popularity counts the targets of all splits. Item-kNN's neighbours are
    chosen on at most `count` validation prompts (without any, all are taken). `references` is None where train or test is
    empty; where items share semantic IDs, they are ranked by ID. Its `policy` is the one that counts.
    """
    by_prompt = source.format in PROMPT_FORMATS
    return {
        "format": source.format,
        "notes": list(source.notes),
        "users": len(source.users),
        "items": len(source.items),
        "interactions": _interactions(source).size,
        "lengths": _spread(np.concatenate([_lengths(source.split(s)) for s in SPLITS]) if by_prompt else _sequences(source)),
        "dropped": asdict(source.dropped),
        "tied_in_time": source.tied,
        "prompts": {split: len(source.split(split)) for split in SPLITS},
        "targets_per_prompt": max(source.split(split).targets_NT.shape[1] for split in SPLITS),
        "semantic_ids": None if source.sizes is None else list(source.sizes),
        "shared_sids": _shared(source),
        "titles": bool(source.titles),
        "popularity": popularity(np.bincount(_interactions(source), minlength=len(source.items))),
        "references": _references(source, count, seed),
    }


def popularity(count_I: NDArray[np.integer]) -> dict[str, float]:
    """Gini coefficient of the items' counts (0: all equal), and the share of the tenth (rounded up) with the most."""
    ascending, n = np.sort(count_I).astype(np.float64), len(count_I)
    gini = 2 * float(np.arange(1, n + 1) @ ascending) / (n * ascending.sum()) - (n + 1) / n
    return {"gini": gini, "top_tenth_share": float(ascending[n - -(-n // 10) :].sum() / ascending.sum())}


def _references(source: Source, count: int, seed: int) -> dict[str, Any] | None:
    if not len(source.test) or not len(source.train):
        return None
    test, validation = (
        sample_prompts(prompts, count, seed, name)
        for prompts, name in ((source.test, "test prompts"), (source.validation, "validation prompts"))
    )
    sid_I = shared_sids(source.codes_IL)
    neighbours = choose_neighbours(source.dataset, validation, sid_I) if len(validation) else None
    rows = references(source.dataset, test, neighbours, sid_I=sid_I)
    share_N = repeats(test)
    about = {"test_prompts": len(test), "targets_seen_before": float(share_N.mean()), "policy": policy_of(share_N)}
    return {**about, "item_knn_neighbours": neighbours, "metrics": rows}


def _shared(source: Source) -> float | None:
    """Share of items that do not have their semantic ID to themselves, None where there are no IDs."""
    if source.codes_IL is None:
        return None
    count = np.unique(source.codes_IL, axis=0, return_counts=True)[1]
    return float(count[count > 1].sum() / len(source.items))


def _interactions(source: Source) -> NDArray[np.int64]:
    if source.format not in PROMPT_FORMATS:
        return source.dataset.item_M
    targets = [source.split(split).targets_NT.ravel() for split in SPLITS]
    flat = np.concatenate(targets)
    return flat[flat >= 0]


def _sequences(source: Source) -> NDArray[np.int64]:
    return np.diff(source.dataset.offset_U1)


def _lengths(prompts: Prompts) -> NDArray[np.int64]:
    return np.diff(prompts.seen_offset) + (prompts.targets_NT >= 0).sum(1)


def _spread(length: NDArray[np.int64]) -> dict[str, float]:
    return {"min": int(length.min()), "median": float(np.median(length)), "max": int(length.max())}
