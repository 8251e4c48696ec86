"""Run folders that the commands made, small enough for seconds; one of them killed."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest
from comparisons import write_comparison
from pipeline_world import run_spread, write_recipe

from recast_sim.cli.gradients import Gradients, GradientsConfig, compare_gradients
from recast_sim.cli.train import RunConfig, Train, train_one
from recast_sim.runs import RunWriter
from recast_sim.training.training_config import TrainingConfig
from recast_sim.world.environment import EnvironmentConfig

WORLD = EnvironmentConfig(items=40, sizes=(4, 4, 4), dim=6, train_prompts=256, heldout_prompts=64)
TRAINING = TrainingConfig(group_size=8, prompts_per_step=8, steps=20, evaluate_every=5)


@pytest.fixture(scope="session")
def run_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder by what made it: train, killed (the same, half-way), gradients, real (recast-train run), budget, map."""
    root = tmp_path_factory.mktemp("runs")
    train_one(Train(out=root / "train", json=True, config=RunConfig(WORLD, convergence=0.8, training=TRAINING)))
    _kill(root / "train", root / "killed", steps=7)
    config = GradientsConfig(WORLD, training=TRAINING, constructors=("grpo", "recast"), group_sizes=(2,), prompts=16)
    compare_gradients(Gradients(out=root / "gradients", json=True, config=config, no_calibrate=True))
    recipe = write_recipe(root, ("grpo", "recast", "sft"), lambda text: text.replace("[rl]", "[rl]\nprobe_every = 2"))
    run_spread(recipe, "single", root / "real")
    curves = {"grpo": (0.1, 0.2, 0.3, 0.3, 0.3), "recast": (0.1, 0.4, 0.4, 0.4, 0.4), "sft": (0.1, 0.2, 0.2, 0.2, 0.2)}
    for kind in ("budget", "map"):
        settings = {"pairs": [["recast", "grpo"], ["recast", "sft"]], "protocol": {"seeds": 5}}
        writer = RunWriter.create(root / kind, kind, settings, 0)
        write_comparison(root / kind / "methods", {"one": curves})
        cells = [{"setting": "one", "x": "c", "x_label": "1", "y": "", "y_label": ""}]
        pl.DataFrame(cells).write_parquet(root / kind / "cells.parquet")
        writer.close()
    return {path.name: path for path in root.iterdir() if path.is_dir()}


def _kill(whole: Path, killed: Path, steps: int) -> None:
    """A run folder as a kill after some steps leaves it: line files, no parquet, still running."""
    shutil.copytree(whole, killed)
    for table in ("steps", "evals"):
        rows = pl.read_parquet(killed / f"{table}.parquet").filter(pl.col("step") <= steps).to_dicts()
        (killed / f"{table}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 8, "rol')
        (killed / f"{table}.parquet").unlink()
    manifest = json.loads((killed / "manifest.json").read_text())
    manifest |= {"status": "running"}
    del manifest["finished"], manifest["summary"]
    (killed / "manifest.json").write_text(json.dumps(manifest))
