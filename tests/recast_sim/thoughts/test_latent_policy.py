"""The latent policy's enumerations, users of several interests, methods' lines, and one step of training."""

import copy
import math

import pytest
import torch
from thought_world import flat_gradient, sharp_policy, tiny_world

from recast_sim.configio import ConfigError
from recast_sim.signal import SignalError
from recast_sim.thought_methods import ThoughtError, parse_thought_method, parse_thought_methods
from recast_sim.thoughts.latent_policy import LatentPolicy
from recast_sim.thoughts.thought_training import (
    ThoughtTraining,
    evaluate_thoughts,
    soft_coefficients,
    soft_logprobs,
    thought_loss,
    train_thoughts,
)
from recast_sim.training.plan_update import UpdateError
from recast_sim.world.environment import EnvironmentConfig, WorldError, make_environment
from recast_sim.world.generators import torch_generator
from recast_sim.world.policy import PolicyConfig, TreePolicy

METHODS = (
    "supervision",
    "hard constructor=grpo",
    "soft constructor=rloo answer=psr",
    "log constructor=grpo answer=sft",
    "soft constructor=max_rl answer=reward_share by_target=true",
)


def test_probabilities_sum_to_one_and_the_marginal_sums_thoughts_out():
    environment = tiny_world()
    policy, x = sharp_policy(environment, thoughts=3), environment.train.x_ND.double()
    share, items = policy.thought_logprobs(x).exp(), policy.leaf_logprobs(x).exp()
    torch.testing.assert_close(share.sum(1), torch.ones(3).double())
    torch.testing.assert_close(items.sum(2), torch.ones(3, 3).double())
    torch.testing.assert_close(policy.marginal_logprobs(x).exp(), torch.einsum("pz,pzy->py", share, items))
    leaf_PT = torch.tensor([[0, 4], [1, 1], [3, 2]])
    picked = items.gather(2, leaf_PT[:, None].expand(3, 3, 2))
    torch.testing.assert_close(policy.target_logprobs(x, leaf_PT).exp(), picked)
    torch.testing.assert_close(policy.marginal_target_logprobs(x, leaf_PT), policy.marginal_logprobs(x).gather(1, leaf_PT))


def test_without_a_choice_of_thoughts_it_is_the_linear_policy():
    environment = tiny_world(interests=1)
    latent = LatentPolicy(environment.catalog, 2, 1, torch_generator(0))
    plain = TreePolicy(environment.catalog, 2, PolicyConfig(), torch_generator(0))
    with torch.no_grad():
        for own, other, bias in zip(latent.items.vectors, plain.vectors, plain.biases, strict=True):
            own.normal_(generator=torch_generator(1))
            other.copy_(own[:, :2])
            bias.copy_(own[:, 2])
    x = environment.train.x_ND
    torch.testing.assert_close(latent.marginal_logprobs(x), plain.leaf_logprobs(x))


def test_a_user_of_one_interest_is_a_prompt_of_the_environment():
    config = EnvironmentConfig(items=5, sizes=(2, 3), dim=2, train_prompts=6, heldout_prompts=4, validation_prompts=1)
    ours, theirs = tiny_world(interests=1, beta=1.0, train_prompts=6), make_environment(config, 0)
    assert torch.equal(ours.train.x_ND, theirs.train.x_ND)
    assert torch.equal(ours.train.target_NT, theirs.train.target_NT)
    torch.testing.assert_close(ours.heldout_preference_NY, theirs.heldout_preference_NY)


def test_a_users_preference_is_the_mean_of_its_interests():
    environment = tiny_world(interests=3, targets=2)
    assert environment.train.x_ND.shape == (3, 6)
    assert environment.train.target_NT.shape == (3, 2)
    context = environment.heldout.context_ND
    each = [environment.log_preference(part).exp() for part in context.split(2, 1)]
    torch.testing.assert_close(environment.log_preference(context).exp(), torch.stack(each).mean(0))


def test_targets_come_from_every_interest():
    environment = tiny_world(interests=2, beta=50.0, train_prompts=400)  # so sharp that an interest has one target
    best = [environment.log_preference(part).argmax(1) for part in environment.train.context_ND.split(2, 1)]
    leaf = torch.from_numpy(environment.catalog.leaf_of_item_I)
    apart = leaf[best[0]] != leaf[best[1]]
    first = (environment.train.target_NT[:, 0] == leaf[best[0]])[apart].double().mean()
    assert apart.sum() > 100
    assert float(first) == pytest.approx(0.5, abs=0.1)


def test_a_reward_that_knows_more_is_refused():
    with pytest.raises(WorldError, match=r"reward_knows: 0.5 must be 0"):
        tiny_world(reward_knows=0.5)


def test_a_target_that_repeats_counts_once():
    environment = tiny_world()
    policy, x = sharp_policy(environment), environment.train.x_ND[:1].double()
    once, twice = (soft_logprobs(policy, x, torch.tensor([leaves]), False) for leaves in ([1, 3], [1, 3, 1]))
    torch.testing.assert_close(once, twice)
    torch.testing.assert_close(once[0, :, 0].exp(), policy.leaf_logprobs(x)[0, :, [1, 3]].exp().sum(1))


