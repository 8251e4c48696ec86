"""The Gram matrix by the trie's structure against gradients that autograd materialises, level by level and encoder."""

import copy

import pytest
import torch
from torch import Tensor
from worlds import small_base, small_environment

from recast_sim.exact import gram as gram_module
from recast_sim.exact.gram import (
    expected_estimate,
    expected_estimates,
    gram,
    leaf_products,
    part_names,
    part_of_parameter,
    pass_at_1_gradient,
    square_norms,
)
from recast_sim.world.generators import torch_generator
from recast_sim.world.policy import TreePolicy

KINDS = ("linear", "low_rank", "mlp")


def double_base(kind: str) -> TreePolicy:
    return copy.deepcopy(small_base(kind)).double()


def materialised(policy: TreePolicy, x: Tensor, rows_KY: Tensor) -> Tensor:
    """Gradient of each row of one prompt by autograd, (K, D): the oracle."""
    values = rows_KY @ policy.leaf_logprobs(x[None])[0]
    gradients = [torch.autograd.grad(v, list(policy.parameters()), retain_graph=True, allow_unused=True) for v in values]
    pairs = [zip(g, policy.parameters(), strict=True) for g in gradients]
    return torch.stack([torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in pair]) for pair in pairs])


@pytest.mark.property
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunk", [4_000_000, 100])
def test_gram_by_part_equals_materialised_gradients(kind: str, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gram_module, "_CHUNK", chunk)
    policy, x = double_base(kind), small_environment().train.x_ND[:5].double()
    rows = torch.randn(5, 3, policy.leaves, generator=torch_generator(0), dtype=torch.float64)
    found, part_D = gram(policy, x, rows), part_of_parameter(policy)
    names = part_names(policy)
    assert names == ["level 1", "level 2", "level 3"] + (["encoder"] if kind != "linear" else [])
    assert len(found) == len(names)
    for p in range(5):
        vectors = materialised(policy, x[p], rows[p])
        for part in range(len(names)):
            own = vectors[:, part_D == part]
            torch.testing.assert_close(found[part, p], own @ own.T, rtol=1e-9, atol=1e-12)


@pytest.mark.property
@pytest.mark.parametrize("kind", KINDS)
def test_norms_of_leaves_and_rows_equal_materialised_gradients(kind: str) -> None:
    policy, x = double_base(kind), small_environment().train.x_ND[:4].double()
    products_PYLL, part_D = leaf_products(policy, x), part_of_parameter(policy)
    leaf = torch.randint(policy.leaves, (4, 6), generator=torch_generator(1))
    leaf[:, 5] = leaf[:, 0]  # a leaf may be drawn twice
    coefficient = torch.randn(4, 6, generator=torch_generator(2), dtype=torch.float64)
    dense = torch.zeros(4, policy.leaves, dtype=torch.float64).scatter_add(1, leaf, coefficient)
    single = square_norms(copy.deepcopy(policy).float(), x.float(), leaf, coefficient.float())
    double = square_norms(policy, x, leaf, coefficient)
    for p in range(4):
        every = materialised(policy, x[p], torch.eye(policy.leaves, dtype=torch.float64))
        whole_Y = products_PYLL[p].sum((1, 2))
        torch.testing.assert_close(whole_Y, every.square().sum(1), rtol=1e-9, atol=1e-12)
        if kind == "linear":  # then a level's gradient is in its own head
            heads_YL = torch.stack([every[:, part_D == level].square().sum(1) for level in range(policy.levels)], 1)
            torch.testing.assert_close(products_PYLL[p], torch.diag_embed(heads_YL), rtol=1e-9, atol=1e-12)
        expected = (dense[p] @ every).square().sum()
        torch.testing.assert_close(double[p], expected, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(single[p].double(), expected, rtol=1e-5, atol=1e-6)


def test_opposite_rows_on_one_leaf_cancel() -> None:
    policy, x = small_base("mlp"), small_environment().train.x_ND[:2]
    leaf, coefficient = torch.tensor([[1, 2], [3, 3]]), torch.tensor([[1.0, -1.0], [1.0, -1.0]])
    norms = square_norms(policy, x, leaf, coefficient)
    assert norms[0] > 1e-3
    assert norms[1] == pytest.approx(0, abs=1e-9)


@pytest.mark.property
@pytest.mark.parametrize("kind", KINDS)
def test_exact_gradient_is_the_expectation_of_the_score_times_the_hit(kind: str) -> None:
    world, policy = small_environment(targets=2), small_base(kind)
    x, target = world.train.x_ND[:9], world.train.target_NT[:9]
    coefficient = torch.zeros(9, policy.leaves)
    coefficient.scatter_(1, target, policy.path_logprobs(x, target).sum(2).exp().detach() / 9)
    exact = pass_at_1_gradient(policy, x, target)
    torch.testing.assert_close(exact, expected_estimate(policy, x, coefficient))
    torch.testing.assert_close(expected_estimates(policy, x, torch.stack([coefficient, -coefficient])[..., None])[1], -exact)
