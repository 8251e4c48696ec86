"""Closed forms against enumeration over the hit count, against simulation, and the theory command."""

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from commands import Done, called
from scipy.stats import binom

from recast_sim.cli import COMMANDS, main
from recast_sim.closed_forms import gradient_weights as weights
from recast_sim.closed_forms import iid_groups as theory
from recast_sim.commandline import run_command
from recast_sim.runs import read_run
from recast_sim.signal import SignalConfig, construct, get_constructor, list_constructors

TINY = 1e-13  # eps of the two denominators: the closed forms have none
RATES = [0.0054, 0.1, 0.5, 0.97]
PAPER = (1.235, 227.5)
REGISTERED = {constructor.name for constructor in list_constructors()}
SIZES = {"two_grpo": (2,), "pods": (9, 32)}  # sorted rows are no sample of the first two, so two_grpo is seen at G = 2
CASES = [
    (name, G)
    for name in weights.weight_names()
    if name in REGISTERED
    for G in SIZES.get(name, (2, 3, 8, 32))
    if weights.WEIGHTS[name].least <= G
]


def enumerated_weight(name: str, p: float, G: int, config: SignalConfig) -> float:
    """E[advantages of hits and anchors] / p - E[advantages of misses] / (1 - p), over the rows where the weight is per rollout.

    Groups with K hits are the rows [1] * K + [0] * (G - K), all misses alike in structural score, one target a prompt.
    Where an anchor overwrites the last row whatever it was, the hits are those of the other G - 1 rows.
    """
    overwritten = int(name in ("add_gt", "luffy"))
    K = torch.arange(G + 1 - overwritten)
    rewards = (torch.arange(G) < K[:, None]).double()
    given: dict[str, Any] = {
        "structural_PG": torch.where(rewards > 0, 1.0, 0.0).double(),
        "has_anchor_P": torch.ones(len(K), dtype=torch.bool),
        "anchor_logprob_P": torch.full((len(K),), np.log(p), dtype=torch.float64),
    }
    signal = construct(name, rewards, config=config, **{key: given[key] for key in get_constructor(name).inputs})
    advantages = torch.zeros(signal.advantages_PG.numel(), dtype=torch.float64)
    advantages[signal.plan.rows_N] = signal.plan.weights_N * signal.plan.advantages_N
    advantages = advantages.view_as(signal.advantages_PG)
    rows = advantages.shape[1]
    positive = torch.zeros(advantages.shape, dtype=torch.bool)
    positive[:, :G] = rewards > 0
    positive |= torch.arange(rows) == signal.anchor_slot_P[:, None]
    chance = torch.from_numpy(binom.pmf(K.numpy(), G - overwritten, p))
    on_hits, on_misses = (float(chance @ (advantages * mask).sum(1)) for mask in (positive, ~positive))
    if weights.WEIGHTS[name].per == "group":
        return on_hits / p
    return (on_hits / p - on_misses / (1 - p)) / (config.pods_width if name == "pods" else rows)


@pytest.mark.property
@pytest.mark.parametrize(("name", "G"), CASES)
def test_weights_by_enumeration_over_the_hit_count(name: str, G: int) -> None:
    config = SignalConfig(std_eps=TINY, mean_eps=TINY)
    expected = [enumerated_weight(name, p, G, config) for p in RATES]
    np.testing.assert_allclose(weights.weight(name, RATES, G), expected, rtol=1e-6)


@pytest.mark.property
@pytest.mark.parametrize(
    ("name", "parameters"),
    [(name, {"std_ddof": 0}) for name in ("grpo", "dapo", "ngrpo", "add_gt", "visurf", "repair_only", "grpo_anchor")]
    + [(name, {"w_plus": 0.7}) for name in ("recast", "boundary_only", "hybrid", "near_miss", "sft", "sft_hard_negative")]
    + [(name, {"w_anchor": 0.8}) for name in ("hybrid", "grpo_anchor", "rloo_anchor")]
    + [("tempered_anchor", {"anchor_power": power}) for power in (0.0, 0.5)]
    + [("pass_at_k", {"pass_k": k}) for k in (1, 2, 7)]
    + [("pods", {"pods_width": width, "std_ddof": ddof}) for width, ddof in ((2, 0), (5, 1), (7, 0))]
    + [("w_reinforce", {"positive_weight": 0.4}), ("luffy", {"luffy_gamma": 0.4})],
)
def test_weights_take_the_fields_of_the_signal_config(name: str, parameters: dict[str, float]) -> None:
    config = SignalConfig(std_eps=TINY, mean_eps=TINY, **parameters)  # type: ignore[arg-type]
    expected = [enumerated_weight(name, p, 8, config) for p in RATES]
    np.testing.assert_allclose(weights.weight(name, RATES, 8, **parameters), expected, rtol=1e-6)


