"""The exact instrument against autograd, against theory, and against itself."""

import numpy as np
import pytest
import torch
from torch import nn
from worlds import small_base, small_environment

from recast_sim import theory
from recast_sim.batches import kept_leaves, roll_out, signal_of
from recast_sim.exact import expected_estimate, gradient_reports, pass_at_1_gradient, square_norms
from recast_sim.policy import TreePolicy
from recast_sim.seeding import torch_generator
from recast_sim.signal import SignalConfig


def flat_gradient(policy: TreePolicy, value: torch.Tensor) -> torch.Tensor:
    return torch.cat([g.reshape(-1) for g in torch.autograd.grad(value, list(policy.parameters()), retain_graph=True)])


@pytest.mark.property
def test_gram_norms_equal_materialised_gradients() -> None:
    policy, x = small_base(), small_environment().train.x_ND[:6]
    generator = torch_generator(0)
    leaf = torch.randint(policy.leaves, (6, 5), generator=generator)
    coefficient = torch.randn(6, 5, generator=generator)
    weighted = (policy.path_logprobs(x, leaf).sum(2) * coefficient).sum(1)
    expected = [flat_gradient(policy, value).square().sum() for value in weighted]
    torch.testing.assert_close(square_norms(policy, x, leaf, coefficient), torch.stack(expected), rtol=1e-4, atol=1e-5)


def test_nonlinear_policies_take_the_materialised_way() -> None:
    policy, x = small_base("mlp"), small_environment().train.x_ND[:2]
    assert not isinstance(policy.encoder, nn.Identity)
    leaf, coefficient = torch.tensor([[1, 2], [3, 3]]), torch.tensor([[1.0, -1.0], [1.0, -1.0]])
    norms = square_norms(policy, x, leaf, coefficient)
    assert norms[0] > 1e-3
    assert norms[1] == pytest.approx(0, abs=1e-9)  # the same leaf twice with opposite signs


@pytest.mark.property
def test_exact_gradient_is_the_expectation_of_the_score_times_the_hit() -> None:
    world, policy = small_environment(), small_base()
    x, target = world.train.x_ND[:9], world.train.target_NT[:9]
    coefficient = torch.zeros(9, policy.leaves)
    coefficient.scatter_(1, target, policy.path_logprobs(x, target).sum(2).exp().detach() / 9)
    torch.testing.assert_close(pass_at_1_gradient(policy, x, target), expected_estimate(policy, x, coefficient))


@pytest.mark.property
def test_the_positive_half_of_recast_is_the_supervised_gradient() -> None:
    """With repair, E[positive half] = w grad log pi(target), whatever G."""
    world, policy = small_environment(), small_base()
    prompt, config = torch.arange(8).repeat(50), SignalConfig(normaliser="groups")
    supervised = torch.zeros(8, policy.leaves).scatter_(1, world.train.target_NT[:8], 1.0)
    for G in (2, 8):
        batch = roll_out(policy, world, prompt, G, "iid", config, torch_generator(G))
        signal = signal_of(batch, "recast", config, torch_generator(G))
        leaf, group = kept_leaves(batch, signal), signal.plan.rows_N // G
        positive = signal.plan.advantages_N > 0
        flat = prompt[group[positive]] * policy.leaves + leaf[positive]
        counts = torch.bincount(flat, minlength=8 * policy.leaves).view(8, -1)
        inactive = int((signal.hits_before_P == G).sum())
        assert int(counts.sum()) == len(prompt) - inactive
        assert (counts[supervised == 0] == 0).all()


@pytest.mark.property
def test_reports_know_unbiased_from_biased() -> None:
    reports = {
        r.constructor: r
        for r in gradient_reports(
            small_base(), small_environment(), ("rloo", "dr_grpo", "sft", "recast", "sft_hard_negative"), 8, 64, 400, seed=0
        )
    }
    assert reports["rloo"].cosine > 0.99
    assert reports["dr_grpo"].cosine == pytest.approx(reports["rloo"].cosine, abs=1e-5)  # a scalar apart
    assert reports["dr_grpo"].variance == pytest.approx(reports["rloo"].variance, rel=1e-4)
    assert reports["sft"].cosine < 0.95
    assert reports["recast"].cosine < reports["sft"].cosine
    assert reports["recast"].learnable > reports["rloo"].learnable
    assert reports["recast"].update_width <= 2 < reports["rloo"].update_width == 8
    assert all(report.variance and report.cosine for report in reports.values())
    assert reports["rloo"].snr == pytest.approx(1 / reports["rloo"].variance)


def test_a_sample_without_a_hit_tells_nothing() -> None:
    (report,) = gradient_reports(small_base(), small_environment(), ("boundary_only",), 2, 1, 2, seed=0)
    assert report.learnable == 0
    assert report.variance is None
    assert report.cosine is None
    assert report.snr is None


def test_reports_refuse_an_odd_number_of_groups() -> None:
    with pytest.raises(ValueError, match="groups_per_prompt: 3"):
        gradient_reports(small_base(), small_environment(), ("grpo",), 8, 4, 3, seed=0)


@pytest.mark.property
def test_theory_agrees_with_simulated_hits() -> None:
    rng = np.random.default_rng(0)
    a, b, G, groups = 1.235, 227.5, 32, 400_000
    hits = rng.binomial(G, rng.beta(a, b, groups))
    shares = theory.beta_regime(a, b, G)
    for k, share in enumerate(shares[:2]):
        assert abs((hits == k).mean() - share) < 5 * (share * (1 - share) / groups) ** 0.5
    np.testing.assert_allclose(shares[:3], (0.85, 0.13, 0.02), atol=0.006)  # the arithmetic of PAPER.md
    assert theory.learnable_fraction_beta(a, b, G) == pytest.approx(1 - shares[0] - shares[3])
    p = rng.beta(a, b, 100_000)
    assert theory.learnable_fraction(p, G).mean() == pytest.approx(1 - shares[0], abs=0.005)
    np.testing.assert_allclose(theory.regime_given_hit_rates(p, G), shares, atol=0.005)
    np.testing.assert_allclose(theory.fit_beta(p), (a, b), rtol=0.05)
    with pytest.raises(ValueError, match="fit no Beta"):
        theory.fit_beta([0.5, 0.5])
