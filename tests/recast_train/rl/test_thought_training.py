"""Whole runs on groups of thoughts: what is logged, resumption, evaluation behind thoughts, and whether p rises."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from device_trainer import Stopped, recorder, stopper
from sid_world import questions, tiny_catalog
from thinking_world import BEGIN, END, every_thought, plain_logprobs, rl_config, thinking_world

from recast_sim.runs import read_run
from recast_train.engine import Engine
from recast_train.model import SidModel
from recast_train.rl.rl_loop import train_rl
from recast_train.rollout import ThoughtConfig, ThoughtMarkers
from recast_train.thought_scores import thought_scores_over_ranks

MEASURED = ("seconds", "actor_tflops", "mfu", "peak")
LINES = ["soft constructor=rloo answer=psr", "log constructor=rloo answer=sft", "hard constructor=grpo"]


def trained(engine: Engine, folder: Path, line: str, stops: tuple[int, ...] = (), **keys: Any) -> tuple[Any, ...]:
    """Weights, budget, rows of steps and evaluations; the run is killed after each of the `stops`."""
    more = {"steps": 6, "prompts_per_step": 6, "warm_up": 1, "checkpoint_every": 2, "evaluate_every": 3, "learning_rate": 0.003}
    config = rl_config(line, 4, 2, (1.0, 1.5), validation_prompts=4, **(more | keys))
    model, train = thinking_world()
    catalog, name = tiny_catalog(), line.split("constructor=")[1].split()[0]

    def go(stop: int) -> Any:
        own = (copy.deepcopy(model), catalog, train, questions(catalog, 4), name, config, 0)
        return train_rl(engine, *own, recorder(engine, folder), stopper(stop))

    for stop in stops:
        with pytest.raises(Stopped):
            go(stop)
    state, totals = go(0)
    rows = read_run(folder)
    steps = rows.steps.select(column for column in rows.steps.columns if not column.startswith(MEASURED))
    return state.model, totals, steps, rows.evals


@pytest.mark.parametrize("line", LINES)
def test_a_resumed_run_is_the_uninterrupted_one(line: str, engine: Engine, tmp_path: Path) -> None:
    whole, totals, steps, evals = trained(engine, tmp_path / "whole", line)
    other, again, resumed, known = trained(engine, tmp_path / "killed", line, stops=(3, 5))
    assert all(torch.equal(whole[name], other[name]) for name in whole)
    assert totals == again
    assert steps.equals(resumed)
    assert evals.equals(known)
    assert totals["rollouts"] == 6 * 6 * 4
    generated = float(steps["thought_length"].sum()) * 6 * 4 + (totals["rollouts"] * 3 if line.startswith("hard") else 0)
    assert totals["generated_tokens"] == pytest.approx(generated)


def test_p_rises_and_the_columns_say_so(engine: Engine, tmp_path: Path) -> None:
    _, _, steps, evals = trained(engine, tmp_path, LINES[1], steps=40, evaluate_every=40, learning_rate=0.01)
    assert steps["soft_reward"][0] < 0.1
    assert steps["soft_reward"][-1] > 0.9
    assert steps["soft_reward_log"][-1] <= np.log(steps["soft_reward"][-1]) <= 0
    assert steps["learnable"].is_between(0, 1).all()
    assert steps["thought_length"].is_between(1, 2).all()
    assert steps["thought_distinct"].is_between(0.25, 1).all()
    assert evals["thought_log_likelihood"].is_finite().all()
    assert set(evals.columns) >= {"log_likelihood", "thought_log_likelihood", "pass_at_1_greedy", "thought_pass_at_1_greedy"}


def test_a_hard_run_has_regimes_and_a_row_a_group(engine: Engine, tmp_path: Path) -> None:
    _, _, steps, _ = trained(engine, tmp_path, LINES[2])
    groups = read_run(tmp_path).groups
    assert len(groups) == 6 * 6
    assert float(groups["hits"].sum()) / 4 / 36 == pytest.approx(float(steps["hit_rate"].mean()))
    assert steps["before_all_zero"].is_between(0, 1).all()


def test_scores_behind_thoughts_are_those_of_plain_forwards(engine: Engine) -> None:
    """At a temperature that leaves one thought: p of the target behind it, and a hit where the target is the greedy leaf."""
    model, _ = thinking_world()
    catalog, asked = tiny_catalog(), questions(tiny_catalog(), 5)
    tokens, item_of_leaf = model.vocabulary.encode(asked.history_NH, thought=True), np.argsort(catalog.leaf_of_item_I)
    every = []
    for row in range(5):
        prompt = tokens.tokens_PT[row][tokens.real_PT[row]].tolist()
        with torch.no_grad():
            thought = max(every_thought(1), key=lambda z: float(plain_logprobs(model, prompt, z, 0)[0].sum()))
            every.append(torch.stack([plain_logprobs(model, prompt, thought, leaf)[1] for leaf in range(model.nodes[-1])]))
    greedy = [greedy_leaf(model, logprobs_YL) for logprobs_YL in every]
    for further in (0, 1):
        leaves = [(leaf + further) % model.nodes[-1] for leaf in greedy]
        moved = replace(asked, targets_NT=item_of_leaf[leaves][:, None])
        how = (ThoughtConfig(1, 1e-4), ThoughtMarkers(END, BEGIN), 0)
        found = thought_scores_over_ranks(engine, model, catalog, moved, *how)
        wanted = [float(logprobs_YL[leaf].sum()) for logprobs_YL, leaf in zip(every, leaves, strict=True)]
        assert found.logprob_N.tolist() == pytest.approx(wanted, abs=1e-3)
        assert found.greedy_N.tolist() == [float(not further)] * 5


def greedy_leaf(model: SidModel, logprobs_YL: torch.Tensor) -> int:
    """Down the trie, the likeliest child at a time."""
    codes, open_Y = model.table("leaf_codes"), torch.ones(len(logprobs_YL), dtype=torch.bool)
    for level in range(model.levels):
        best = logprobs_YL[:, level].masked_fill(~open_Y, -torch.inf).argmax()
        open_Y &= codes[:, level] == codes[best, level]
    return int(open_Y.nonzero()[0, 0])