@pytest.mark.property
def test_dapos_weight_given_that_the_group_is_kept() -> None:
    """The redraw replaces the groups that give nothing, so what is left is grpo over the kept groups alone."""
    G, p = 8, 0.2
    rewards = (torch.arange(G) < torch.arange(G + 1)[:, None]).double()
    signal = construct("dapo", rewards, config=SignalConfig(std_eps=TINY))
    chance = torch.from_numpy(binom.pmf(np.arange(G + 1), G, p)) * ~signal.redraw_P
    on_hits, on_misses = ((chance @ (signal.advantages_PG * r).sum(1)) / chance.sum() for r in (rewards, 1 - rewards))
    assert weights.weight("dapo_kept", p, G) == pytest.approx(float(on_hits / p - on_misses / (1 - p)) / G, rel=1e-6)


@pytest.mark.property
def test_weights_known_in_one_line() -> None:
    p = np.array([0.0, 0.0054, 0.3, 1.0])
    np.testing.assert_allclose(weights.weight("max_rl", p[1:], 32), (1 - (1 - p[1:]) ** 31) / p[1:])
    np.testing.assert_allclose(weights.weight("max_rl", 0.0, 32), 31)  # the limit, not a division by 0
    np.testing.assert_allclose(weights.weight("grpo", p, 2, std_ddof=0), 1)
    np.testing.assert_allclose(weights.weight("grpo", 0.0, 32, std_ddof=0), np.sqrt(31))
    np.testing.assert_allclose(weights.weight("rloo", p, 32), weights.weight("dr_grpo", p, 32) * 32 / 31)
    np.testing.assert_allclose(weights.weight("tempered_anchor", p[1:], 32), 1)
    np.testing.assert_allclose(weights.weight("pass_at_k", p, 8, pass_k=1), weights.weight("grpo", p, 8, std_ddof=0))
    np.testing.assert_allclose(weights.weight("two_grpo", p, 32, std_ddof=0), 1)
    added = weights.weight("repair_only", 0.0054, 32, std_ddof=0) - weights.weight("grpo", 0.0054, 32, std_ddof=0)
    assert added == pytest.approx(np.sqrt(31) / 32 * (1 - 0.0054) ** 32 / (0.0054 * (1 - 0.0054)))
    assert added == pytest.approx(27, abs=0.5)  # PAPER.md
    for name in weights.weight_names():
        assert np.shape(weights.weight(name, 0.1, 32)) == ()
        assert weights.weight(name, np.full((2, 3), 0.1), 32).shape == (2, 3)


@pytest.mark.property
@pytest.mark.parametrize("k", [1, 2, 5])
def test_pass_at_k_before_its_division_by_the_std_follows_the_gradient_of_pass_at_k(k: int) -> None:
    """Weight (1 - k / G) (1 - p)^(k - 1), which is (1 - k / G) / k times the k (1 - p)^(k - 1) of grad (1 - (1 - p)^k)."""
    G, J, p = 8, np.arange(8), np.array(RATES)
    fail = [math.comb(G - K, k) / math.comb(G, k) for K in range(G + 1)]
    fail_given_miss = [math.comb(G - K - 1, k - 1) / math.comb(G - 1, k - 1) for K in J]
    weight = weights.weight_from_advantages(fail[1:], np.subtract(fail[:-1], fail_given_miss), p)
    np.testing.assert_allclose(weight, (1 - k / G) * (1 - p) ** (k - 1))


@pytest.mark.property
@pytest.mark.parametrize("G", [2, 8, 32])
def test_learnable_fractions_by_simulation(G: int) -> None:
    rng, groups = np.random.default_rng(G), 200_000
    beta_rates = rng.beta(0.5, 2.0, groups)
    cases = [
        (np.full(groups, 0.0054), float(theory.learnable_fraction(0.0054, G))),
        (beta_rates, theory.learnable_fraction_beta(0.5, 2.0, G)),
        (np.resize([0.01, 0.5, 0.99], groups), theory.mean_learnable_fraction([0.01, 0.5, 0.99], G)),
    ]
    for rates, expected in cases:
        hits = rng.binomial(G, rates)
        share = ((hits > 0) & (hits < G)).mean()
        assert abs(share - expected) < 5 * (expected * (1 - expected) / groups) ** 0.5


