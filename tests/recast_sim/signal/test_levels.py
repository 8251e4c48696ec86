"""Level-wise signals: what holds of every one of them, and each against its formula by hand."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from signal_cases import LEVEL_WISE, SHIPPED, WIDTH_TWO, batches, facts, few_facts, level_inputs, one_group, tensor

from recast_sim.signal import (
    ObjectiveConfig,
    SignalConfig,
    SignalError,
    by_level,
    construct,
    from_first_missed_level,
    get_constructor,
    group_state,
    list_constructors,
    mask_shared_prefix,
    only_diverging_level,
    plan_objective,
    repair_all_zero,
    step_aligned,
)

pytestmark = pytest.mark.property

ROW_LEVEL = [name for name in SHIPPED if name not in LEVEL_WISE]
PARENTS = {"sapo": "grpo", "recast_masked": "recast", "recast_diverging": "recast"}


def state_of(rewards, sids, targets, **more):
    """One group with given codes; scores count shared levels."""
    sids_PGL, targets_PTL = torch.tensor([sids]), torch.tensor([targets])
    score = (sids_PGL == targets_PTL[:, :1]).cumprod(2).double().mean(2) * 0.5
    return group_state(
        tensor([rewards]), score, has_anchor_P=torch.tensor([True]), sids_PGL=sids_PGL, targets_PTL=targets_PTL, **more
    )


@pytest.mark.parametrize("name", ROW_LEVEL)
@few_facts
@given(batch=batches())
def test_a_row_level_constructor_is_the_case_of_equal_levels(name, batch):
    """Equal numbers on all levels give the same loss and the same gradient, bit by bit."""
    constructor = get_constructor(name)
    spread = replace(constructor, apply=lambda s: _spread(constructor.apply(s)))
    row, level = (construct(one, **batch, config=WIDTH_TWO) for one in (constructor, spread))
    assert row.plan.advantages_NL.shape[1] == 1
    assert level.plan.advantages_NL.shape[1] == 3
    assert torch.equal(level.plan.rows_N, row.plan.rows_N)
    generator = torch.Generator().manual_seed(0)
    new, old, ref = (-torch.rand(len(row.plan.rows_N), 3, generator=generator, dtype=torch.float64) for _ in range(3))
    found = []
    for plan in (row.plan, level.plan):
        leaf = new.clone().requires_grad_()
        result = plan_objective(plan, leaf, old, ref, ObjectiveConfig(kl=0.01))
        found.append(
            (result.loss.detach(), *torch.autograd.grad(result.loss, leaf), torch.tensor(result.clip_share).nan_to_num(0))
        )
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def _spread(state):
    table = state.advantages_PG[..., None].expand(*state.advantages_PG.shape, 3).clone()
    return replace(state, advantages_PGL=table, advantages_PG=table.mean(2))


@pytest.mark.parametrize("name", PARENTS)
@facts
@given(batch=batches())
def test_on_one_level_it_is_its_row_level_parent(name, batch):
    one = batch | level_inputs(batch["rewards_PG"], batch["structural_PG"], levels=1)
    got = construct(name, **one, config=WIDTH_TWO)
    want = construct(PARENTS[name], **batch, config=WIDTH_TWO)
    torch.testing.assert_close(got.advantages_PG, want.advantages_PG, atol=1e-5, rtol=1e-5)
    if PARENTS[name] == "recast":
        assert torch.equal(got.plan.rows_N, want.plan.rows_N)


@facts
@given(batch=batches())
def test_on_one_level_dft_is_the_tempered_anchor_at_power_one(batch):
    one = batch | level_inputs(batch["rewards_PG"], batch["structural_PG"], levels=1)
    got, want = construct("dft", **one).plan, construct("tempered_anchor", **one).plan
    assert torch.equal(got.rows_N, want.rows_N)
    torch.testing.assert_close(got.coefficients_NL, want.coefficients_NL)


@pytest.mark.parametrize("constructor", list_constructors(), ids=lambda c: c.name)
@few_facts
@given(batch=batches())
def test_a_plan_is_level_wise_where_the_constructor_says_so(constructor, batch):
    signal = construct(constructor, **batch, config=WIDTH_TWO)
    assert signal.plan.level_wise == constructor.level_wise
    if constructor.level_wise:
        with pytest.raises(SignalError, match="level-wise; read advantages_NL"):
            _ = signal.plan.advantages_N
        assert signal.advantages_PGL is not None
        assert torch.equal(signal.advantages_PG, signal.advantages_PGL.mean(2))


@facts
@given(batch=batches())
def test_step_aligned_numbers_sum_to_zero_over_the_rows_that_share_the_codes_so_far(batch):
    after = step_aligned(group_state(**batch))
    numbers, match = after.advantages_PGL, (after.sids_PGL == after.targets_PTL).cumprod(2).bool()
    for level in range(3):
        among = after.valid_PG if level == 0 else after.valid_PG & match[..., level - 1]
        assert (numbers[..., level][~among] == 0).all()
        assert (numbers[..., level] * among).sum(1).abs().max() < 1e-9


def test_step_aligned_by_hand():
    after = step_aligned(state_of([0, 0, 0, 1], [[5, 5, 5], [1, 5, 5], [1, 2, 5], [1, 2, 3]], [[1, 2, 3]]))
    std = [0.5, (1 / 3) ** 0.5, 0.5**0.5]
    expected = [
        [-0.75 / std[0], 0, 0],
        [0.25 / std[0], -2 / 3 / std[1], 0],
        [0.25 / std[0], 1 / 3 / std[1], -0.5 / std[2]],
        [0.25 / std[0], 1 / 3 / std[1], 0.5 / std[2]],
    ]
    torch.testing.assert_close(after.advantages_PGL[0], tensor(expected), atol=1e-5, rtol=1e-5)


def test_siblings_by_hand():
    """Root: children 1 (value 1/3) and 5 (value 0); under 1: children 2 (1/2) and 5 (0); under 1, 2: 3 (1) and 5 (0)."""
    batch = one_group(0.0, 0.0, 0.0, 1.0) | {
        "sids_PGL": torch.tensor([[[5, 5, 5], [1, 5, 5], [1, 2, 5], [1, 2, 3]]]),
        "targets_PTL": torch.tensor([[[1, 2, 3]]]),
    }
    numbers = construct("sibling", **batch, config=SignalConfig(sibling_eps=1e-12)).advantages_PGL[0]
    expected = [[-1, 0, 0], [1, -1, 0], [1, 1, -1], [1, 1, 1]]  # two children each: half a gap over half a gap
    torch.testing.assert_close(numbers, tensor(expected), atol=1e-6, rtol=1e-6)
    doubled = {k: torch.cat([v, v[:, :1]], 1) if "_PG" in k else v for k, v in batch.items()}
    again = construct("sibling", **doubled, config=SignalConfig(sibling_eps=1e-12)).advantages_PGL[0]
    torch.testing.assert_close(again[:4], tensor(expected), atol=1e-6, rtol=1e-6)


def test_masks_by_hand():
    """The pair is row 3, the hit, against row 2, which shares two levels with it."""
    state = state_of([0, 0, 0, 1], [[5, 5, 5], [1, 5, 5], [1, 2, 5], [1, 2, 3]], [[1, 2, 3]])
    pair = get_constructor("recast").apply(state)
    masked, diverging = mask_shared_prefix(pair), only_diverging_level(pair)
    assert masked.advantages_PGL[0].tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, -1], [1, 1, 1]]
    assert diverging.advantages_PGL[0].tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, -1], [1, 1, 1]]
    far = replace(pair, sids_PGL=torch.tensor([[[5, 5, 5], [1, 5, 5], [1, 7, 5], [1, 2, 3]]]))
    assert mask_shared_prefix(far).advantages_PGL[0, 2].tolist() == [0, -1, -1]
    assert only_diverging_level(far).advantages_PGL[0, 2].tolist() == [0, -1, 0]


def test_a_masked_prefix_keeps_the_positives_gradient_instead_of_cancelling_it():
    batch = one_group(0.0, 0.0, 0.0, 1.0) | {
        "sids_PGL": torch.tensor([[[5, 5, 5], [1, 5, 5], [1, 2, 5], [1, 2, 3]]]),
        "targets_PTL": torch.tensor([[[1, 2, 3]]]),
    }
    plain, masked = construct("recast", **batch).plan, construct("recast_masked", **batch).plan
    assert plain.advantages_NL.sum(0).tolist() == [0]
    assert masked.advantages_NL.sum(0).tolist() == [1, 1, 0]


def test_an_anchor_starts_at_the_first_level_that_no_row_reached():
    state = state_of([0, 0, 0], [[5, 5, 5], [1, 5, 5], [1, 5, 3]], [[1, 2, 3]])
    repaired = get_constructor("sft").apply(state)
    slot = int(repaired.anchor_slot_P)
    assert from_first_missed_level(repaired).advantages_PGL[0, slot].tolist() == [0, 1, 1]
    assert repaired.sids_PGL[0, slot].tolist() == [1, 2, 3]


@pytest.mark.parametrize("mask", [mask_shared_prefix, only_diverging_level, from_first_missed_level])
@pytest.mark.parametrize("name", SHIPPED)
@few_facts
@given(batch=batches())
def test_masks_go_behind_every_constructor(mask, name, batch):
    constructor = get_constructor(name)
    signal = construct(replace(constructor, apply=lambda s: mask(constructor.apply(s))), **batch, config=WIDTH_TWO)
    plain = construct(constructor, **batch, config=WIDTH_TWO)
    assert torch.equal(signal.plan.rows_N, plain.plan.rows_N)
    before = plain.plan.advantages_NL.expand(-1, 3)
    assert ((signal.plan.advantages_NL == before) | (signal.plan.advantages_NL == 0)).all()
    kept_up = before > 0 if mask is not from_first_missed_level else ~signal.plan.anchor_N[:, None].expand_as(before)
    rows_up = plain.advantages_PG.flatten()[plain.plan.rows_N] >= 0
    untouched = kept_up & (rows_up[:, None] if mask is not from_first_missed_level else True)
    assert torch.equal(signal.plan.advantages_NL[untouched], before[untouched])


def test_missing_codes_are_named():
    with pytest.raises(SignalError, match="sids_PGL: missing; sapo compares rollouts level by level"):
        construct("sapo", torch.zeros(1, 3))
    with pytest.raises(SignalError, match=r"targets_PTL: shape \(1, 1, 2\) does not fit; expected \(1, any, 3\)"):
        construct("sapo", torch.zeros(1, 3), sids_PGL=torch.zeros(1, 3, 3).long(), targets_PTL=torch.zeros(1, 2).long())
    with pytest.raises(SignalError, match=r"sids_PGL: dtype torch\.float32 must be whole numbers"):
        construct("sapo", torch.zeros(1, 3), sids_PGL=torch.zeros(1, 3, 3), targets_PTL=torch.zeros(1, 3).long())


def test_a_chord_group_by_hand():
    batch = one_group(1.0, 0.0) | {"anchor_logprob_PL": tensor([[0.5, 0.25, 1.0]]).log()}
    config = SignalConfig(chord_mu=0.2)
    signal = construct("chord", **batch, config=config)
    grpo = construct("grpo", **batch).advantages_PG[0]
    torch.testing.assert_close(signal.advantages_PGL[0, :2, 0], 0.8 * grpo)
    torch.testing.assert_close(signal.advantages_PGL[0, 2], 0.2 * 2 * tensor([0.25, 0.1875, 0.0]))


def test_zero_variance_groups_by_hand():
    batch = one_group(0.0, 0.0) | {"entropy_PGL": tensor([[[1.0, 3.0, 2.0], [0.5, 0.5, 0.5]]])}
    numbers = construct("rl_zvp", **batch, config=SignalConfig(zvp_alpha=0.1)).advantages_PGL[0]
    torch.testing.assert_close(numbers, tensor([[-0.2, 0.0, -0.1], [0, 0, 0]]))
    hits = construct("rl_zvp", **batch | {"rewards_PG": tensor([[1.0, 1.0]])}).advantages_PGL[0]
    torch.testing.assert_close(hits, 0.1 * batch["entropy_PGL"][0])


def test_confidence_of_misses_by_hand():
    """LENS, arXiv 2510.08696: in a group without a hit the most confident miss has the reward -1 / G before centring."""
    batch = one_group(0.0, 0.0) | {"logprob_PG": tensor([[0.125, 0.001]]).log()}
    q = tensor([0.5, 0.1])
    reward = -q / (1.0 - q) / 2
    numbers = construct("lens", **batch, config=SignalConfig(lens_alpha=0.25)).advantages_PG[0]
    torch.testing.assert_close(numbers, 0.25 * (reward - reward.mean()))
    assert reward[0] == -0.5


def test_a_new_state_by_level_keeps_its_mean():
    state = by_level(repair_all_zero(group_state(**one_group(0.0, 0.0))), torch.arange(6.0).double().view(1, 2, 3))
    assert state.advantages_PG.tolist() == [[1, 4]]
