"""Runs from end to end on data that comes as prompts: MiniOneRec's files, and OpenOneRec's with thoughts and several targets."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from data_files import SIDS, chat, csv_text, index_text, open_sid, sid
from text_world import text_checkpoint

from recast_sim.runs import read_run
from recast_train.config import RealConfig
from recast_train.data import DataConfig
from recast_train.evaluate import EvaluationConfig
from recast_train.model import ModelConfig, SidModel, TrainError
from recast_train.pipeline import run_real
from recast_train.rl import RlConfig
from recast_train.rollout import RolloutConfig, ThoughtConfig, free_logprobs
from recast_train.sft import SftConfig

ROWS = {"train": 40, "valid": 8, "test": 12}
STEPS, P, G = 3, 4, 6
SFT = SftConfig(steps=6, batch=8, window=4, warm_up=2, evaluate_every=3)
RL = RlConfig(group_size=G, prompts_per_step=P, steps=STEPS, evaluate_every=3, validation_prompts=8)
EVALUATION = EvaluationConfig(train_prompts=10, group_size=G, width=3)


def asked(split: str) -> list[tuple[list[str], list[str]]]:
    """Walks along the items, the next one or two as targets."""
    rng, items = np.random.default_rng(len(split)), list(SIDS)
    rows = []
    for row in range(ROWS[split]):
        start, length = rng.integers(8), rng.integers(1, 4)
        walk = [items[(start + step) % 8] for step in range(length + 2)]
        rows.append((walk[:length], walk[length : length + 1 + row % 2]))
    return rows


def minionerec(folder: Path) -> Path:
    folder.mkdir()
    (folder / "toys.index.json").write_text(index_text())
    for split in ROWS:
        rows = [
            {
                "user_id": f"u{row}",
                "history_item_title": repr([f"toy {item}" for item in history]),
                "item_title": f"toy {targets[0]}",
                "history_item_id": repr([int(item) for item in history]),
                "item_id": targets[0],
                "history_item_sid": repr([sid(item) for item in history]),
                "item_sid": sid(targets[0]),
            }
            for row, (history, targets) in enumerate(asked(split))
        ]
        (folder / f"{split}.csv").write_text(csv_text(rows))
    return folder


def openonerec(folder: Path) -> Path:
    folder.mkdir()
    for split in ROWS:
        pl.DataFrame({"messages": [json.dumps(chat(*row)) for row in asked(split)]}).write_parquet(folder / f"{split}.parquet")
    return folder


def text_model(folder: Path) -> ModelConfig:
    checkpoint = text_checkpoint(folder, padding=3, names=("</think>",))
    return ModelConfig(checkpoint=checkpoint, vocabulary="text", dropout=0.0, attention_dropout=0.0)


def check(root: Path, results: dict[str, Any], methods: tuple[str, ...]) -> None:
    assert set(results["methods"]) == set(methods)
    for name in methods:
        found, run = results["methods"][name], read_run(root / "rl" / name)
        assert run.status == "complete"
        assert run.steps["step"].to_list() == list(range(1, STEPS + 1))
        assert run.steps["rollouts"][-1] == found["rollouts"] > 0
        assert 0 < found["pass_at_1_sampled"] <= 1
        assert 0 <= found["pass@10"] <= 1


def test_a_run_on_minionerec(tmp_path: Path) -> None:
    methods = ("add_gt", "rank_reward")
    model = ModelConfig(hidden=16, layers=1, heads=2, feed_forward=24)
    data = DataConfig("minionerec", minionerec(tmp_path / "data"), max_history=3)
    rl = replace(RL, rollout=RolloutConfig("beam"))
    config = RealConfig(data=data, model=model, sft=SFT, rl=rl, evaluation=EVALUATION, methods=methods)
    results = run_real(config, 0, tmp_path / "run", resume=False)
    check(tmp_path / "run", results, methods)
    assert results["sids"]["sizes"] == [3, 3, 2]
    groups = read_run(tmp_path / "run" / "rl" / "add_gt").groups
    assert groups["hits"].max() == 1  # a beam holds a target once, and there is one


@pytest.fixture(scope="module")
def thinking(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("openonerec")
    data = DataConfig("openonerec", openonerec(folder / "data"), max_history=3)
    rl = replace(RL, rollout=RolloutConfig("beam", thought=ThoughtConfig(4)))
    methods = ("grpo", "recast anchor_choice=most_likely")
    config = RealConfig(
        data=data, model=text_model(folder / "lm"), sft=SFT, rl=rl, evaluation=EVALUATION, methods=methods
    )
    return folder / "run", run_real(config, 0, folder / "run", resume=False)


def test_a_run_on_openonerec_with_thoughts(thinking: tuple[Path, dict[str, Any]]) -> None:
    root, results = thinking
    names = list(results["methods"])
    for name in names:
        run = read_run(root / "rl" / results["methods"][name]["folder"])
        assert run.steps["rollouts"].to_list() == [P * G * step for step in range(1, STEPS + 1)]
        assert run.groups["hits"].max() == 2  # both targets of a prompt in one beam
    assert 0 < results["sft"]["pass_at_1_sampled"] <= 1
