"""The adapter inside verl's own trainer, on a CPU: a real config, Ray, TransferQueue, and no model (make test-verl)."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("verl", reason="verl is not installed here; make test-verl has an environment for it")

import hydra
import transfer_queue as tq
import verl_world as world
from data_files import SIDS, item_name, open_sid, write_openonerec
from omegaconf import OmegaConf
from text_world import text_tokenizer
from verl import DataProto
from verl.experimental.agent_loop.agent_loop import AgentLoopBase
from verl.experimental.reward_loop.reward_manager.naive import NaiveRewardManager
from verl.trainer.ppo import core_algos
from verl.trainer.ppo.reward import get_custom_reward_fn
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer
from verl.utils.config import omega_conf_to_dataclass, validate_config
from verl.utils.dataset.rl_dataset import RLHFDataset, collate_fn
from verl_launch import launch_arguments

from recast_analysis.audit.reading.dump_groups import read_groups
from recast_sim.configio import ConfigError
from recast_sim.signal import SignalError, construct, list_constructors
from recast_train.adapters.verl.options import TRIE_PROCESSOR, check_config, estimator_name, read_sampler_config
from recast_train.adapters.verl.parquet_export import AnswerTokens, export_openonerec
from recast_train.adapters.verl.sampler import RecastReplayBuffer

pytestmark = [pytest.mark.adapters, pytest.mark.verl]
G, EOS, END = world.G, world.EOS, world.THOUGHT_END
KWARGS = "trainer.v1.sampler.sampler_kwargs"
SMALL = (
    f"actor_rollout_ref.rollout.n={G}",
    "data.train_batch_size=4",
    "actor_rollout_ref.actor.ppo_mini_batch_size=1",
    "trainer.rollout_data_dir=null",
)


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return launch_arguments(tmp_path_factory.mktemp("launch"))


@pytest.fixture(scope="module")
def queue() -> Iterator[None]:
    with world.transfer_queue():
        yield


def response(slot: int) -> list[int]:
    return [60 + slot, *[61] * (slot % 3), END, 50, 51, 54 + slot, EOS]


def outcome(scores: list[float], lengths: list[int]) -> dict[str, Any]:
    """Arguments of an estimator: rewards on the last token."""
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    rewards = torch.zeros(mask.shape)
    rewards[torch.arange(len(scores)), torch.tensor(lengths) - 1] = torch.tensor(scores)
    return {"token_level_rewards": rewards, "response_mask": mask.long()}


def test_the_entry_point_registers_every_constructor() -> None:
    for constructor in list_constructors():
        assert core_algos.get_adv_estimator_fn(estimator_name(constructor.name)) is not None
    assert estimator_name("recast") == "recast"


@pytest.mark.parametrize("name", [c.name for c in list_constructors() if not c.inputs and c.name != "pods"])
def test_estimators_are_the_signal_module(name: str) -> None:
    rng = np.random.default_rng(3)
    rewards_PG = rng.integers(0, 2, (5, G)).astype(np.float32)
    rewards_PG[0], rewards_PG[1] = 0, 1
    order = rng.permutation(5 * G)
    lengths = rng.integers(1, 7, 5 * G).tolist()
    given = outcome(rewards_PG.reshape(-1)[order].tolist(), lengths)
    uids = np.array([f"uid{row // G}" for row in order], dtype=object)
    found, returns = core_algos.get_adv_estimator_fn(estimator_name(name))(**given, index=uids, config=None)
    # rows of a group come in another order here, which only two_grpo looks at
    groups = [np.flatnonzero(uids == f"uid{p}") for p in range(5)]
    wanted_PG = construct(name, torch.tensor(np.stack([rewards_PG.reshape(-1)[order][rows] for rows in groups]))).advantages_PG
    for rows, wanted_G in zip(groups, wanted_PG, strict=True):
        torch.testing.assert_close(found[rows], wanted_G[:, None] * given["response_mask"][rows], atol=1e-5, rtol=1e-5)
    assert torch.equal(found, returns)


@pytest.mark.parametrize(
    ("ours", "theirs", "more"),
    [
        ("recast_grpo", core_algos.compute_grpo_outcome_advantage, {}),
        ("recast_dr_grpo", core_algos.compute_grpo_outcome_advantage, {"norm_adv_by_std_in_grpo": False}),
        ("recast_rloo", core_algos.compute_rloo_outcome_advantage, {}),
        ("recast_gpg", core_algos.compute_gpg_outcome_advantage, {"config": {}}),
    ],
)
def test_parity_with_verl(ours: str, theirs: Any, more: dict[str, Any]) -> None:
    rng = np.random.default_rng(5)
    given = outcome(rng.integers(0, 2, 6 * G).astype(float).tolist(), rng.integers(1, 9, 6 * G).tolist())
    uids = np.array([f"u{p}" for p in range(6)] * G, dtype=object)
    wanted, _ = theirs(**{name: value.clone() for name, value in given.items()}, index=uids, **more)
    found, _ = core_algos.get_adv_estimator_fn(ours)(**given, index=uids, config=None)
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-6)


def test_an_estimator_that_needs_the_sampler_says_so() -> None:
    given = outcome([1.0, 0.0], [2, 2])
    with pytest.raises(SignalError, match=r"recast needs structural_PG, has_anchor_P .*custom_sampler"):
        core_algos.get_adv_estimator_fn("recast")(**given, index=np.array(["a", "a"], dtype=object), config=None)
    marked = np.array(["recast:sft:a_0_0", "recast:sft:b_0_0"], dtype=object)
    with pytest.raises(SignalError, match="recast_grpo met rows of the sampler's recast_sft"):
        core_algos.get_adv_estimator_fn("recast_grpo")(**given, index=marked, config=None)


def test_the_launch_script_fits_verls_config(tmp_path: Path, arguments: list[str]) -> None:
    for name in ("recast", "grpo", "sft_hard_negative"):
        config = world.verl_config(launch_arguments(tmp_path, CONSTRUCTOR=name))
        validate_config(config, use_reference_policy=need_reference_policy(config), use_critic=need_critic(config))
        check_config(config, read_sampler_config(dict(config.trainer.v1.sampler.sampler_kwargs)))
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    assert (actor.optim.lr, actor.optim.lr_warmup_steps, actor.optim.weight_decay) == (2e-6, 10, 0.1)
    assert (actor.clip_ratio_low, actor.clip_ratio_high, actor.kl_loss_coef, actor.use_kl_loss) == (0.2, 0.28, 1e-3, True)
    assert (rollout.n, rollout.temperature, config.data.train_batch_size) == (32, 1, config.trainer.n_gpus_per_node)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("trainer.v1.trainer_mode=colocate_async", "trainer.v1.trainer_mode: 'colocate_async'"),
        ("algorithm.adv_estimator=grpo", "adv_estimator: 'grpo' does not fit .* set it to recast"),
        ("algorithm.use_kl_in_reward=true", "use_kl_in_reward: true changes the advantages"),
        ("++algorithm.filter_groups.enable=true", "filter_groups.enable: true has no effect"),
        ("reward.reward_model.enable=true", "a colocated reward model scores only after"),
        ("actor_rollout_ref.rollout.calculate_log_probs=true", "calculate_log_probs: true, but recast places anchors"),
        ("actor_rollout_ref.actor.ppo_mini_batch_size=2", "2 makes mini-batches of 16 rows, but at most 8 .* set it to 1 or"),
        (f"+{KWARGS}.signal.normaliser=tokens", "normaliser: tokens has no effect in verl"),
        (f"+{KWARGS}.signal.tie_rule=highest_logprob", "choose another tie_rule"),
        (f"+{KWARGS}.signal.anchor_choice=most_likely", "no model to score anchors"),
        (f"+{KWARGS}.signal.w_minos=1", "w_minos"),
        (f"{KWARGS}.constructor=luffy", "luffy needs anchor_logprob_P"),
        (f"{KWARGS}.constructor=dapo", "dapo redraws groups"),
        (f"{KWARGS}.constructor=nothing", "'nothing' is not registered"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_loaded(arguments: list[str], change: str, said: str) -> None:
    config = world.verl_config(arguments, *SMALL, change)
    with pytest.raises((ConfigError, SignalError), match=said):
        world.trainer(config)


BEAM = "actor_rollout_ref.rollout.agent.default_agent_loop=recast_thought_beam"
NARROW = f"actor_rollout_ref.rollout.val_kwargs.n={G}"
WIDE = f"+actor_rollout_ref.rollout.engine_kwargs.vllm.max_logprobs={G}"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ([WIDE, f"actor_rollout_ref.rollout.val_kwargs.n={2 * G}"], r"val_kwargs.n: 16, but a beam has n \(8\) rollouts"),
        ([NARROW], "max_logprobs: None, but a beam of 8 asks for 8; set it to 8"),
        (
            [
                f"{KWARGS}.constructor=grpo",
                "algorithm.adv_estimator=recast_grpo",
                "actor_rollout_ref.rollout.calculate_log_probs=true",
            ],
            "calculate_log_probs: true, but a beam was not sampled",
        ),
    ],
)
def test_what_does_not_fit_a_beam_is_refused(arguments: list[str], changes: list[str], said: str) -> None:
    config = world.verl_config(arguments, *SMALL, BEAM, *changes)
    with pytest.raises(ConfigError, match=said):
        world.trainer(config)


VLLM = "+actor_rollout_ref.rollout.engine_kwargs.vllm"
HELD = f"{VLLM}.logits_processors=[{TRIE_PROCESSOR}]"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ([f"{VLLM}.additional_config.recast.answers={__file__}"], "logits_processors: without recast_train.* set it to"),
        ([HELD], "additional_config.recast.answers: there is no file ''; give a file of recast-train export vllm"),
        ([HELD, f"{VLLM}.additional_config.recast.answers=/none"], "there is no file '/none'"),
        ([HELD, f"{VLLM}.additional_config.recast.answers={__file__}", BEAM, WIDE, NARROW], "searches a beam without it"),
    ],
)
def test_what_does_not_hold_rollouts_to_the_catalog_is_refused(arguments: list[str], changes: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        world.trainer(world.verl_config(arguments, *SMALL, *changes))


def test_rollouts_may_be_held_to_the_catalog(arguments: list[str]) -> None:
    held = (HELD, f"{VLLM}.additional_config.recast.answers={__file__}", f"{VLLM}.additional_config.recast.after=90")
    own = world.trainer(world.verl_config(arguments, *SMALL, *held)).config.actor_rollout_ref.rollout.engine_kwargs.vllm
    assert own.logits_processors == [TRIE_PROCESSOR]


def test_the_launch_script_makes_beams(tmp_path: Path) -> None:
    config = world.verl_config(launch_arguments(tmp_path, BEAM="1"))
    check_config(config, read_sampler_config(dict(config.trainer.v1.sampler.sampler_kwargs)))
    (agent,) = OmegaConf.load(config.actor_rollout_ref.rollout.agent.agent_loop_config_path)
    assert agent.name == config.actor_rollout_ref.rollout.agent.default_agent_loop
    assert issubclass(hydra.utils.get_class(agent._target_), AgentLoopBase)


def test_a_step_sees_the_plans_rows_alone(queue: None, arguments: list[str]) -> None:
    trainer = world.trainer(world.verl_config(arguments, *SMALL))
    assert type(trainer.replay_buffer) is RecastReplayBuffer
    world.store("zero", [0.0] * G, world.ANSWERS, response)
    world.store("single", [0.0] * 3 + [1.0] + [0.0] * 4, world.ANSWERS, response)
    world.store("multi", [1.0, 0.0, 1.0] + [0.0] * 5, None, response)
    world.store("short", [0.0] * 4 + [None] * 2 + [0.0] * 2, None, response)
    batch, metrics = trainer.replay_buffer.sample(1, "train", 4)

    # slot 0 has the highest structural score and slot 7 the lowest, which the anchor replaces
    wanted = {"zero_7_0": 1, "zero_0_0": -1, "single_3_0": 1, "single_0_0": -1, "multi_0_0": 1, "multi_1_0": -1}
    assert set(batch.keys) == set(wanted)
    assert set(tq.kv_list("train")["train"]) == set(wanted)  # nothing else is left in the queue
    seen = {name: metrics[f"recast/{name}"] for name in ("rows_drawn", "rows_kept", "reward/mean", "repaired", "prompts_lost")}
    assert seen == {"rows_drawn": 30, "rows_kept": 6, "reward/mean": pytest.approx(3 / 30), "repaired": 0.25, "prompts_lost": 0}
    assert (metrics["recast/before/all_zero"], metrics["recast/after/all_zero"]) == (0.5, 0.25)

    anchor, tag = world.rows(["zero_7_0"])["zero_7_0"], dict(zip(batch.keys, batch.tags, strict=True))["zero_7_0"]
    thought = response(7)[: response(7).index(END) + 1]
    tokens = [*world.PROMPT, *thought, *world.ANSWERS[0]]
    assert anchor["input_ids"].tolist() == tokens
    assert anchor["position_ids"].tolist() == list(range(len(tokens)))
    assert anchor["responses"].tolist() == tokens[3:]
    assert anchor["response_mask"].tolist() == anchor["loss_mask"].tolist() == [1] * len(tokens[3:])
    assert (tag["seq_len"], tag["response_len"], anchor["session_id"]) == (len(tokens), len(tokens) - 3, 7)

    balanced = trainer._balance_batch(batch, metrics={})
    assert len(balanced) == world.RANKS  # verl fills up with rows without a token
    trainer._compute_advantage(balanced, metrics={})
    for key, row in world.rows(balanced.keys).items():
        assert torch.equal(row["advantages"], float(wanted.get(key, 0)) * row["response_mask"])
        assert bool(row["response_mask"].any()) == (key in wanted)
    logged: dict[str, Any] = {}
    trainer._compute_metrics(balanced, logged, {"step": 1.0, "gen": 0.5}, global_steps=1, epoch=0)
    assert logged["critic/score/mean"] == 0  # the pairs' coefficients: the raw reward is in recast/reward/mean alone
    check_loss(trainer.config, world.rows(balanced.keys), len(wanted))
    tq.kv_clear(balanced.keys, "train")


def test_the_whole_groups_are_written_and_verl_writes_none(queue: None, arguments: list[str], tmp_path: Path) -> None:
    trainer = world.trainer(world.verl_config(arguments, *SMALL, f"trainer.rollout_data_dir={tmp_path}/rollouts"))
    assert trainer.config.trainer.rollout_data_dir is None
    world.store("zero", [0.0] * G, world.ANSWERS, response)
    world.store("multi", [1.0, 0.0, 1.0] + [0.0] * (G - 3), None, response)
    batch, _ = trainer.replay_buffer.sample(1, "train", 2)
    groups = read_groups([tmp_path / "rollouts"], 0.5).table
    assert sorted(groups.select("rows", "hits").rows()) == [(G, 0), (G, 2)]  # of 16 rows 4 are left in the queue
    assert len(batch.keys) == 4
    tq.kv_clear(batch.keys, "train")


def test_one_word_on_verls_command_line(tmp_path: Path) -> None:
    config = world.verl_config(["hydra.searchpath=[pkg://recast_train.adapters.verl]", "+recast=sampler"], *SMALL)
    trainer = world.trainer(config)
    assert type(trainer.replay_buffer) is RecastReplayBuffer
    assert core_algos.get_adv_estimator_fn(config.algorithm.adv_estimator) is not None


def check_loss(config: Any, rows: dict[str, Any], kept: int) -> None:
    """verl's own policy loss at the on-policy point: a row's coefficient over all kept tokens; the fillers change nothing."""
    columns = [[row[name] for row in rows.values()] for name in ("advantages", "response_mask")]
    advantages, mask = (torch.nn.utils.rnn.pad_sequence(column, batch_first=True) for column in columns)
    logprob = torch.zeros_like(advantages, requires_grad=True)
    actor = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
    loss_of = core_algos.get_policy_loss_fn("vanilla")
    loss, _ = loss_of(logprob.detach(), logprob, advantages, mask, loss_agg_mode=actor.loss_agg_mode, config=actor)
    loss.backward()
    tokens = sum(len(row["responses"]) for row in rows.values() if row["response_mask"].any())
    assert int(mask.sum()) == tokens
    assert int(mask.any(1).sum()) == kept
    torch.testing.assert_close(logprob.grad, -advantages * mask / tokens)


def test_grpo_through_the_sampler_is_verls_grpo(queue: None, arguments: list[str]) -> None:
    own = (f"{KWARGS}.constructor=grpo", "algorithm.adv_estimator=recast_grpo", "actor_rollout_ref.actor.ppo_mini_batch_size=4")
    trainer = world.trainer(world.verl_config(arguments, *SMALL, *own))
    rewards = [[0.0] * G, [1.0] + [0.0] * (G - 1), [1.0, 0.0] * (G // 2), [1.0] * G]
    for place, group in enumerate(rewards):
        world.store(f"p{place}", group, None, response)
    batch, _ = trainer.replay_buffer.sample(1, "train", 4)
    assert len(batch) == 4 * G
    trainer._compute_advantage(batch, metrics={})
    found = world.rows(batch.keys)
    keys = [f"p{place}_{slot}_0" for place in range(4) for slot in range(G)]
    given = outcome([reward for group in rewards for reward in group], [len(response(slot)) for slot in range(G)] * 4)
    index = np.array([key[:2] for key in keys], dtype=object)
    wanted, _ = core_algos.compute_grpo_outcome_advantage(**given, index=index)
    for key, wanted_S in zip(keys, wanted, strict=True):
        torch.testing.assert_close(found[key]["advantages"], wanted_S[: len(found[key]["responses"])], atol=1e-6, rtol=1e-6)
    tq.kv_clear(batch.keys, "train")


def test_without_a_signal_one_row_stays_without_advantage(queue: None, arguments: list[str]) -> None:
    trainer = world.trainer(world.verl_config(arguments, *SMALL))
    world.store("none", [0.0] * G, None, response)
    world.store("unfinished", [0.0] * G, world.ANSWERS, lambda slot: [60, 61, EOS])  # no thought to put an anchor behind
    batch, metrics = trainer.replay_buffer.sample(1, "train", 2)
    assert (len(batch), metrics["recast/repaired"], metrics["recast/learnable"]) == (1, 0, 0)
    trainer._compute_advantage(batch, metrics={})
    assert not world.rows(batch.keys)[batch.keys[0]]["advantages"].any()
    tq.kv_clear(batch.keys, "train")


def test_an_anchor_fills_the_slot_of_a_failed_rollout_behind_a_siblings_thought(queue: None, arguments: list[str]) -> None:
    trainer = world.trainer(world.verl_config(arguments, *SMALL))
    world.store("gap", [0.0, 0.0, None] + [0.0] * 5, world.ANSWERS, lambda slot: response(slot) if slot == 4 else [60, EOS])
    batch, _ = trainer.replay_buffer.sample(1, "train", 1)
    assert set(batch.keys) == {"gap_2_0", "gap_0_0"}
    row = world.rows(["gap_2_0"])["gap_2_0"]
    assert row["responses"].tolist() == [64, 61, END, *world.ANSWERS[0]]
    tq.kv_clear(batch.keys, "train")


def test_a_reward_function_without_a_structural_score_is_named(queue: None, arguments: list[str]) -> None:
    trainer = world.trainer(world.verl_config(arguments, *SMALL, f"+{KWARGS}.structural_key=near"))
    world.store("bare", [0.0] * G, world.ANSWERS, response)
    with pytest.raises(SignalError, match=r"result has \['score', 'structural'\], no 'near', by which recast orders"):
        trainer.replay_buffer.sample(1, "train", 1)
    tq.kv_clear([f"bare_{slot}_0" for slot in range(G)], "train")


def test_a_constructor_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from recast_sim.signal import get_constructor, register\n"
        "from recast_train.adapters.verl.estimators import register_estimators\n"
        "register('mine', source='test')(get_constructor('dr_grpo').apply)\n"
        "register_estimators()\n"
    )
    code = "import verl; from verl.trainer.ppo.core_algos import get_adv_estimator_fn as get; assert get('recast_mine')"
    own = {**os.environ, "VERL_USE_EXTERNAL_MODULES": "mine", "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=own, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_verl_reads_the_exported_data_and_rewards_by_it(tmp_path: Path, arguments: list[str]) -> None:
    names = ["<|sid_begin|>", "<|sid_end|>", "</think>"]
    names += sorted({f"{part}>" for item in SIDS for part in item_name(item).split(">")[:-1]})
    tokenizer = text_tokenizer(names=tuple(names))
    export_openonerec(write_openonerec(tmp_path / "raw"), tmp_path / "data", AnswerTokens(tokenizer, thought=True), "mine")
    config = world.verl_config(arguments)
    data = RLHFDataset(str(tmp_path / "data" / "train.parquet"), tokenizer, config.data)
    assert len(data) == 3
    item = collate_fn([data[place] for place in range(3)])
    assert item["raw_prompt"][1][0] == {"role": "system", "content": "You recommend."}
    assert item["extra_info"][1]["recast"]["anchors"] == [
        tokenizer(open_sid(target))["input_ids"] + [tokenizer.eos_token_id] for target in ("6", "7", "1")
    ]

    manager = object.__new__(NaiveRewardManager)
    manager.tokenizer, manager.compute_score, manager.reward_router_address = tokenizer, get_custom_reward_fn(config), None
    manager.is_async_reward_score = False

    async def rewarded(text: str) -> dict[str, Any]:
        manager.loop = asyncio.get_running_loop()
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        own = {name: item[name][1:2] for name in ("data_source", "reward_model", "extra_info")}
        tensors = {"responses": ids, "attention_mask": torch.ones_like(ids)}
        return await manager.run_single(DataProto.from_dict(tensors=tensors, non_tensors=own))

    answer = asyncio.run(rewarded(f"the </think> {open_sid('7')}"))
    assert answer == {"reward_score": 1.0, "reward_extra_info": {"score": 1.0, "structural": 1.0}}
    assert asyncio.run(rewarded(open_sid("7")))["reward_score"] == 0  # no thought


def test_validation_passes_through(queue: None, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = world.trainer(world.verl_config(arguments, *SMALL))
    whole = (object(), {"x": 1})
    monkeypatch.setattr(ReplayBuffer, "sample", lambda self, *arguments: whole)
    assert trainer.replay_buffer.sample(1, "val", 4) == whole
