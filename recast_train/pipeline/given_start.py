"""A start given by path: the semantic IDs and weights of another run, of one of its stages, or of a checkpoint."""

from pathlib import Path

from recast_sim.bounded import TENSOR_BYTES, read_bounded
from recast_sim.runs import RunError
from recast_sim.runs.model_state import latest_checkpoint
from recast_train.data import Source
from recast_train.pipeline import made_from
from recast_train.semantic_id import SidConfig
from recast_train.semantic_id.sid_table import holds_table

MODEL = "model.safetensors"


def start_sids(start: Path) -> Path:
    """The semantic IDs that a start was trained on: `sids` in its folder or the nearest one above. Raises RunError for none."""
    for folder in (start, *start.resolve().parents):
        if holds_table(folder / "sids"):
            return folder / "sids"
    raise RunError(f"start: {start} has no semantic IDs, in sids/ there or above; give a run's folder or one inside it")


def start_weights(start: Path) -> Path:
    """The folder of a start's weights: those that supervised training, or the stage of that folder, has kept; of one that was
    stopped before its end, its last checkpoint's. Raises RunError for none.
    """
    for stage in (start / "sft", start):
        found = [stage / "model", latest_checkpoint(stage) if stage.is_dir() else None]
        for folder in found:
            if folder is not None and (folder / MODEL).is_file():
                return folder
    if (start / MODEL).is_file():
        return start
    raise RunError(f"start: {start} holds no {MODEL}; give the folder of a run, of a stage (RUN/sft) or of a checkpoint")


def sids_of(start: Path | None, config: SidConfig, source: Source) -> SidConfig:
    """The settings of semantic IDs: those of the start, unless the data brings its own. Raises RunError for two sources."""
    if start is None or source.sids is not None:
        return config
    if config != SidConfig():
        raise RunError(f"start: {start} has semantic IDs of its own, and [sids] is set beside it; leave one of them out")
    return SidConfig(path=start_sids(start))


def start_hash(start: Path) -> str:
    """Hash of a start's weights."""
    return made_from.digest(read_bounded(start_weights(start) / MODEL, TENSOR_BYTES, RunError))
