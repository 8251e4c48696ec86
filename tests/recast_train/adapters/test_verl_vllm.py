"""Whole steps of verl's V1 trainer with vLLM as the rollout engine, both on a CPU (make test-verl-vllm)."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

if importlib.util.find_spec("vllm") is None or importlib.util.find_spec("verl") is None:
    pytest.skip("verl or vLLM is not installed here; make test-verl-vllm has an environment for both", allow_module_level=True)

from data_files import SIDS
from transformers import AutoModelForCausalLM, AutoTokenizer
from verl_cpu.tiny_world import BEFORE, write_world
from verl_cpu.whole_steps import BATCH, G, run_steps

from recast_train.adapters.verl.options import TRIE_PROCESSOR
from recast_train.adapters.verl.parquet_export import AnswerTokens
from recast_train.adapters.vllm.answer_trie import AnswerTrie, write_answers
from recast_train.adapters.vllm.catalog_answers import catalog_answers

pytestmark = [pytest.mark.adapters, pytest.mark.verl_vllm]
ROLLOUT = "actor_rollout_ref.rollout"
VLLM = (
    *(
        f"{ROLLOUT}.{one}"
        for one in ("name=vllm", "dtype=float32", "enforce_eager=true", "max_num_seqs=16", "max_model_len=128")
    ),
    f"{ROLLOUT}.max_num_batched_tokens=512",
    f"{ROLLOUT}.checkpoint_engine.update_weights_bucket_megabytes=16",
    f"+{ROLLOUT}.enable_sleep_mode=false",
    "actor_rollout_ref.actor.strategy=fsdp2",
)
EXACT = 1e-6  # of a probability, in fp32


@pytest.fixture(autouse=True)
def small_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")  # GB
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    monkeypatch.setenv("VLLM_NO_USAGE_STATS", "1")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_world(folder, thought=False, head_dim=32)  # vLLM's least on a CPU
    return folder


@pytest.fixture(scope="module")
def answers(world: Path) -> AnswerTrie:
    """Those of the eight items, in `world`/answers."""
    tokens = AnswerTokens(AutoTokenizer.from_pretrained(world / "model"), before=BEFORE)
    return write_answers(world / "answers", catalog_answers(np.array(list(SIDS.values())), tokens, list(SIDS)))


def test_vllm_samples_from_the_actors_weights_after_every_update(world: Path, answers: AnswerTrie, tmp_path: Path) -> None:
    """verl compares the probabilities that vLLM sampled with and those of its actor; the weights before would not pass."""
    steps = 3
    run = run_steps(
        world,
        tmp_path,
        "grpo",
        *VLLM,
        "reward.custom_reward_function.path=pkg://verl_cpu.parity_reward",
        f"{ROLLOUT}.calculate_log_probs=true",
        f"actor_rollout_ref.actor.ppo_mini_batch_size={BATCH}",
        "actor_rollout_ref.actor.optim.lr=1e-2",
        steps=steps,
    )
    assert len(run.logged) == steps
    for step in run.logged:
        assert step["training/rollout_probs_diff_valid"] == 1
        assert step["training/rollout_probs_diff_max"] < EXACT
        assert step["actor/grad_norm"] > 0
    rows = run.records[-1]["drawn"].values()
    assert len(rows) == BATCH * G
    assert farthest(world / "model", rows) > 1000 * EXACT
    free = {tuple(row["responses"].tolist()) for row in rows}
    assert not free <= set(map(tuple, answers.table_YS.tolist()))


def test_recast_learns_from_rollouts_that_are_held_to_the_catalog(world: Path, answers: AnswerTrie, tmp_path: Path) -> None:
    vllm = f"+{ROLLOUT}.engine_kwargs.vllm"
    run = run_steps(
        world,
        tmp_path,
        "recast",
        *VLLM,
        "reward.custom_reward_function.path=pkg://verl_cpu.zero_reward",
        f"{vllm}.logits_processors=[{TRIE_PROCESSOR}]",
        f"{vllm}.additional_config.recast.answers={world}/answers",
        steps=2,
    )
    items = set(map(tuple, answers.table_YS.tolist()))
    for step, record in zip(run.logged, run.records, strict=True):
        drawn = [tuple(row["responses"].tolist()) for row in record["drawn"].values()]
        assert len(drawn) == BATCH * G
        assert set(drawn) <= items
        assert len(set(drawn)) > 2
        assert (step["recast/before/all_zero"], step["recast/repaired"]) == (1, 1)
        assert (step["recast/rows_drawn"], step["recast/rows_kept"]) == (BATCH * G, 2 * BATCH)
        assert step["actor/grad_norm"] > 0
    assert all(run.moved().values())


def farthest(checkpoint: Path, rows: Any) -> float:
    """The largest difference between the probability that a token was sampled with and its probability under a checkpoint."""
    lm = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    found = []
    for row in rows:
        response, ids = row["responses"], torch.cat([row["prompts"], row["responses"]])[None]
        with torch.no_grad():
            own = lm(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[-len(response) :, 0]
        found.append(float((own.exp() - row["rollout_log_probs"].exp()).abs().max()))
    return max(found)
