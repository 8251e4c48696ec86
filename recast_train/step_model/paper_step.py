"""The paper's figures of a step (arXiv 2604.22169: 8B, G = 32, 64 cards) against counting: what follows from it, and what would
have to be true of what does not.

The launch script of the baseline is public (`openonerec_step`); the cards are not named, and lengths of single rows and what
else was changed are not told.
"""

from dataclasses import replace

from recast_train.step_model.setting import StepSetting
from recast_train.step_model.sizes import GROUP, PAIR, ROW, net_of, openonerec_step
from recast_train.step_model.step_memory import step_memory
from recast_train.step_model.step_work import step_work
from recast_train.step_model.traffic import step_traffic

CARDS, CARD_BYTES = 64, 64e9  # the memory is assumed: that of a common card of the kind
ACTOR, STEP, TOKENS = (211.04, 12.71), (371.54, 77.00), (6.93e6, 0.47e6)
MEMORY_SAVED, MFU_GAIN = 0.165, 0.142


def paper_checks() -> dict[str, dict[str, float]]:
    """By claim, what counting gives and what the paper's figure asks for.

    Seconds, factors, shares, FLOP/s and bytes/s of a card; each "needed" value is solved for with all else as counted.
    """
    step = openonerec_step(net_of("qwen3-8b"), CARDS)
    return {"actor": _actor(step), "step": _step(step), "memory": _memory(step), "mfu": _mfu()}


def _actor(step: StepSetting) -> dict[str, float]:
    """Were all of the actor's time proportional to rows or to optimiser steps, 32 rows to 2 would be a factor of 16."""
    work = step_work(step)
    return {
        "paper": _factor(ACTOR),
        "by_rows": GROUP / PAIR,
        "by_tokens": _factor(TOKENS),
        "rows_kept": GROUP / _factor(TOKENS),
        "needed_beyond_rows": _factor(ACTOR) / (GROUP / PAIR) - 1,
        "flops_if_computing": work["actor"].flops / ACTOR[0],
        "link_if_sending": step_traffic(step, work)["actor"].sent / ACTOR[0],
    }


def _step(step: StepSetting) -> dict[str, float]:
    """What the two totals say of the phases beside the actor: a part that stays, and one that shrinks as the actor's tokens do.

    The latter are old and reference passes: by their FLOPs beside the actor's or, were sending all, by bytes with a row a pass.
    """
    rest = (STEP[0] - ACTOR[0], STEP[1] - ACTOR[1])
    shrinking = (rest[0] - rest[1]) / (1 - 1 / _factor(TOKENS))
    work = step_work(step)
    by_flops = ACTOR[0] * (work["old"].flops + work["reference"].flops) / work["actor"].flops
    rowwise = replace(step, pass_tokens=ROW)
    traffic = step_traffic(rowwise, step_work(rowwise))
    by_bytes = ACTOR[0] * (traffic["old"].sent + traffic["reference"].sent) / traffic["actor"].sent
    return {
        "paper": _factor(STEP),
        "needed_inference": shrinking,
        "needed_rest": rest[0] - shrinking,
        "inference_by_flops": by_flops,
        "inference_by_bytes": by_bytes,
        "after_by_flops": rest[0] - by_flops + (by_flops + ACTOR[0]) / _factor(TOKENS),
    }


def _memory(step: StepSetting) -> dict[str, float]:
    """Peaks by counting, and the rows of an old or reference pass that save the paper's share of a full card, at most."""
    few = replace(step, kept=PAIR, mini_batches=PAIR)
    before, after, row = (step_memory(one) for one in (step, few, replace(few, pass_tokens=ROW)))
    return {
        "paper": MEMORY_SAVED,
        "counted": 1 - after.peak / before.peak,
        "peak_before": before.peak,
        "peak_after": after.peak,
        "needed_total": (before.peak - after.peak) / MEMORY_SAVED,
        "needed_pass_rows": PAIR + MEMORY_SAVED * CARD_BYTES / row.inference,
    }


def _mfu() -> dict[str, float]:
    """FLOPs over seconds: the factor of the seconds over that of the tokens, the FLOPs of a token being nearly the same."""
    return {
        "paper": MFU_GAIN,
        "by_seconds_and_tokens": _factor(ACTOR) / _factor(TOKENS) - 1,
        "by_steps_and_tokens": GROUP / PAIR / _factor(TOKENS) - 1,
        "needed_tokens": TOKENS[0] * (1 + MFU_GAIN) / _factor(ACTOR),
    }


def _factor(pair: tuple[float, float]) -> float:
    return pair[0] / pair[1]
