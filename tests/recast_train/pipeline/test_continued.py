"""Continued supervision beside RL in a study: its steps, its targets, its rows."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from study_world import STEPS, write_recipe

from recast_analysis.reports.real import study
from recast_sim.configio import load_config
from recast_sim.runs.reader import read_run
from recast_sim.runs.sweep import Job
from recast_train.data import load_source
from recast_train.model import TrainError
from recast_train.pipeline.continued import continued_settings
from recast_train.pipeline.real_study import StudyConfig, run_study

NAMES = ("continued, equal steps", "continued, equal targets")
LEVELS = 3  # two codes and an index


def serial(label: str, jobs: Sequence[Job]) -> list[dict[str, Any]]:
    return [json.loads(json.dumps(job.function(*job.arguments))) for job in jobs]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> StudyConfig:
    read = load_config(StudyConfig, write_recipe(tmp_path_factory.mktemp("recipe")))
    return replace(read, points=(), methods=("grpo",), continued=("steps", "targets"), learning_rates=(0.01,), seeds=1)


@pytest.fixture(scope="module")
def root(config: StudyConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    run_study(config, 5, folder, serial)
    return folder


def of_method(root: Path, name: str) -> list[dict[str, Any]]:
    return pl.read_parquet(root / "evals.parquet").filter(pl.col("method") == name).sort("step").to_dicts()


@pytest.mark.slow
def test_it_starts_where_rl_starts_and_is_judged_at_its_end(root: Path) -> None:
    first, *_ = of_method(root, "grpo")
    for name in NAMES:
        begun, ended = of_method(root, name)
        assert [begun["step"], ended["step"]] == [0, STEPS]
        for metric in ("pass_at_1_sampled", "pass_at_1_greedy", "ndcg@10", "all_zero_expected"):
            assert begun[metric] == first[metric]
        assert begun["pass_at_1_sampled"] != ended["pass_at_1_sampled"]
        assert (ended["rollouts"], ended["optimiser_steps"], begun["actor_tokens"]) == (0, STEPS, 0)


@pytest.mark.slow
def test_equal_steps_are_the_starts_windows_and_equal_targets_are_rls_prompts(root: Path, config: StudyConfig) -> None:
    for name in NAMES:
        folder = root / "settings" / "base" / "seed-5" / "continued" / name.replace(", ", "-").replace(" ", "-")
        steps = read_run(folder).steps
        assert steps["step"].to_list() == [*range(1, STEPS + 1)]
        assert of_method(root, name)[1]["actor_tokens"] == steps["tokens"].sum()
    steps, targets = (of_method(root, name)[1]["actor_tokens"] / STEPS / LEVELS for name in NAMES)
    setting = config.setting
    assert targets == pytest.approx(setting.rl.prompts_per_step, rel=0.4)  # whole windows of up to 6 items
    assert steps > 8 * targets
    dataset = load_source(setting.data).dataset
    one, other = (continued_settings(setting, dataset, equal, 0.02) for equal in ("steps", "targets"))
    assert replace(one, batch=1) == replace(other, batch=1)
    assert (one.batch, one.steps, one.warm_up, one.learning_rate) == (setting.sft.batch, STEPS, setting.rl.warm_up, 0.02)
    assert other.batch == 1


@pytest.mark.slow
def test_it_stands_in_the_report(root: Path) -> None:
    summary = study.report(root).summary
    assert summary["methods"] == ["grpo", *NAMES]
    rates = pl.read_parquet(root / "rates.parquet")
    assert rates.select("method", "draws").rows() == [("grpo", True), *((name, False) for name in NAMES)]


def test_it_needs_a_supervised_start(config: StudyConfig) -> None:
    setting = replace(config.setting, sft=replace(config.setting.sft, steps=0))
    with pytest.raises(TrainError, match=r"StudyConfig\.continued: .* needs supervised training; set sft\.steps above 0"):
        replace(config, setting=setting)
    with pytest.raises(TrainError, match=r"StudyConfig\.continued: .* must not repeat"):
        replace(config, continued=("steps", "steps"))