@pytest.mark.property
def test_learnable_fractions_keep_their_digits_at_the_edges() -> None:
    rare = theory.learnable_fraction([0.0, 1e-12, 1.0], 32)
    np.testing.assert_allclose(rare, [0, 32e-12, 0], rtol=1e-9)
    assert theory.learnable_fraction(0.3, 1) == pytest.approx(0, abs=1e-15)
    assert theory.learnable_fraction_beta(1e6, 1e6, 2) == pytest.approx(0.5, rel=1e-5)


@pytest.mark.property
def test_theory_agrees_with_simulated_hits() -> None:
    rng = np.random.default_rng(0)
    G, groups = 32, 400_000
    hits = rng.binomial(G, rng.beta(*PAPER, groups))
    shares = theory.beta_regime(*PAPER, G)
    for k, share in enumerate(shares[:2]):
        assert abs((hits == k).mean() - share) < 5 * (share * (1 - share) / groups) ** 0.5
    np.testing.assert_allclose(shares[:3], (0.85, 0.13, 0.02), atol=0.006)  # the arithmetic of PAPER.md
    assert theory.learnable_fraction_beta(*PAPER, G) == pytest.approx(1 - shares[0] - shares[3])
    p = rng.beta(*PAPER, 100_000)
    assert theory.mean_learnable_fraction(p, G) == pytest.approx(1 - shares[0], abs=0.005)
    np.testing.assert_allclose(theory.regime_given_hit_rates(p, G), shares, atol=0.005)
    np.testing.assert_allclose(theory.fit_beta(p), PAPER, rtol=0.05)
    with pytest.raises(ValueError, match="fit no Beta"):
        theory.fit_beta([0.5, 0.5])


@pytest.mark.property
@pytest.mark.parametrize(("G", "all_zero"), [(32, 0.85), (128, 0.576), (512, 0.233)])
def test_wider_groups_are_a_slow_cure(G: int, all_zero: float) -> None:
    assert theory.beta_regime(*PAPER, G)[0] == pytest.approx(all_zero, abs=0.001)


@pytest.mark.property
@pytest.mark.parametrize("G", [2, 8])
def test_dapos_cost_by_redrawing(G: int) -> None:
    """Groups of new prompts are drawn until one is learnable; the rollouts of all of them are counted."""
    rng, drawn = np.random.default_rng(G), 400_000
    hits = rng.binomial(G, rng.beta(1.0, 9.0, drawn))
    kept = int(((hits > 0) & (hits < G)).sum())
    expected = float(theory.rollouts_per_kept_group(theory.learnable_fraction_beta(1.0, 9.0, G), G))
    assert G * drawn / kept == pytest.approx(expected, rel=5 / kept**0.5)
    same_prompt = theory.rollouts_per_kept_group(theory.learnable_fraction([0.1, 0.5], G), G)
    np.testing.assert_allclose(same_prompt, G / (1 - np.power([0.9, 0.5], G) - np.power([0.1, 0.5], G)))


@pytest.mark.property
def test_the_best_group_size_for_learnable_groups() -> None:
    """Without a cost of the prompt two rollouts (and three) are best, whatever the hit rates; with one it is an inner G."""
    for p in (1e-4, 0.0054, 0.3, 0.97):
        per_rollout = [float(theory.learnable_fraction(p, G)) / G for G in range(2, 40)]
        assert per_rollout[0] == pytest.approx(per_rollout[1], rel=1e-9)
        assert np.all(np.diff(per_rollout[1:]) <= 1e-15)
        assert theory.best_group_size(lambda G, p=p: float(theory.learnable_fraction(p, G))) == 2
    assert theory.best_group_size(lambda G: theory.learnable_fraction_beta(*PAPER, G)) == 2
    costs = [theory.best_group_size(lambda G: float(theory.learnable_fraction(0.3, G)), cost) for cost in (2, 8, 32)]
    assert 2 < costs[0] < costs[1] < costs[2]
    grid = np.arange(2.0, 200)
    assert costs[1] == grid[np.argmax((1 - 0.7**grid - 0.3**grid) / (grid + 8))]


