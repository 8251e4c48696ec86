"""Constructors that order a group's rows: ranking reward, windowed AUC, CARE, S-DPO."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from signal_cases import batches, facts, mask, one_group, tensor
from signal_oracle import grpo_group

from recast_sim.signal import SignalConfig, construct, group_state, likelihood_rank
from recast_sim.signal.steps.pick import pick_best

pytestmark = pytest.mark.property


def test_likelihood_rank_counts_from_the_likeliest_with_ties_by_row():
    state = group_state(torch.zeros(1, 5), logprob_PG=[[-3.0, -1.0, -2.0, -1.0, 0.0]])
    rank = likelihood_rank(state, torch.tensor([[True, True, True, True, False]]))
    assert rank.tolist() == [[3, 0, 2, 1, 4]]


@pytest.mark.parametrize("rule", ["first", "highest_logprob"])
@facts
@given(batch=batches(), count=st.integers(1, 4))
def test_pick_best_takes_the_highest_scores_and_breaks_ties_by_the_rule(rule, batch, count):
    state = group_state(**batch, config=SignalConfig(tie_rule=rule))
    chosen = pick_best(state, state.scores_PG(), state.misses_PG, count)
    for p, candidates in enumerate(state.misses_PG):
        rows = candidates.nonzero()[:, 0].tolist()
        tie = (lambda g: g) if rule == "first" else (lambda g, p=p: -batch["logprob_PG"][p, g].item())
        best = sorted(rows, key=lambda g: (-batch["structural_PG"][p, g].item(), tie(g)))[:count]
        assert chosen[p].nonzero()[:, 0].tolist() == sorted(best)


def test_rank_reward_by_hand():
    """Ranks 2, 0, 3, 1; discounts 1, 1/log2(3), 1/2, 1/log2(5) by rank; the hit is row 0 and keeps its 1."""
    batch = one_group(1.0, 0.0, 0.0, 0.0, logprob_PG=tensor([[-3.0, -1.0, -4.0, -2.0]]))
    d = [1 / math.log2(j + 2) for j in range(4)]
    shaped = [1.0, -d[0] / sum(d), -d[3] / sum(d), -d[1] / sum(d)]
    signal = construct("rank_reward", **batch)
    torch.testing.assert_close(signal.advantages_PG[0], tensor(grpo_group(shaped, [True] * 4)))
    weighted = construct("rank_reward", **batch, config=SignalConfig(rank_weight=0.5))
    half = grpo_group([r if r > 0 else r / 2 for r in shaped], [True] * 4)
    torch.testing.assert_close(weighted.advantages_PG[0], tensor(half))


@facts
@given(batch=batches())
def test_rank_reward_orders_the_misses_of_a_hit_group_and_leaves_the_others_alone(batch):
    signal, plain = construct("rank_reward", **batch), construct("grpo", **batch)
    for p, hits in enumerate(signal.hits_before_P.tolist()):
        misses = batch["valid_PG"][p] & (batch["rewards_PG"][p] == 0)
        if hits == 0 or not misses.any():
            assert torch.equal(signal.advantages_PG[p], plain.advantages_PG[p])
            continue
        order = batch["logprob_PG"][p][misses].argsort()
        assert (signal.advantages_PG[p][misses][order].diff() < 0).all()


@facts
@given(batch=batches(), ddof=st.sampled_from([0, 1]))
def test_the_full_window_is_grpo(batch, ddof):
    config = SignalConfig(window_low=0.0, window_span=1.0, std_ddof=ddof)
    torch.testing.assert_close(
        construct("wpauc", **batch, config=config).advantages_PG, construct("grpo", **batch, config=config).advantages_PG
    )


@facts
@given(batch=batches(padding="none"), low=st.sampled_from([0.0, 0.2, 0.5]), span=st.sampled_from([0.1, 0.3, 0.5]))
def test_wpauc_weighs_each_miss_by_its_part_of_the_window(batch, low, span):
    signal = construct("wpauc", **batch, config=SignalConfig(window_low=low, window_span=span))
    grpo = construct("grpo", **batch).advantages_PG
    for p, row in enumerate(signal.advantages_PG):
        misses = batch["rewards_PG"][p] == 0
        M, ranked = int(misses.sum()), batch["logprob_PG"][p].masked_fill(~misses, -math.inf).argsort(descending=True)
        for j, g in enumerate(ranked[:M].tolist()):
            share = max(0.0, min(j + 1, M * (low + span)) - max(j, M * low))
            torch.testing.assert_close(row[g], grpo[p, g] * share, rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(row[~misses], grpo[p][~misses] * span, rtol=1e-6, atol=1e-9)


def test_care_by_hand():
    """One hit, three misses, K = 2: the two hardest are rows 3 and 2; z-scores sqrt(2) and -1/sqrt(2), negatives halved."""
    config = SignalConfig(care_negatives=2, std_eps=1e-12)
    signal = construct("care", **one_group(1.0, 0.0, 0.0, 0.0), config=config)
    torch.testing.assert_close(signal.advantages_PG[0], tensor([1.0, 0.0, -0.25, -0.25]) * math.sqrt(2))
    assert signal.plan.rows_N.tolist() == [0, 2, 3]
    assert signal.positive_P.tolist() == [0]


def test_care_makes_up_for_missing_negatives():
    """K = 4 with three misses: z-scores sqrt(3) and -1/sqrt(3), all times sqrt(4/3)."""
    signal = construct("care", **one_group(1.0, 0.0, 0.0, 0.0), config=SignalConfig(std_eps=1e-12))
    torch.testing.assert_close(signal.advantages_PG[0], tensor([2.0, *[-1 / 3] * 3]))


@pytest.mark.parametrize("delta", [0.1, 0.01])
def test_cares_rescue_is_as_strong_as_a_real_hit(delta):
    """The z-score cancels the pseudo reward: the likeliest miss (row 0) is pushed up as if it were right."""
    config = SignalConfig(care_delta=delta, std_eps=1e-12, care_negatives=3)
    rescue = construct("care", **one_group(0.0, 0.0, 0.0, 0.0), config=config)
    torch.testing.assert_close(
        rescue.advantages_PG, construct("care", **one_group(1.0, 0.0, 0.0, 0.0), config=config).advantages_PG
    )
    assert rescue.positive_P.tolist() == [0]
    assert not rescue.repaired_P.any()


@pytest.mark.parametrize("rewards", [(1.0, 1.0, 1.0), (0.0,)])
def test_care_without_a_negative_gives_nothing(rewards):
    pad = [0.0] * (3 - len(rewards))
    valid = torch.tensor([[g < len(rewards) for g in range(3)]])
    signal = construct("care", **one_group(*rewards, *pad, valid_PG=valid))
    assert not signal.active_PG.any()
    assert signal.positive_P.tolist() == [-1]


@facts
@given(batch=batches(rewards="graded"), beta=st.sampled_from([1.0, 0.1]), count=st.integers(1, 3))
def test_s_dpo_is_minus_the_gradient_of_its_loss(batch, beta, count):
    signal = construct("s_dpo", **batch, config=SignalConfig(sdpo_beta=beta, sdpo_negatives=count))
    anchor = mask(signal.anchor_slot_P, signal.group_size)
    for p in range(len(anchor)):
        row = signal.advantages_PG[p]
        misses = batch["valid_PG"][p] & (batch["rewards_PG"][p] <= 0) & ~anchor[p]
        if not anchor[p].any() or not misses.any():
            assert (row == 0).all()
            continue
        negatives = (row < 0).nonzero()[:, 0]
        assert len(negatives) == min(count, int(misses.sum()))
        target = batch["anchor_logprob_P"][p].clone().requires_grad_()
        others = batch["logprob_PG"][p][negatives].clone().requires_grad_()
        d_target = target - batch["anchor_reference_logprob_P"][p]
        d_others = others - batch["reference_logprob_PG"][p][negatives]
        loss = -torch.nn.functional.logsigmoid(-(beta * (d_others - d_target)).logsumexp(0))
        of_target, of_others = torch.autograd.grad(loss, (target, others))
        torch.testing.assert_close(row[anchor[p]], -of_target[None])
        torch.testing.assert_close(row[negatives], -of_others)


@pytest.mark.parametrize("N", [1, 2, 3])
def test_s_dpo_where_the_policy_is_its_reference(N):
    config = SignalConfig(sdpo_beta=0.5, sdpo_negatives=N)
    signal = construct("s_dpo", **one_group(0.0, 0.0, 0.0, 0.0), config=config)
    numbers = signal.advantages_PG[signal.active_PG]
    torch.testing.assert_close(numbers.sort().values, tensor([*[-0.5 / (N + 1)] * N, 0.5 * N / (N + 1)]))


def test_s_dpo_pairs_the_target_with_the_hardest_misses():
    signal = construct("s_dpo", **one_group(0.0, 0.0, 0.0, 0.0), config=SignalConfig(sdpo_negatives=2))
    assert signal.anchor_slot_P.tolist() == [0]
    assert (signal.advantages_PG < 0).tolist() == [[False, False, True, True]]
