"""Which prompts a method is trained on: those that supervision saw, held-back ones, or a few of either."""

from dataclasses import replace
from pathlib import Path

import pytest
from pipeline_world import write_recipe

from recast_sim.configio import load_config
from recast_sim.runs import read_run
from recast_train.model import TrainError
from recast_train.pipeline.recipe import RealConfig, parse_methods
from recast_train.pipeline.run_task import opened_task
from recast_train.pipeline.stages import reinforced, supervised

LINES = ("grpo", "grpo prompts=held_back", "grpo train_prompts=3", "sft anchor_choice=random prompts=held_back train_prompts=5")


def test_methods_are_trained_on_the_prompts_of_their_line(tmp_path: Path) -> None:
    recipe = load_config(RealConfig, write_recipe(tmp_path, LINES))
    recipe = replace(recipe, data=replace(recipe.data, held_back=0.25, train_targets=3), sft=replace(recipe.sft, steps=4))
    counts = {}
    with opened_task(tmp_path / "run", recipe, 0) as task:
        supervised(task)
        assert task.held_back is not None
        for method in parse_methods(LINES):
            folder = tmp_path / "run" / method.folder
            reinforced(task, method, method.applied(recipe.rl), folder)
            if method.name.startswith("grpo"):
                counts[method.name] = read_run(folder).groups["prompt"]
    assert counts["grpo"].max() < len(task.train)
    assert counts["grpo prompts=held_back"].max() < len(task.held_back) < counts["grpo"].max()
    assert counts["grpo train_prompts=3"].n_unique() == 3
    assert counts["grpo train_prompts=3"].max() == 2


def test_held_back_prompts_need_a_share(tmp_path: Path) -> None:
    recipe = load_config(RealConfig, write_recipe(tmp_path, LINES[1:2]))
    with opened_task(tmp_path / "run", replace(recipe, sft=replace(recipe.sft, steps=1)), 0) as task:
        supervised(task)
        (method,) = parse_methods(LINES[1:2])
        with pytest.raises(TrainError, match=r"RlConfig\.prompts: 'held_back' needs data\.held_back above 0"):
            reinforced(task, method, method.applied(recipe.rl), tmp_path / "run" / "rl")
