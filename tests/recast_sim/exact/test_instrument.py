"""Reports of the exact instrument against each other, against Monte Carlo, and against theory."""

import dataclasses
import json
from dataclasses import asdict

import numpy as np
import pytest
from worlds import small_base, small_environment

from recast_sim.closed_forms import iid_groups as theory
from recast_sim.exact import class_counts
from recast_sim.exact.instrument import ExactError, GradientReport, exact_report, gradient_reports, monte_carlo_report
from recast_sim.signal import (
    REGIMES,
    GroupState,
    SignalConfig,
    anchor_alone,
    inject_target,
    keep_nonzero,
    register,
    unregister,
)
from recast_sim.world.sampling import Sampler

G, PROMPTS = 8, 64


def report(name: str, kind: str = "linear", targets: int = 1, config: SignalConfig | None = None) -> GradientReport:
    return exact_report(small_base(kind), small_environment(targets), name, G, PROMPTS, config)


@pytest.mark.property
def test_reports_know_unbiased_from_biased() -> None:
    rloo, dr_grpo, grpo, sft, recast, pair = (
        report(name) for name in ("rloo", "dr_grpo", "grpo", "sft", "recast", "sft_hard_negative")
    )
    for unbiased in (rloo, dr_grpo):
        assert unbiased.cosine == pytest.approx(1, abs=1e-9)
        assert unbiased.variance == pytest.approx(rloo.variance)
    assert rloo.scale == pytest.approx(1 / G)  # the sum over rows is G times the policy gradient
    assert dr_grpo.scale == pytest.approx(1 / (G - 1))
    assert grpo.cosine < rloo.cosine
    assert recast.cosine < sft.cosine < 0.95
    assert pair.cosine == pytest.approx(recast.cosine, abs=1e-6)  # they part on groups that are all hits
    assert sft.within == pytest.approx(0, abs=1e-9)  # one target, no rollout: only prompts differ
    assert sft.sine == pytest.approx((1 - sft.cosine**2) ** 0.5) == pytest.approx(sft.residual)
    assert recast.learnable > rloo.learnable
    assert recast.update_width <= 2 < rloo.update_width == pytest.approx(G)
    assert rloo.snr == pytest.approx(1 / rloo.variance)
    assert rloo.snr_per_rollout == pytest.approx(rloo.snr / G)
    assert rloo.variance_per_rollout == pytest.approx(rloo.variance * G)
    assert sft.snr_per_rollout is None is sft.variance_per_rollout
    assert (rloo.method, rloo.cosine_se, rloo.variance_se) == ("exact", 0.0, 0.0)


@pytest.mark.property
@pytest.mark.parametrize(("kind", "targets"), [("linear", 1), ("mlp", 1), ("low_rank", 2)])
@pytest.mark.parametrize("name", ["grpo", "repair_only", "recast", "sft", "add_gt"])
def test_parts_add_up_to_the_whole(name: str, kind: str, targets: int) -> None:
    whole = report(name, kind, targets)
    regimes, levels = whole.by_regime, whole.by_level
    assert tuple(regimes) == REGIMES
    assert list(levels) == ["level 1", "level 2", "level 3"] + (["encoder"] if kind != "linear" else [])
    for parts, fields in ((regimes, ("groups", "projection", "square")), (levels, ("square", "exact", "projection"))):
        for field in fields:
            assert sum(getattr(part, field) for part in parts.values()) == pytest.approx(1, abs=1e-9)
    assert regimes["all_zero"].groups == pytest.approx(whole.regime_before.all_zero)
    assert (regimes["all_zero"].cosine is None) == (name == "grpo")
    if name in ("repair_only", "recast"):
        assert whole.regime_after.all_zero == 0
    assert whole.within is not None
    assert -1e-9 < whole.within < 1


