"""The temperature direction, Fisher products and objectives against enumeration, finite differences and closed forms."""

import copy
import math

import pytest
import torch
from torch import Tensor
from worlds import small_base, small_environment

from recast_sim.exact.cooling import Compass, fisher_products, fisher_times, temperature_direction
from recast_sim.exact.gram import part_of_parameter, pass_at_1_gradient
from recast_sim.exact.instrument import exact_report, monte_carlo_report
from recast_sim.exact.objectives import OBJECTIVES, SOFT_GREEDY_TEMPERATURE, objective_gradients
from recast_sim.world.policy import TreePolicy
from recast_sim.world.thermometer import cooled

KINDS = ("linear", "low_rank", "mlp")
WORLD = small_environment()
PROMPTS = 24


def policy_of(kind: str) -> TreePolicy:
    return copy.deepcopy(small_base(kind)).double()


def contexts() -> Tensor:
    return WORLD.train.x_ND[:PROMPTS].double()


def moved(policy: TreePolicy, direction_D: Tensor, step: float) -> TreePolicy:
    changed, start = copy.deepcopy(policy), 0
    with torch.no_grad():
        for parameter in changed.parameters():
            parameter += step * direction_D[start : start + parameter.numel()].view_as(parameter)
            start += parameter.numel()
    return changed


def change(policy: TreePolicy, direction_D: Tensor) -> Tensor:
    """Derivative of log pi of every leaf along a direction, by a central difference, (P, Y)."""
    ahead, behind = (moved(policy, direction_D, step).leaf_logprobs(contexts()) for step in (1e-5, -1e-5))
    return ((ahead - behind) / 2e-5).detach()


def directions(policy: TreePolicy, count: int) -> Tensor:
    size = sum(parameter.numel() for parameter in policy.parameters())
    return torch.randn(count, size, generator=torch.Generator().manual_seed(1)).double()


@pytest.mark.parametrize("kind", KINDS)
def test_the_temperature_direction_is_what_cooling_does(kind: str) -> None:
    policy = policy_of(kind)
    by_direction = moved(policy, temperature_direction(policy), 0.3)
    by_thermometer = cooled(policy, (1.3,) * policy.levels)
    torch.testing.assert_close(by_direction.leaf_logprobs(contexts()), by_thermometer.leaf_logprobs(contexts()))


@pytest.mark.parametrize("kind", KINDS)
def test_fisher_products_are_those_of_enumerated_changes(kind: str) -> None:
    policy = policy_of(kind)
    directions_KD = torch.cat([directions(policy, 3), temperature_direction(policy)[None]])
    changes_KPY = torch.stack([change(policy, direction_D) for direction_D in directions_KD])
    probability_PY = policy.leaf_logprobs(contexts()).exp().detach()
    expected_KK = torch.einsum("kpy,jpy,py->kj", changes_KPY, changes_KPY, probability_PY) / PROMPTS
    found_LKK = fisher_products(policy, contexts(), directions_KD)
    torch.testing.assert_close(found_LKK.sum(0), expected_KK, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(
        fisher_times(policy, contexts(), directions_KD) @ directions_KD.T, expected_KK, rtol=1e-6, atol=1e-7
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_pure_temperature_change_is_all_sharpening(kind: str) -> None:
    policy = policy_of(kind)
    compass = Compass(policy, contexts(), objective_gradients(policy, WORLD, PROMPTS))
    for sign in (3.0, -0.5):
        parts = compass.parts(_all_zero_groups(sign * compass.temperature_D))
        assert parts is not None
        assert parts.cooling == pytest.approx(math.copysign(1, sign), abs=1e-9)
        assert parts.cooling_by_regime["all_zero"] == pytest.approx(parts.cooling)
        assert sum(parts.cooling_by_level) == pytest.approx(parts.cooling)
        for gain in parts.gains.values():
            assert gain.learned == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_an_update_is_a_gradient_and_any_cooling(kind: str) -> None:
    """What is left of g + a s is the rest of g, whatever a is; an update along g gains what g gains."""
    policy = policy_of(kind)
    compass = Compass(policy, contexts(), objective_gradients(policy, WORLD, PROMPTS))
    for name, g_D in compass.gradients.items():
        alone = compass.parts(_all_zero_groups(2 * g_D))
        both = compass.parts(_all_zero_groups(g_D + 0.7 * compass.temperature_D))
        assert alone is not None
        assert both is not None
        assert alone.gains[name].cosine == pytest.approx(1)
        assert alone.gains[name].sharpened + alone.gains[name].learned == pytest.approx(1)
        for parts in (alone, both):
            assert parts.gains[name].rest == pytest.approx(1, abs=1e-6)
            assert sum(parts.gains[name].learned_by_regime.values()) == pytest.approx(parts.gains[name].learned)


def _all_zero_groups(vector_D: Tensor) -> Tensor:
    return torch.stack([vector_D, *[torch.zeros_like(vector_D)] * 3])[None]


@pytest.mark.parametrize("targets", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_the_slopes_of_their_objectives(kind: str, targets: int) -> None:
    policy, world = policy_of(kind), small_environment(targets)
    found = objective_gradients(policy, world, PROMPTS)
    direction_D = directions(policy, 1)[0]
    train = world.train.first(PROMPTS)
    drawn_NY = torch.zeros(PROMPTS, policy.leaves).double().scatter(1, train.target_NT, 1.0)
    splits = {"train": (train, drawn_NY), "heldout": (world.heldout, world.heldout_gain_NY.double())}
    for split, (part, gain_NY) in splits.items():
        for name, objective in OBJECTIVES.items():
            ahead, behind = (
                objective(moved(policy, direction_D, step).leaf_logprobs(part.x_ND.double()), gain_NY, part.target_NT).mean()
                for step in (1e-5, -1e-5)
            )
            slope = float((ahead - behind).detach()) / 2e-5
            assert float(found[f"{split} {name}"] @ direction_D) == pytest.approx(slope, rel=1e-5, abs=1e-8), (split, name)
    expected_D = pass_at_1_gradient(policy, train.x_ND.double(), train.target_NT)
    torch.testing.assert_close(found["train pass_at_1"], expected_D)


def test_objectives_by_hand() -> None:
    share_NY = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]]).double()
    target_NT = torch.tensor([[1], [2]])
    gain_NY = torch.zeros(2, 3).double().scatter(1, target_NT, 1.0)
    found = {name: objective(share_NY.log(), gain_NY, target_NT) for name, objective in OBJECTIVES.items()}
    assert found["pass_at_1"].tolist() == pytest.approx([0.3, 0.8])
    assert found["log_likelihood"].tolist() == pytest.approx([math.log(0.3), math.log(0.8)])
    power = 1 / SOFT_GREEDY_TEMPERATURE
    assert found["soft_greedy"][0] == pytest.approx(0.3**power / (0.5**power + 0.3**power + 0.2**power))
    rank = 1 + 0.5 / 0.8 + 0.2 / 0.5
    assert found["reciprocal_rank"].tolist() == pytest.approx([1 / rank, 1 / (1 + 2 * 0.1 / 0.9)])


