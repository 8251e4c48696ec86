"""Thermometers: one best fit, found whatever the policy's own temperatures; and what cooling can and cannot buy."""

import copy
import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from worlds import small_base, small_environment

from recast_sim.temperatures import temperature_at
from recast_sim.world.environment import WorldPrompts
from recast_sim.world.evaluation import entropies, evaluate, leaf_logprobs, ranking_metrics
from recast_sim.world.learning import Start, gain_split, learning_figures
from recast_sim.world.policy import TreePolicy
from recast_sim.world.pretraining import target_logprobs
from recast_sim.world.thermometer import FAMILIES, Family, Thermometer, cooled, fit, leaf_steps

NO_TEMPERATURE_CAN_BUY = ("pass_at_1_greedy", "pass_at_k_beam", "recall_at_k", "ndcg_at_k")
WORLD, BASE = small_environment(), small_base()


def mean_log_likelihood(policy: TreePolicy, prompts: WorldPrompts, found: Thermometer) -> float:
    logprob_NY = found.leaf_logprobs(copy.deepcopy(policy).double(), prompts.x_ND.double())
    return float(logprob_NY.detach().gather(1, prompts.target_NT).mean())


def random_policy(seed: int, scale: float = 1.0) -> TreePolicy:
    policy, generator = copy.deepcopy(BASE), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    return policy


def test_steps_add_up_to_leaves() -> None:
    steps_NYL = leaf_steps(BASE, WORLD.heldout.x_ND)
    torch.testing.assert_close(steps_NYL.sum(2), BASE.leaf_logprobs(WORLD.heldout.x_ND))
    one_YL = BASE.path_logprobs(WORLD.heldout.x_ND[:1], torch.arange(BASE.leaves)[None])[0]
    torch.testing.assert_close(steps_NYL[0], one_YL)