def test_coefficients_of_two_thoughts_by_hand():
    """p = .1 and .3, over two rows: verifree moves thoughts by -+.2 and SIDs by .1 and .3, shares by -+.5 and by .5 and 1.5."""
    logprob = torch.tensor([[[0.1, 0.3]]]).double().log()
    thought, answer, learnable = soft_coefficients(logprob, parse_thought_method(METHODS[2]))
    torch.testing.assert_close(thought, torch.tensor([[[-0.1, 0.1]]]).double())
    torch.testing.assert_close(answer, torch.tensor([[[0.05, 0.15]]]).double())
    assert learnable == 1
    thought, answer, _ = soft_coefficients(logprob, parse_thought_method(METHODS[4]))
    torch.testing.assert_close(thought, torch.tensor([[[-0.25, 0.25]]]).double(), rtol=1e-5, atol=0)
    torch.testing.assert_close(answer, torch.tensor([[[0.25, 0.75]]]).double(), rtol=1e-5, atol=0)
    thought, answer, _ = soft_coefficients(logprob, parse_thought_method("log constructor=rloo answer=sft"))
    torch.testing.assert_close(thought, torch.tensor([[[-1, 1]]]).double() * math.log(3) / 2)
    torch.testing.assert_close(answer, torch.tensor([[[0.5, 0.5]]]).double())


@pytest.mark.parametrize("line", METHODS)
def test_training_moves_what_its_method_says_and_repeats_itself(line):
    environment, method = tiny_world(targets=2, train_prompts=64), parse_thought_method(line)
    policies = [sharp_policy(environment).float() for _ in range(2)]
    before = copy.deepcopy(policies[0].state_dict())
    training = ThoughtTraining(group_size=4, prompts_per_step=8, steps=3)
    shares = [train_thoughts(policy, environment, method, training, 0.01, seed=1) for policy in policies]
    assert shares[0] == shares[1]
    assert (shares[0] is None) == (method.kind == "supervision")
    after = policies[0].state_dict()
    assert all(torch.equal(value, policies[1].state_dict()[name]) for name, value in after.items())
    assert not torch.equal(before["vectors"], after["vectors"])
    assert not torch.equal(before["items.vectors.0"], after["items.vectors.0"])


def test_without_an_answer_the_items_stay():
    environment = tiny_world(train_prompts=64)
    policy = sharp_policy(environment).float()
    before = copy.deepcopy(policy.items.state_dict())
    training = ThoughtTraining(group_size=4, prompts_per_step=8, steps=3)
    train_thoughts(policy, environment, parse_thought_method("soft constructor=grpo"), training, 0.01, seed=1)
    assert all(torch.equal(value, before[name]) for name, value in policy.items.state_dict().items())


def test_the_mean_of_many_batches_is_the_exact_gradient():
    """A hard reward's sampled loss against grad of the chance of a hit, rloo: unbiased."""
    environment = tiny_world()
    policy = sharp_policy(environment)
    x, target = environment.train.x_ND[:1].double().expand(4000, -1), environment.train.target_NT[:1].expand(4000, -1)
    loss, _ = thought_loss(policy, x, target, parse_thought_method("hard constructor=rloo"), 4, torch_generator(0))
    exact = flat_gradient(policy, policy.marginal_target_logprobs(x[:1], target[:1]).exp().sum())
    assert float(torch.cosine_similarity(-flat_gradient(policy, loss), exact, dim=0)) > 0.99


def test_metrics_of_a_policy_that_knows_one_answer_a_thought():
    environment = tiny_world(interests=1, items=12, sizes=(3, 4))
    policy = sharp_policy(environment, thoughts=2).float()
    found = evaluate_thoughts(policy, environment)
    with torch.no_grad():
        share, items = policy.thought_logprobs(environment.heldout.x_ND).exp(), policy.leaf_logprobs(environment.heldout.x_ND)
        marginal = policy.marginal_logprobs(environment.heldout.x_ND)
    gain = environment.heldout_gain_NY
    one = sum(share[n, z] * gain[n, items[n, z].argmax()] for n in range(4) for z in range(2)) / 4
    assert found["pass_at_1_one_thought"] == pytest.approx(float(one), rel=1e-5)
    joint = torch.special.entr(share[..., None] * items.exp()).sum((1, 2))
    told = torch.special.entr(marginal.exp()).sum(1) + torch.special.entr(share).sum(1) - joint
    assert found["thought_information"] == pytest.approx(float(told.mean()), abs=1e-5)
    assert found["pass_at_1_greedy"] == pytest.approx(float(gain.gather(1, marginal.argmax(1, True)).mean()), rel=1e-5)


def test_a_loss_that_is_not_finite_is_an_error():
    environment = tiny_world()
    policy = sharp_policy(environment)
    with torch.no_grad():
        policy.biases[0] = torch.nan
    with pytest.raises(UpdateError, match=r"step 1: loss nan of method 'supervision'; lower the learning rate"):
        train_thoughts(policy.float(), environment, parse_thought_method("supervision"), ThoughtTraining(steps=1), 0.01, 0)


@pytest.mark.parametrize(
    ("line", "error", "words"),
    [
        ("sharp constructor=rloo", ThoughtError, "kind: 'sharp' must be one of"),
        ("supervision constructor=rloo", ThoughtError, "takes no constructor"),
        ("soft answer=psr", ThoughtError, "needs a constructor"),
        ("hard constructor=rloo answer=psr", ThoughtError, "are of kinds 'soft' and 'log'"),
        ("soft constructor=recast", ThoughtError, "reads structural_PG, has_anchor_P"),
        ("hard constructor=dapo", ThoughtError, "redraws groups"),
        ("soft constructor=magic", SignalError, "'magic' is not registered"),
        ("soft constructor=rloo colour=blue", ConfigError, "colour=blue"),
        ("supervision thoughts=65", ThoughtError, "thoughts: 65 must be at most 64"),
    ],
)
def test_a_line_that_does_not_fit_is_refused(line, error, words):
    with pytest.raises(error, match=words):
        parse_thought_method(line)


def test_names_of_methods_differ():
    assert list(parse_thought_methods(["supervision", "alone: supervision thoughts=1"])) == ["supervision", "alone"]
    with pytest.raises(ThoughtError, match="names must differ"):
        parse_thought_methods(["a: supervision", "a: supervision thoughts=1"])