def test_the_expected_rank_is_that_of_draws_without_replacement() -> None:
    share_Y = torch.tensor([0.4, 0.3, 0.15, 0.1, 0.05]).double()
    target_NT = torch.tensor([[2]])
    found = OBJECTIVES["reciprocal_rank"](share_Y.log()[None], torch.zeros(1, 5), target_NT)
    order = torch.multinomial(share_Y.expand(40_000, -1), 5, generator=torch.Generator().manual_seed(0))
    rank_N = 1 + (order == 2).int().argmax(1)
    assert 1 / float(found[0]) == pytest.approx(float(rank_N.double().mean()), abs=4 * float(rank_N.double().std()) / 200)


@pytest.mark.parametrize("name", ["grpo", "recast", "sft", "sapo"])
def test_reports_split_a_constructors_update(name: str) -> None:
    report = exact_report(small_base(), WORLD, name, 8, PROMPTS)
    parts = report.parts
    assert parts is not None
    assert -1 <= parts.cooling <= 1
    assert sum(parts.cooling_by_level) == pytest.approx(parts.cooling)
    assert sum(parts.cooling_by_regime.values()) == pytest.approx(parts.cooling)
    assert parts.gains["train pass_at_1"].cosine == pytest.approx(report.cosine)
    for gain in parts.gains.values():
        assert gain.rest is not None
        assert -1 <= gain.rest <= 1
        assert sum(gain.learned_by_regime.values()) == pytest.approx(gain.learned)


def test_supervision_is_the_gradient_of_the_log_likelihood() -> None:
    parts = exact_report(small_base("mlp"), WORLD, "sft", 8, PROMPTS).parts
    assert parts is not None
    gain = parts.gains["train log_likelihood"]
    assert (gain.cosine, gain.rest) == (pytest.approx(1), pytest.approx(1))
    assert gain.sharpened + gain.learned == pytest.approx(1)


@pytest.mark.property
@pytest.mark.parametrize("name", ["grpo", "recast"])
def test_sampled_parts_agree_with_counted_ones(name: str) -> None:
    exact = exact_report(small_base(), WORLD, name, 8, PROMPTS).parts
    sampled = monte_carlo_report(small_base(), WORLD, name, 8, PROMPTS, 1024, 0).parts
    assert exact is not None
    assert sampled is not None
    assert sampled.cooling == pytest.approx(exact.cooling, abs=0.02)
    for objective, gain in exact.gains.items():
        other = sampled.gains[objective]
        assert (other.sharpened, other.learned) == pytest.approx((gain.sharpened, gain.learned), abs=0.03), objective
        assert other.rest == pytest.approx(gain.rest, abs=0.03)


def test_the_parts_of_level_heads_tell_levels_apart() -> None:
    policy = policy_of("linear")
    compass, part_D = Compass(policy, contexts(), {}), part_of_parameter(policy)
    for level in range(policy.levels):
        parts = compass.parts(_all_zero_groups(compass.temperature_D * (part_D == level)))
        assert parts is not None
        others = [part for number, part in enumerate(parts.cooling_by_level) if number != level]
        assert parts.cooling_by_level[level] > 0
        assert others == pytest.approx([0.0] * len(others), abs=1e-9)