@pytest.mark.parametrize("targets", [1, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_fit_is_the_best_of_its_family(family: Family, targets: int) -> None:
    prompts = small_environment(targets).validation
    for seed, scale in ((0, 0.0), (1, 0.5), (2, 2.0)):
        policy = random_policy(seed, scale)
        found = fit(policy, prompts, family)
        assert found.log_likelihood == pytest.approx(mean_log_likelihood(policy, prompts, found), abs=1e-9)
        assert found == fit(policy, prompts, family)
        for place in range(len(found.inverse)):
            for step in (-0.02, 0.02):
                moved = tuple(b + step * (i == place) for i, b in enumerate(found.inverse))
                other = Thermometer(family, moved, 0.0)
                assert mean_log_likelihood(policy, prompts, other) < found.log_likelihood


def test_the_joint_fit_agrees_with_a_search_along_one_number() -> None:
    def loss(b: float) -> float:
        return -mean_log_likelihood(BASE, WORLD.validation, Thermometer("joint", (b,), 0.0))

    searched = minimize_scalar(loss, bounds=(0.01, 10), method="bounded", options={"xatol": 1e-8})
    assert fit(BASE, WORLD.validation, "joint").inverse[0] == pytest.approx(searched.x, rel=1e-4)


def test_more_numbers_never_fit_worse() -> None:
    for seed in range(4):
        policy = random_policy(seed, 0.7)
        joint, levels, weights = (fit(policy, WORLD.validation, family).log_likelihood for family in FAMILIES)
        plain = float(target_logprobs(policy, WORLD.validation).detach().double().mean())
        assert plain <= joint + 1e-6
        assert joint <= weights + 1e-6
        assert plain <= levels + 1e-6


def test_a_policy_at_other_level_temperatures_is_fitted_back() -> None:
    inverse = (0.5, 1.7, 3.0)[: BASE.levels]
    plain, changed = (fit(policy, WORLD.validation, "levels") for policy in (BASE, cooled(BASE, inverse)))
    back = np.multiply(changed.inverse, inverse)
    assert np.allclose(back, plain.inverse, rtol=1e-4)
    assert changed.log_likelihood == pytest.approx(plain.log_likelihood, abs=1e-7)


def test_targets_drawn_at_a_temperature_give_that_temperature() -> None:
    x_ND = WORLD.train.x_ND.repeat(20, 1)
    drawn = torch.multinomial((leaf_logprobs(BASE, x_ND) / 0.4).softmax(1), 1, generator=torch.Generator().manual_seed(0))
    found = fit(BASE, WorldPrompts(x_ND, drawn, x_ND, drawn), "joint")
    assert 1 / found.inverse[0] == pytest.approx(0.4, rel=0.05)


def test_a_policy_without_preferences_has_no_temperature_to_fit() -> None:
    flat = random_policy(0, 0.0)
    with torch.no_grad():
        for parameter in flat.parameters():
            parameter.zero_()
    assert fit(flat, WORLD.validation, "levels").inverse == (1.0,) * flat.levels


def test_a_policy_that_is_always_right_is_a_point_and_one_always_wrong_is_flat() -> None:
    x_ND, policy = WORLD.validation.x_ND, random_policy(3, 1.0)
    logprob_NY = leaf_logprobs(policy, x_ND)
    for chosen_N, end in ((logprob_NY.argmax(1), 1e3), (logprob_NY.argmin(1), 1e-3)):
        found = fit(policy, WorldPrompts(x_ND, chosen_N[:, None], x_ND, chosen_N[:, None]), "joint")
        assert 1e-3 <= found.inverse[0] <= 1e3
        assert (found.inverse[0] > 20) if end > 1 else (found.inverse[0] == pytest.approx(end))


@pytest.mark.parametrize("temperature", [0.05, 0.3, 1.0, 4.0])
def test_a_temperature_is_found_from_its_entropy(temperature: float) -> None:
    logprob_NY = leaf_logprobs(BASE, WORLD.heldout.x_ND)
    entropy = float(entropies((logprob_NY / temperature).log_softmax(1)).double().mean())
    assert temperature_at(entropy, logprob_NY) == pytest.approx(temperature, rel=1e-4)


def test_entropies_out_of_reach_give_the_ends() -> None:
    logprob_NY = leaf_logprobs(BASE, WORLD.heldout.x_ND)
    assert temperature_at(math.log(BASE.leaves) + 0.1, logprob_NY) == pytest.approx(1e3)
    assert temperature_at(-0.1, logprob_NY) == pytest.approx(1e-3)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
def test_cooling_the_joint_distribution_learns_nothing(temperature: float) -> None:
    start = Start(BASE, WORLD)
    cooled_NY = (start.logprob_NY / temperature).log_softmax(1)
    before, after = (ranking_metrics(logprob_NY, WORLD) for logprob_NY in (start.logprob_NY, cooled_NY))
    for name in NO_TEMPERATURE_CAN_BUY:
        assert after[name] == pytest.approx(before[name], abs=1e-7), name
    sharpened, learned = gain_split(cooled_NY, start)
    assert abs(learned) < 1e-6
    assert sharpened == pytest.approx(after["pass_at_1_sampled"] - before["pass_at_1_sampled"], abs=1e-6)
    assert (sharpened > 0) == (temperature < 1)


def test_cooling_level_by_level_keeps_the_greedy_path_and_says_what_it_moves() -> None:
    """The walk to the likeliest child of every level stays; the order of whole leaves does not, and the figures show it."""
    inverse = (3.0, 1.0, 0.4)[: BASE.levels]
    changed, start = cooled(BASE, inverse), Start(BASE, WORLD)
    assert torch.equal(greedy_path(BASE, WORLD.heldout.x_ND), greedy_path(changed, WORLD.heldout.x_ND))
    before, after = evaluate(BASE, WORLD), evaluate(changed, WORLD)
    assert before["recall_at_k"] != after["recall_at_k"]
    plain, moved = learning_figures(BASE, start), learning_figures(changed, start)
    assert moved["learned"] != pytest.approx(0, abs=1e-6)
    if not plain["level_weighted"] and not moved["level_weighted"]:
        assert moved["recall_at_k_levels"] == pytest.approx(plain["recall_at_k_levels"], abs=1e-4)


def greedy_path(policy: TreePolicy, x_ND: torch.Tensor) -> torch.Tensor:
    h, node_N1 = policy.encode(x_ND), torch.zeros(len(x_ND), 1, dtype=torch.int64)
    for level in range(policy.levels):
        slot_N1 = policy.child_logprobs(h, level, node_N1).argmax(2)
        node_N1 = policy.first_child(level)[node_N1] + slot_N1
    return node_N1[:, 0]


def test_the_figures_of_the_start_itself() -> None:
    start = Start(BASE, WORLD)
    figures, plain = learning_figures(BASE, start), evaluate(BASE, WORLD)
    assert figures["learned"] == pytest.approx(0, abs=1e-7)
    assert figures["sharpened"] == pytest.approx(0, abs=1e-7)
    assert figures["pass_at_1_sampled_at_start_entropy"] == pytest.approx(plain["pass_at_1_sampled"], abs=1e-7)
    assert figures["entropy_t0.1"] < figures["entropy_t0.25"] < figures["entropy_t0.5"] < plain["entropy"]
    assert all(math.isfinite(value) for value in figures.values())
