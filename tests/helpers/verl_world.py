"""A step of verl's V1 trainer on a CPU, up to the actor: rows as its agent loop stores them in a real TransferQueue."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import ray
import transfer_queue as tq
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
from verl.experimental.agent_loop.agent_loop import AgentLoopMetrics, AgentLoopOutput
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopWorkerTQ
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

G, RANKS, EOS, THOUGHT_END = 8, 8, 2, 90
ANSWERS = [[50, 51, 52, EOS], [50, 51, 53, EOS]]
PROMPT = [10, 11, 12]


def verl_config(arguments: list[str], *more: str) -> Any:
    """verl's own config under these arguments of `main_ppo`; an override of a key that nobody has fails here."""
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose("ppo_trainer", overrides=[*arguments, *more])


@contextmanager
def transfer_queue() -> Iterator[None]:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    try:
        storage = {"total_storage_size": 10_000, "num_data_storage_units": 1}
        tq.init(OmegaConf.create({"backend": {"SimpleStorage": storage}}))
        yield
        tq.close()
    finally:
        ray.shutdown()


def trainer(config: Any) -> Any:
    """verl's synchronous trainer without models: its config and its replay buffer, as its own constructor makes it."""
    made = object.__new__(PPOTrainerSync)
    made.config, made.trainer_mode, made.use_critic, made.global_steps = config, "sync", False, 1
    made.tokenizer = SimpleNamespace(eos_token_id=EOS, decode=lambda ids, **_: " ".join(map(str, ids.tolist())))
    made.actor_rollout_wg = SimpleNamespace(_dispatch_info={"actor": list(range(RANKS))})
    made.resource_pool_manager = SimpleNamespace(get_n_gpus=lambda: RANKS)
    made._rollout_moe_lb_metrics_accumulator = None
    made.replay_buffer = made._build_replay_buffer()
    return made


def store(uid: str, rewards: list[float | None], anchors: list[list[int]] | None, response: Callable[[int], list[int]]) -> None:
    """One group, by the code of verl's agent loop; a reward of None is a rollout that failed. Structural scores fall."""
    worker = SimpleNamespace(_compute_score=_nothing, _compute_teacher_logprobs=_nothing)
    worker._compute_multi_modal_inputs = lambda output, tokens: {}
    kind = AgentLoopWorkerTQ.__ray_metadata__.modified_class
    worker._compute_position_ids = lambda *arguments: kind._compute_position_ids(SimpleNamespace(processor=None), *arguments)
    extra_info = {"index": 0} if anchors is None else {"recast": {"anchors": anchors, "thought_end": THOUGHT_END}}
    dataset = {"uid": uid, "data_source": "test", "reward_model": {"ground_truth": "x"}, "extra_info": extra_info}

    async def post() -> None:
        tag = {"is_prompt": True, "status": "finished", "global_steps": 1}
        await tq.async_kv_put(key=uid, partition_id="train", tag=tag)
        for slot, reward in enumerate(rewards):
            if reward is None:
                continue
            tokens = response(slot)
            output = AgentLoopOutput(
                prompt_ids=PROMPT,
                response_ids=tokens,
                response_mask=[1] * len(tokens),
                reward_score=reward,
                num_turns=2,
                metrics=AgentLoopMetrics(),
                extra_fields={
                    "reward_extra_info": {"score": reward, "structural": reward or (len(rewards) - slot) / 100},
                    "min_global_steps": 0,
                    "max_global_steps": 0,
                },
            )
            own = {**dataset, "global_steps": 1, "session_id": slot, "raw_prompt": [{"role": "user", "content": "?"}]}
            await kind._agent_loop_postprocess(worker, output, False, **own)

    asyncio.run(post())


def rows(keys: list[str]) -> dict[str, dict[str, Any]]:
    table = tq.kv_batch_get(keys=keys, partition_id="train")
    return {key: {name: table[place][name] for name in table.keys()} for place, key in enumerate(keys)}  # noqa: SIM118


async def _nothing(*arguments: Any, **named: Any) -> None:
    return None