@pytest.mark.property
@pytest.mark.parametrize(("kind", "targets"), [("linear", 1), ("mlp", 2)])
@pytest.mark.parametrize("name", ["grpo", "repair_only", "boundary_only", "recast", "add_gt", "max_rl"])
def test_exact_and_sampled_reports_agree(name: str, kind: str, targets: int) -> None:
    counted = report(name, kind, targets)
    world, policy = small_environment(targets), small_base(kind)
    sampled = monte_carlo_report(policy, world, name, G, PROMPTS, 400, seed=1)
    assert sampled.method == "monte_carlo"
    assert 0 < sampled.cosine_se < 0.05
    assert abs(sampled.cosine - counted.cosine) < 5 * sampled.cosine_se + 1e-6
    assert 0 < sampled.variance_se < 0.1 * counted.variance
    assert abs(sampled.variance - counted.variance) < 5 * sampled.variance_se
    groups = PROMPTS * 400
    assert (
        abs(sampled.learnable - counted.learnable) <= 5 * (counted.learnable * (1 - counted.learnable) / groups) ** 0.5 + 1e-9
    )
    assert sampled.within == pytest.approx(counted.within, abs=0.05)
    assert sampled.update_width == pytest.approx(counted.update_width, rel=0.1)
    assert sampled.regime_after.single_hit == pytest.approx(counted.regime_after.single_hit, abs=0.02)
    for part, expected in zip(sampled.by_regime.values(), counted.by_regime.values(), strict=True):
        assert part.projection == pytest.approx(expected.projection, abs=0.1)
        assert part.square == pytest.approx(expected.square, abs=0.05)
    for part, expected in zip(sampled.by_level.values(), counted.by_level.values(), strict=True):
        assert part.square == pytest.approx(expected.square, abs=0.1)


@pytest.mark.property
def test_an_estimate_against_the_gradient_is_said_to_be() -> None:
    """Anchors that are pushed down: all parts point against g, and no positive rescaling helps."""

    @register("pushed_down", source="test", anchors="always")
    def pushed_down(state: GroupState) -> GroupState:
        placed = anchor_alone(inject_target(state))
        return keep_nonzero(dataclasses.replace(placed, advantages_PG=-placed.advantages_PG))

    try:
        down, up = report("pushed_down"), report("sft")
    finally:
        unregister("pushed_down")
    assert down.cosine == pytest.approx(-up.cosine)
    assert down.scale == pytest.approx(-up.scale)
    assert (down.residual, down.sine) == (1.0, pytest.approx(up.sine))
    assert sum(part.projection for part in down.by_regime.values()) == pytest.approx(-1)
    assert down.by_regime["all_zero"].projection == pytest.approx(-up.by_regime["all_zero"].projection)


def test_reports_fall_back_to_sampling_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = (small_base(), small_environment(), ("grpo", "recast"), G, 16, 16, 0)
    assert [r.method for r in gradient_reports(*arguments)] == ["exact", "exact"]
    annealed = SignalConfig(anchor_weighting="annealed")
    assert [r.method for r in gradient_reports(*arguments, annealed)] == ["exact", "monte_carlo"]
    monkeypatch.setattr(class_counts, "COUNT_LIMIT", 1000)  # enough for 9 counts of two classes, not for 165 of four
    assert [r.method for r in gradient_reports(*arguments)] == ["exact", "monte_carlo"]
    with pytest.raises(ExactError, match="exceed the limit"):
        exact_report(small_base(), small_environment(), "recast", G, 16)
    monkeypatch.setattr(class_counts, "VECTOR_LIMIT", 164)
    with pytest.raises(ExactError, match="exceed the limit"):
        exact_report(small_base(), small_environment(), "recast", G, 16)
    with pytest.raises(ValueError, match="groups_per_prompt: 12"):
        gradient_reports(*arguments[:5], 12, 0, annealed)


@pytest.mark.parametrize(("sampler", "method"), [("beam", "exact"), ("stochastic_beam", "monte_carlo")])
def test_beams_are_sampled(sampler: Sampler, method: str) -> None:
    rows = gradient_reports(small_base(), small_environment(2), ("grpo", "recast", "sft"), G, PROMPTS, 32, 0, sampler=sampler)
    for row in rows:
        assert (row.method, row.sampler) == (method, sampler)
        assert row.cosine is not None
        assert -1 <= row.cosine <= 1
        assert row.variance is not None
        assert row.variance > 0
        assert (row.cosine_se == 0) == (method == "exact" or row.constructor == "sft")
        if method == "exact":
            assert row.within == pytest.approx(0, abs=1e-9)  # a prompt's beam is always the same


def test_an_estimate_without_signal_has_no_direction() -> None:
    world, policy = small_environment(), small_base()
    beam = monte_carlo_report(policy, world, "boundary_only", 2, 1, 8, 0, sampler="beam")
    assert beam.learnable == 0
    assert beam.variance is None is beam.cosine
    assert beam.snr is None is beam.scale
    assert beam.by_regime["all_zero"].projection is None
    sampled = monte_carlo_report(policy, world, "boundary_only", 2, 1, 8, 0)
    assert sampled.cosine is None is sampled.cosine_se
    assert report("boundary_only").cosine is not None


def test_a_report_is_json() -> None:
    row = json.loads(json.dumps(asdict(report("recast", "mlp")), allow_nan=False))
    assert row["by_regime"]["all_zero"]["groups"] > 0
    assert row["by_level"]["encoder"]["cosine"] is not None


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
