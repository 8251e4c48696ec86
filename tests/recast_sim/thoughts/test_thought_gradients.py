"""The exact update and its variance against every group listed in order, and the facts of the methods' expectations."""

import itertools

import pytest
import torch
from thought_world import flat_gradient, sharp_policy, tiny_world

from recast_sim.signal import construct
from recast_sim.thought_methods import ThoughtError, parse_thought_method, row_coefficients
from recast_sim.thoughts.thought_gradients import _groups, _Scores, _update, thought_gradients
from recast_sim.thoughts.thought_training import soft_coefficients, soft_logprobs

pytestmark = pytest.mark.property

SOFT = (
    "soft constructor=grpo",
    "soft constructor=rloo",
    "soft constructor=rloo answer=psr",
    "soft constructor=max_rl answer=reward_share",
    "log constructor=rloo answer=sft",
    "soft constructor=grpo answer=sft by_target=true",
    "soft constructor=max_rl answer=reward_share by_target=true",
)
HARD = ("hard constructor=grpo", "hard constructor=rloo", "hard constructor=max_rl")
RLOO, HARD_RLOO = SOFT[2], HARD[1]


def by_listing(policy, prompt, method, G):
    """Mean and second moment of one group's update: all ordered groups, one autograd gradient each."""
    x, target = prompt.x_ND.double(), prompt.target_NT
    thought_Z, item_ZY = policy.thought_logprobs(x)[0], policy.leaf_logprobs(x)[0]
    Z, Y = item_ZY.shape
    draws = list(itertools.product(range(Z), range(Y))) if method.kind == "hard" else list(range(Z))
    mean, second, learnable = 0.0, 0.0, 0.0
    for group in itertools.product(draws, repeat=G):
        if method.kind == "hard":
            z, y = (torch.tensor(part) for part in zip(*group, strict=True))
            logprob = thought_Z[z] + item_ZY[z, y]
            factor = row_coefficients(construct(method.constructor, torch.isin(y, target).double()[None]))[0]
            value, chance, moved = (factor * logprob).sum(), logprob.sum().exp(), factor.any()
        else:
            z = torch.tensor(group)
            answer_TG = soft_logprobs(policy, x, target, method.by_target)[0, z].T
            factor_TG, weight_TG, _ = (
                part[0] if isinstance(part, torch.Tensor) else part
                for part in soft_coefficients(answer_TG.detach()[None], method)
            )
            value = (factor_TG * thought_Z[z]).sum() + (weight_TG * answer_TG).sum()
            chance, moved = thought_Z[z].sum().exp(), factor_TG.any()
        gradient, chance = flat_gradient(policy, value), float(chance.detach())
        mean, second = mean + chance * gradient, second + chance * float(gradient.square().sum())
        learnable += chance * float(moved)
    return mean, second, learnable


@pytest.mark.parametrize("targets", [1, 3])
@pytest.mark.parametrize("line", [*SOFT, *HARD])
def test_moments_are_those_of_all_groups_listed(line, targets):
    environment = tiny_world(targets=targets, label_noise=0.5)
    policy, method = sharp_policy(environment), parse_thought_method(line)
    for p, G in ((0, 2), (1, 3 if method.kind != "hard" else 2)):
        prompt = environment.train.take(slice(p, p + 1))
        mean, second, learnable = _update(_Scores.of(policy, prompt), method, G)
        listed_mean, listed_second, listed_learnable = by_listing(policy, prompt, method, G)
        torch.testing.assert_close(mean, listed_mean, rtol=1e-9, atol=1e-12)
        assert second == pytest.approx(listed_second, rel=1e-9)
        assert learnable == pytest.approx(listed_learnable, rel=1e-9)


@pytest.mark.parametrize("targets", [1, 4])
def test_exact_gradients_are_those_of_autograd(targets):
    environment = tiny_world(targets=targets, label_noise=0.5)
    policy = sharp_policy(environment)
    prompt = environment.train.take(slice(0, 1))
    scores, x = _Scores.of(policy, prompt), prompt.x_ND.double()
    leaves = policy.marginal_logprobs(x)[0]
    hit = leaves[prompt.target_NT[0].unique()].exp().sum()
    assert scores.hit == pytest.approx(float(hit.detach()))
    torch.testing.assert_close(scores.hit_gradient(), flat_gradient(policy, hit))
    torch.testing.assert_close(scores.likelihood_gradient(), flat_gradient(policy, leaves[prompt.target_NT[0]].mean()))


@pytest.mark.parametrize("G", [2, 5])
def test_verifree_is_the_hard_policy_gradient_with_less_noise(G):
    """Both are grad of the chance of a hit (Rao-Blackwell: the SID is summed out), and verifree's second moment is smaller."""
    for seed in range(5):
        environment = tiny_world(targets=2, seed=seed)
        scores = _Scores.of(sharp_policy(environment, thoughts=3, seed=seed), environment.train.take(slice(0, 1)))
        soft, hard = (_update(scores, parse_thought_method(line), G) for line in (RLOO, HARD_RLOO))
        torch.testing.assert_close(soft[0], scores.hit_gradient())
        torch.testing.assert_close(hard[0], scores.hit_gradient())
        assert soft[1] < hard[1]


def test_shares_tend_to_supervision_with_the_group_size():
    """The bound of G samples: its gradient nears that of the log of the mean, which is supervision's."""
    environment = tiny_world()
    scores = _Scores.of(sharp_policy(environment), environment.train.take(slice(0, 1)))
    method, wanted = parse_thought_method("soft constructor=max_rl answer=reward_share"), scores.likelihood_gradient()
    gaps = [float((_update(scores, method, G)[0] - wanted).norm() / wanted.norm()) for G in (2, 8, 32, 128)]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] < 0.05 * gaps[0]


def test_a_group_is_dead_only_where_its_thoughts_are_all_alike():
    environment = tiny_world()
    scores = _Scores.of(sharp_policy(environment, thoughts=3), environment.train.take(slice(0, 1)))
    alike = float(scores.share_Z.pow(4).sum())
    assert _update(scores, parse_thought_method("soft constructor=rloo"), 4)[2] == pytest.approx(1 - alike)
    p = scores.hit
    assert _update(scores, parse_thought_method("hard constructor=rloo"), 4)[2] == pytest.approx(1 - p**4 - (1 - p) ** 4)


def test_groups_up_to_order_have_all_the_chance():
    thought_CG, chance_C = _groups(torch.tensor([0.5, 0.3, 0.2]).double(), 4)
    assert thought_CG.shape == (15, 4)
    assert float(chance_C.sum()) == pytest.approx(1)
    assert float(chance_C[(thought_CG == torch.tensor([0, 0, 1, 2])).all(1)]) == pytest.approx(12 * 0.25 * 0.3 * 0.2)
    with pytest.raises(ThoughtError, match="lower either"):
        _groups(torch.full((64,), 1 / 64).double(), 8)


def test_the_report_of_a_world():
    environment = tiny_world()
    methods = [parse_thought_method(line) for line in ("supervision", RLOO, HARD_RLOO)]
    supervision, soft, hard = thought_gradients(sharp_policy(environment), environment, methods, 4, prompts=3)
    assert supervision.cosine_likelihood == pytest.approx(1)
    assert supervision.within == pytest.approx(0, abs=1e-9)
    assert soft.cosine_hit == pytest.approx(1)
    assert hard.cosine_hit == pytest.approx(1)
    assert soft.cosine_heldout == pytest.approx(hard.cosine_heldout)
    assert 0 < soft.variance < hard.variance
