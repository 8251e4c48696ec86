"""What holds of every step that the model can be asked for."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recast_train.step_model.machine import Machine, card_machine
from recast_train.step_model.net import Net
from recast_train.step_model.setting import StepSetting
from recast_train.step_model.step_memory import step_memory
from recast_train.step_model.step_seconds import step_seconds

pytestmark = pytest.mark.property

NETS = st.builds(
    lambda layers, heads, width, wide, tied: Net(layers, heads * width, heads, heads, width, wide, 500, tied),
    *(st.integers(1, 8), st.integers(1, 8), st.integers(2, 64), st.integers(1, 400), st.booleans()),
)
STEPS = st.builds(
    StepSetting,
    NETS,
    prompt=st.integers(1, 400),
    response=st.integers(1, 6),
    group_size=st.just(32),
    kept=st.integers(1, 32),
    prompts=st.integers(1, 16),
    cards=st.integers(1, 16),
    thought=st.integers(0, 20),
    codes=st.integers(1, 500),
    shared=st.booleans(),
    every_position=st.booleans(),
    updates=st.integers(1, 3),
    mini_batches=st.integers(1, 4),
    recompute=st.booleans(),
    pass_tokens=st.sampled_from([0, 300, 3000]),
    sharded=st.booleans(),
    engine=st.booleans(),
)
GROWING = ("prompt", "response", "prompts", "thought", "updates", "kept")
MACHINE = card_machine("A100")
ROWS_ALONE = Machine("nothing but what rows take", 1e12, 1e30, 0.0, 0.0, 1e30, 1e30, 0.0)


@given(STEPS, st.sampled_from(GROWING))
def test_more_of_anything_takes_no_less(step: StepSetting, field: str) -> None:
    more = replace(step, **{field: min(getattr(step, field) + 3, 32 if field == "kept" else 10**6)})
    before, after = step_seconds(step, MACHINE), step_seconds(more, MACHINE)
    for phase in before.computing:
        assert after.phase(phase) >= before.phase(phase) * (1 - 1e-12)
    assert after.flops >= before.flops


@given(STEPS, st.integers(1, 20))
def test_more_memory_for_more_tokens(step: StepSetting, extra: int) -> None:
    step = replace(step, pass_tokens=0)
    assert step_memory(replace(step, prompt=step.prompt + extra)).peak >= step_memory(step).peak
    assert step_memory(replace(step, recompute=True)).peak <= step_memory(replace(step, recompute=False)).peak + 1e-6 or (
        step.net.layers == 1
    )


@given(STEPS)
def test_faster_machines_take_less(step: StepSetting) -> None:
    faster = replace(MACHINE, flops=2 * MACHINE.flops, bandwidth=2 * MACHINE.bandwidth, call=0.0, link=2 * MACHINE.link)
    assert step_seconds(step, faster).whole <= step_seconds(step, MACHINE).whole


@given(STEPS)
def test_dropping_rows_alone_is_bounded_by_the_rows(step: StepSetting) -> None:
    """Where every row repeats its prompt and only what rows take counts, 32 rows to 2 are a factor of 16, and with anything
    else less."""
    whole = replace(step, shared=False, cards=1, kept=32, mini_batches=1, pass_tokens=0)
    pair = replace(whole, kept=2)
    alone = step_seconds(whole, ROWS_ALONE).computing["actor"] / step_seconds(pair, ROWS_ALONE).computing["actor"]
    assert alone == pytest.approx(16)
    assert step_seconds(whole, MACHINE).actor / step_seconds(pair, MACHINE).actor <= 16


@given(STEPS)
def test_sharing_bounds_what_dropping_is_worth(step: StepSetting) -> None:
    whole = replace(step, shared=True, cards=1, kept=32, mini_batches=1)
    pair = replace(whole, kept=2)
    limit = (whole.before + 32 * whole.own) / (pair.before + 2 * whole.own)
    assert whole.positions / pair.positions == pytest.approx(limit)


@given(STEPS)
def test_sharing_a_prompt_computes_no_more(step: StepSetting) -> None:
    shared, repeated = (replace(step, shared=way, kept=max(1, step.kept)) for way in (True, False))
    assert shared.positions <= repeated.positions
    assert shared.attended <= repeated.attended