# RLOO's variance


def rloo_gradients(logits: np.ndarray, target: int, G: int, groups: int, rng: np.random.Generator) -> np.ndarray:
    """RLOO's gradient estimate of each of many groups from a softmax policy: (groups, leaves)."""
    pi = np.exp(logits) / np.exp(logits).sum()
    leaves = rng.choice(len(pi), size=(groups, G), p=pi)
    rewards = (leaves == target).astype(float)
    advantages = (rewards - rewards.mean(1, keepdims=True)) * G / (G - 1)
    return np.einsum("pg,pgy->py", advantages, np.eye(len(pi))[leaves] - pi) / G


def pair_variances(logits: np.ndarray, target: int) -> tuple[float, float]:
    """Traces z1 and z2 of the policy, over all leaves and all pairs of leaves."""
    pi = np.exp(logits) / np.exp(logits).sum()
    score, reward = np.eye(len(pi)) - pi, np.eye(len(pi))[target]
    one = (reward - pi[target])[:, None] * score
    two = (reward[:, None] - reward)[..., None] * (score[:, None] - score) / 2
    square, mean = pi @ (one**2).sum(1), pi @ one
    pair_square, pair_mean = pi @ (two**2).sum(2) @ pi, np.einsum("a,b,aby->y", pi, pi, two)
    return float(square - mean @ mean) / 4, float(pair_square - pair_mean @ pair_mean)


LOGITS = np.array([[0.4, -0.8, 1.0, 0.0, -0.3, 0.7], [1.5, 0.2, -1.0, 0.3, 0.0, 0.1], [0.0, 0.0, 0.0, -2.0, 1.0, 1.0]])


@pytest.mark.property
@pytest.mark.parametrize("G", [2, 3, 8])
def test_rloos_variance_by_simulation(G: int) -> None:
    rng, groups = np.random.default_rng(G), 200_000
    gradients = rloo_gradients(LOGITS[0], 1, G, groups, rng)
    spread = ((gradients - gradients.mean(0)) ** 2).sum(1)
    expected = theory.rloo_variance(*pair_variances(LOGITS[0], 1), G)
    assert abs(spread.mean() - expected) < 5 * spread.std() / groups**0.5
    assert expected > 20 * spread.std() / groups**0.5


@pytest.mark.property
def test_rloos_best_width_has_the_least_variance_at_a_fixed_budget() -> None:
    """Three prompts alike in size: the mean over N / G random prompts varies least at the whole neighbours of G*."""
    pairs = np.array([pair_variances(logits, 1) for logits in LOGITS])
    pi = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
    gradients = pi[:, 1:2] * (np.eye(6)[1] - pi)
    between, (z1, z2) = float(((gradients - gradients.mean(0)) ** 2).sum(1).mean()), pairs.mean(0)
    best = float(theory.best_rloo_width(z1, z2, between))
    sizes = np.arange(2, 60)
    variance = sizes * (between + np.array([float(theory.rloo_variance(z1, z2, int(G))) for G in sizes]))
    assert abs(sizes[variance.argmin()] - best) <= 1
    assert 2 < best < 59
    rng, rollouts, studies = np.random.default_rng(0), 24, 20_000
    measured = {}
    for G in (2, 24):  # the total variance of a study of 24 rollouts, prompts drawn anew
        prompts = rng.integers(0, 3, (studies, rollouts // G))
        drawn = np.stack([rloo_gradients(logits, 1, G, prompts.size, rng) for logits in LOGITS])
        means = drawn[prompts.ravel(), np.arange(prompts.size)].reshape(*prompts.shape, -1).mean(1)
        measured[G] = float(((means - means.mean(0)) ** 2).sum(1).mean())
    for G, value in measured.items():
        assert value == pytest.approx(float(variance[G - 2]) / rollouts, rel=0.05)


# Errors


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: theory.regime_given_hit_rates([0.5, 1.5], 8), "p: 1.5"),
        (lambda: theory.regime_given_hit_rates([], 8), "p: no hit rates"),
        (lambda: theory.learnable_fraction(-0.1, 8), "p: -0.1"),
        (lambda: theory.learnable_fraction(np.nan, 8), "p: nan"),
        (lambda: theory.learnable_fraction(0.1, 0), "group_size: 0"),
        (lambda: theory.learnable_fraction(0.1, 2.5), "group_size: 2.5"),  # type: ignore[arg-type]
        (lambda: theory.beta_regime(-1.0, 2.0, 8), "a: -1.0"),
        (lambda: theory.learnable_fraction_beta(1.0, np.inf, 8), "b: inf"),
        (lambda: weights.weight("magic", 0.1, 8), "name: 'magic' has no closed form here; choose from grpo"),
        (lambda: weights.weight("grpo", 0.1, 1), "group_size: 1"),
        (lambda: weights.weight("grpo", 0.1, 8, std_ddof=2), "std_ddof: 2"),
        (lambda: weights.weight("sft", [0.1, 0.0], 8), "p: 0 must be above 0"),
        (lambda: weights.weight("dapo_kept", [0.1, 1.0], 8), "p: 1 never yields"),
        (lambda: weights.weight("pass_at_k", 0.1, 2, pass_k=3), "pass_k: 3"),
        (lambda: theory.rollouts_per_kept_group(0.0, 8), "learnable: 0"),
        (lambda: theory.best_group_size(lambda G: 0.1, prompt_cost=-1), "prompt_cost: -1"),
        (lambda: theory.rloo_variance(-1.0, 1.0, 8), "z1: -1"),
        (lambda: theory.rloo_variance(1.0, 1.0, 8), "z2: 1"),
        (lambda: theory.best_rloo_width(0.1, 1.0, 0.0), "between: 0"),
    ],
)
def test_errors_name_argument_and_value(call: Callable[[], object], words: str) -> None:
    with pytest.raises(ValueError, match="^" + words.replace("(", r"\(")):
        call()


