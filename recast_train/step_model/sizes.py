"""Steps of Qwen3-0.6B to 14B on 8 to 64 cards, all rows of a group against the two that ReCast keeps."""

from dataclasses import replace
from typing import Any

from recast_train.model.model_config import ModelConfig, Size
from recast_train.step_model.machine import Machine
from recast_train.step_model.net import Net
from recast_train.step_model.setting import StepSetting
from recast_train.step_model.step_memory import step_memory
from recast_train.step_model.step_seconds import StepSeconds, step_seconds

SIZES: tuple[Size, ...] = ("qwen3-0.6b", "qwen3-1.7b", "qwen3-4b", "qwen3-8b", "qwen3-14b")
CARD_COUNTS = (8, 16, 32, 64)
GROUP, PAIR, LEVELS, CODES = 32, 2, 3, 8192
TEXT = 151_936  # rows of Qwen3's token tables; OpenOneRec adds a token a code
ROW = 3384  # tokens of a row: the paper's 6.93 M over 64 prompts of 32 rows
THOUGHT = 1024  # OpenOneRec's STAGE1_MAX_TOKENS
PASS = 40_960  # OpenOneRec's MAX_TOKENS_PER_GPU


def net_of(size: Size) -> Net:
    """A named size with OpenOneRec's codes in its vocabulary."""
    return Net.of_shape(ModelConfig(size=size).shape(), TEXT + LEVELS * CODES)


def openonerec_step(net: Net, cards: int, kept: float = GROUP) -> StepSetting:
    """A step as OpenOneRec's launch script sets it (verl_rl/recipe/onerec/run_grpo.sh, commit 1f4a99e).

    A prompt a card, one row an optimiser step and card, bf16 throughout, FSDP2, gradient checkpointing, old and reference
    passes of up to 40,960 tokens. Without thoughts; every row repeats its prompt and has logits at every position.
    """
    return replace(
        _batch(net, cards, kept),
        shared=False,
        every_position=True,
        mini_batches=max(1, round(kept)),
        pass_tokens=PASS,
        engine=True,
        held=2,
    )


def own_step(net: Net, cards: int, kept: float = GROUP) -> StepSetting:
    """The same batch in our trainer.

    A prompt once for all its rows, logits of a level's codes, one optimiser step and so no old pass; parameters and optimiser
    state in fp32, passes in bf16; rollouts from the sharded model.
    """
    return replace(_batch(net, cards, kept), codes=CODES, old=False)


def _batch(net: Net, cards: int, kept: float) -> StepSetting:
    """What both trainers are given: a prompt a card, gradient checkpointing, passes in bf16."""
    return StepSetting(
        net,
        prompt=ROW - LEVELS + 1,
        response=LEVELS,
        group_size=GROUP,
        kept=kept,
        prompts=cards,
        cards=cards,
        recompute=True,
        computed=2,
    )


WAYS = {"OpenOneRec's trainer": openonerec_step, "our trainer": own_step}


def sizes_table(machine: Machine) -> list[dict[str, Any]]:
    """A row for each way, size and number of cards: seconds and bytes with all rows and with two, by name."""
    return [
        {"way": way, "size": size, "cards": cards, **compared(make(net_of(size), cards), machine)}
        for way, make in WAYS.items()
        for size in SIZES
        for cards in CARD_COUNTS
    ]


def thought_rollouts(machine: Machine) -> dict[str, float]:
    """Seconds of rollouts behind a thought of THOUGHT tokens, 8B on 64 cards: from an engine's own copy, and from our sharded
    model, which is gathered for every token."""
    step = replace(own_step(net_of("qwen3-8b"), CARD_COUNTS[-1]), thought=THOUGHT)
    found = {"engine": replace(step, engine=True), "own": step}
    return {name: step_seconds(one, machine).phase("rollout") for name, one in found.items()}


def compared(step: StepSetting, machine: Machine, kept: float = PAIR) -> dict[str, Any]:
    """A step with all its rows against the same with `kept`: pairs of figures, and the factors between them.

    `mfu_gain` is that of FLOPs a second of the actor, as a share; `memory_saved` that of the peak.
    """
    parts = max(1, round(step.mini_batches * kept / step.kept))
    fewer = replace(step, kept=kept, mini_batches=parts)
    before, after = step_seconds(step, machine), step_seconds(fewer, machine)
    memory = (step_memory(step).peak, step_memory(fewer).peak)
    return {
        "rollout": after.phase("rollout"),
        "inference": (_inference(before), _inference(after)),
        "actor": (before.actor, after.actor),
        "sending": (sum(before.sending.values()), sum(after.sending.values())),
        "whole": (before.whole, after.whole),
        "memory": memory,
        "fits": not machine.memory or memory[0] <= machine.memory,
        "actor_factor": before.actor / after.actor,
        "step_factor": before.whole / after.whole,
        "mfu_gain": after.flops / after.actor / (before.flops / before.actor) - 1,
        "memory_saved": 1 - memory[1] / memory[0],
    }


def _inference(seconds: StepSeconds) -> float:
    return seconds.phase("old") + seconds.phase("reference")
