"""A rank's rows: they add up to the whole plan in loss and gradient, are equally many, and stay with their group."""

from dataclasses import fields

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from recast_sim.signal import ObjectiveConfig, UpdatePlan, construct, plan_objective
from recast_train.engine import OwnRows, split_plan
from recast_train.model import TrainError

L = 3


def plan_of(constructor: str, P: int, G: int, hit_rate: float, seed: int) -> UpdatePlan:
    rng = np.random.default_rng(seed)
    rewards = (rng.random((P, G)) < hit_rate).astype(np.float32)
    structural = np.where(rewards > 0, 1.0, rng.choice([0.0, 0.01, 0.1], (P, G)))
    return construct(constructor, rewards, structural, has_anchor_P=torch.from_numpy(rng.random(P) < 0.5)).plan


def parts_of(plan: UpdatePlan, G: int, P: int, world: int) -> list[OwnRows]:
    size = P // world
    return [split_plan(plan, G, slice(rank * size, (rank + 1) * size)) for rank in range(world)]


def logprobs(rows_N: Tensor, table_RL: Tensor) -> Tensor:
    """Log-probabilities that a row has wherever it is computed."""
    return table_RL[rows_N]


plans = st.tuples(
    st.sampled_from(["grpo", "recast", "boundary_only", "sft_hard_negative", "dapo"]),
    st.sampled_from([(1, 3), (2, 2), (3, 1), (4, 2), (2, 5)]),
    st.integers(2, 5),
    st.sampled_from([0.0, 0.1, 0.4]),
    st.integers(0, 999),
)


@pytest.mark.property
@settings(max_examples=60, deadline=None)
@given(plans)
def test_the_parts_add_up(case: tuple[str, tuple[int, int], int, float, int]) -> None:
    constructor, (world, size), G, hit_rate, seed = case
    P, generator = world * size, torch.Generator().manual_seed(seed)
    plan = plan_of(constructor, P, G, hit_rate, seed)
    new, old, reference = (torch.randn(P * G, L, generator=generator) - 2 for _ in range(3))
    new.requires_grad_()
    config = ObjectiveConfig(kl=0.3)
    losses, found, rows = torch.zeros(()), [], []
    for rank, part in enumerate(parts_of(plan, G, P, world)):
        whole_N = part.plan.rows_N + rank * size * G
        assert bool((part.plan.rows_N.diff() >= 0).all())
        assert part.plan.normaliser == plan.normaliser
        assert bool((part.plan.rows_N // G < size).all())
        assert not part.plan.weights_N[~part.own_N].any()
        assert not part.plan.advantages_N[~part.own_N].any()
        result = part.objective(*(logprobs(whole_N, table) for table in (new, old, reference)), config)
        losses, found = losses + result.loss, [*found, len(whole_N)]
        rows.append(whole_N[part.own_N])
        assert part.count == len(rows[-1])
    assert len(set(found)) == 1
    assert torch.equal(torch.cat(rows), plan.rows_N)
    assert found[0] == max(map(len, rows))
    expected = plan_objective(plan, *(logprobs(plan.rows_N, table) for table in (new, old, reference)), config).loss
    assert torch.allclose(losses, expected, rtol=1e-4, atol=1e-5)
    if len(plan.rows_N):
        ours, whole = (torch.autograd.grad(loss, new, retain_graph=True)[0] for loss in (losses, expected))
        assert torch.allclose(ours, whole, rtol=1e-4, atol=1e-5)
        assert bool((whole != 0).any())


def test_fillers_take_the_empty_places_of_a_packed_pass() -> None:
    rows = torch.tensor([0, 1, 2, 8, 16, 17, 18, 19, 20, 21, 22, 23, 24])  # G 8: 3, 1 | 8, 1
    ones = torch.ones(len(rows))
    plan = UpdatePlan(rows, ones[:, None], ones, torch.zeros(len(rows), dtype=torch.bool), 5.0)
    first, second = parts_of(plan, 8, 4, 2)
    assert first.plan.rows_N.tolist() == [0, 0, 0, 1, 2, 8, 8, 8, 8]
    assert first.own_N.tolist() == [True, False, False, True, True, True, False, False, False]
    assert second.plan.rows_N.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8]
    assert bool(second.own_N.all())


def test_a_rank_without_rows_spreads_fillers_over_its_prompts() -> None:
    rows = torch.arange(5)
    plan = UpdatePlan(rows, rows[:, None] + 1.0, rows + 1.0, rows < 0, 5.0)
    _, idle = parts_of(plan, 8, 6, 2)
    assert idle.plan.rows_N.tolist() == [0, 0, 8, 8, 16]
    assert idle.count == 0
    new = torch.zeros(5, L, requires_grad=True)
    result = idle.objective(new, new.detach(), None, ObjectiveConfig())
    result.loss.backward()
    assert result.loss.item() == 0.0
    assert new.grad is not None
    assert not new.grad.any()


def test_one_rank_has_the_whole_plan() -> None:
    plan = plan_of("recast", 4, 5, 0.2, 0)
    part = split_plan(plan, 5, slice(0, 4))
    assert bool(part.own_N.all())
    for column in fields(UpdatePlan):
        assert torch.equal(torch.as_tensor(getattr(part.plan, column.name)), torch.as_tensor(getattr(plan, column.name)))


@pytest.mark.parametrize("share", [slice(0, 0), slice(1, 3)])
def test_a_share_that_cannot_be_one_is_refused(share: slice) -> None:
    with pytest.raises(TrainError, match="is not one of equally long slices"):
        split_plan(plan_of("recast", 4, 5, 0.2, 0), 5, share)