# The modules and the command


def call(*arguments: object) -> Done:
    return called(main, "theory", *arguments)


def test_theory_needs_no_torch() -> None:
    rooms = ", ".join(f"recast_sim.closed_forms.{name}" for name in ("iid_groups", "gradient_weights", "hit_counts"))
    code = f"import {rooms}, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_command_prints_saves_and_draws(tmp_path: Path) -> None:
    out = tmp_path / "theory"
    done = call("--hit-rate", 0.0054, "--group", 32, "--json", "--out", out)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert set(result) >= {"regimes", "learnable", "weights", "rollouts_per_kept_group", "best_group_size", "run", "figure"}
    assert list(result["weights"]) == list(weights.weight_names())
    assert result["weights"]["recast"]["per"] == "group"
    assert result["regimes"]["beta"]["all_zero"] == pytest.approx(0.85, abs=0.001)
    assert [row["group_size"] for row in result["learnable"]] == [8, 16, 32, 64, 128, 512]
    assert result["best_group_size"] == {"homogeneous": 2, "beta": 2}
    assert Path(result["figure"]).stat().st_size > 20_000
    run = read_run(out)
    assert (run.manifest["kind"], run.status) == ("theory", "complete")
    curves = pl.read_parquet(out / "curves.parquet")
    assert curves.columns == ["curve", "constructor", "group_size", "p", "value"]
    assert curves["value"].is_finite().all()


def test_the_command_shows_tables(tmp_path: Path) -> None:
    done = call("--group", 2, "--beta", 0.5, 2, "--constructors", "grpo", "recast", "--out", tmp_path / "theory")
    assert done.returncode == 0, done.stderr
    assert "| constructor |" in done.stdout
    assert "E[sqrt(K (G - K))]" in done.stdout
    assert "Beta(0.5, 2), mean 0.2" in done.stdout
    assert "all prompts p = 0.2" in done.stdout
    assert "rloo" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--hit-rate", "0"], "--hit-rate: 0.0 must be above 0"),
        (["--hit-rate", "nan"], "--hit-rate: nan must be finite"),
        (["--group", "1"], "--group: 1 must be at least 2"),
        (["--beta", "-1", "2"], "beta: a: -1.0"),
        (["--constructors", "magic"], "constructors: 'magic'"),
        (["--prompt-cost", "-1"], "--prompt-cost: -1.0 must be at least 0"),
        (["--beta", "1e-300", "1"], "--beta: 1e-300 must be 0 or at least 1e-12 in size"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    argv = ["theory", *arguments, "--out", str(tmp_path / "run")]
    assert run_command("recast-sim", "", COMMANDS, argv) == 2
    said = capsys.readouterr()
    assert words in said.err
    assert len(said.err.splitlines()) == 1
    assert said.out == ""
    assert not (tmp_path / "run").exists()
