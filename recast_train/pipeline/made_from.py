"""What a stage's output was made from, as hashes that it keeps: an output of other things is refused, with the reason.

Folders are copied and data files change under a run's path; neither may put figures of different things beside each other.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from recast_sim.bounded import TENSOR_BYTES, read_bounded
from recast_sim.runs import RunError
from recast_sim.runs.reader import read_manifest
from recast_train.data import Prompts, Source
from recast_train.data.source import SPLITS
from recast_train.semantic_id import SidConfig

MADE_FROM = "made_from"  # the key of a manifest, and with .json the file of a folder without one
Hashes = dict[str, str]  # by what they are of


def of_data(source: Source) -> str:
    """Hash of a data set: items, users, titles, sequences, and the prompts of each split."""
    data = source.dataset
    arrays = [data.item_M, data.offset_U1, data.train_end_U, data.validation_end_U]
    asked = [source.split(split) for split in SPLITS] + ([] if source.held_back is None else [source.held_back])
    return digest([source.items, source.users, source.titles], *arrays, *map(of_prompts, asked))


def of_prompts(prompts: Prompts) -> str:
    """Hash of prompts: windows, targets, users, and how much each had seen."""
    return digest(prompts.history_NH, prompts.targets_NT, prompts.user_N, prompts.seen_offset)


def of_sids(config: SidConfig) -> str:
    """Hash of the settings of semantic IDs, and of the file that they name."""
    files = [file for path in (config.path, config.embeddings_file) if path for file in _files(path)]
    return digest(asdict(config), *(read_bounded(file, TENSOR_BYTES, RunError) for file in files))


def of_run(folder: Path) -> str:
    """Hash of a finished run in a folder: its config, its seed and what came out."""
    manifest = read_manifest(folder)
    return digest([manifest["config"], manifest["seed"], manifest.get("summary")])


def digest(*parts: Any) -> str:
    """The first 16 hexadecimal digits of the sha256 of arrays, bytes and JSON values."""
    found = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            found.update(str((part.dtype.str, part.shape)).encode() + np.ascontiguousarray(part).tobytes())
        else:
            found.update(part if isinstance(part, bytes) else json.dumps(part, sort_keys=True, default=str).encode())
    return found.hexdigest()[:16]


def refuse_stale(place: Path, kept: Mapping[str, Any] | None, now: Hashes) -> None:
    """Raise RunError where an output of `place` keeps other hashes than those of now, or none."""
    if kept == now:
        return
    if not isinstance(kept, Mapping):
        found = "does not say what it was made from, as of an older version or edited"
    else:
        other = next(name for name in sorted(now.keys() | kept.keys()) if kept.get(name) != now.get(name))
        found = f"was made from other {other} (hash {kept.get(other)}, now {now.get(other)})"
    raise RunError(f"{place}: {found}; delete it, then --resume makes it anew, or start a new run")


def _files(path: Path) -> list[Path]:
    return sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path] if path.is_file() else []
