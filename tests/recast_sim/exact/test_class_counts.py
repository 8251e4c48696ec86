"""Counting against brute force over every group of a tiny tree, and against closed forms."""

import copy
import dataclasses
import itertools
import math
from collections.abc import Iterator

import pytest
import torch
from signal_cases import BATCHWISE, SHIPPED, WIDTH_TWO
from torch import Tensor
from worlds import small_base, small_environment

from recast_sim.exact import class_counts
from recast_sim.exact.class_counts import Counted, count_moments, count_vectors, leaf_classes
from recast_sim.exact.gram import expected_estimate, pass_at_1_gradient
from recast_sim.exact.group_sums import ExactError
from recast_sim.exact.traits import traits_of
from recast_sim.signal import (
    SignalConfig,
    SignalError,
    centred,
    construct,
    exact_hit,
    get_constructor,
    register,
    structural_score,
    unregister,
)
from recast_sim.world.environment import Environment, EnvironmentConfig, make_environment
from recast_sim.world.generators import torch_generator
from recast_sim.world.policy import PolicyConfig, TreePolicy

G, PROMPTS = 3, 4
TINY = ("grpo", "rloo", "max_rl", "add_gt", "pods", "repair_only", "boundary_only", "recast", "sft", "sft_hard_negative")


def tiny_world(targets: int, kind: str = "linear") -> tuple[Environment, TreePolicy]:
    config = EnvironmentConfig(items=5, sizes=(2, 2, 2), dim=3, targets=targets, train_prompts=PROMPTS, heldout_prompts=1)
    environment, generator = make_environment(config, seed=1), torch_generator(3)
    policy = TreePolicy(environment.catalog, 3, PolicyConfig(kind=kind, width=3), generator).double()  # type: ignore[arg-type]
    with torch.no_grad():
        for value in policy.parameters():
            value.copy_(torch.randn(value.shape, generator=generator))
    return environment, policy


def counted(environment: Environment, policy: TreePolicy, name: str, config: SignalConfig, group_size: int = G) -> Counted:
    every_score = leaf_classes(policy, environment, PROMPTS, config, structural=True).scores_C
    traits = traits_of(name, config, group_size, every_score, policy.levels)
    structural = traits.structural or traits.level_wise
    classes = leaf_classes(policy, environment, PROMPTS, config, structural, traits.level_wise)
    return count_moments(classes, name, config, group_size, traits.last_slot)


def brute_force(environment: Environment, policy: TreePolicy, name: str, config: SignalConfig) -> Iterator[tuple[Tensor, ...]]:
    """E[g_hat] by number of hits and E||g_hat||^2 of each prompt, from all Y^G groups and materialised score vectors."""
    codes = torch.from_numpy(environment.catalog.leaf_codes)
    groups = torch.tensor(list(itertools.product(range(policy.leaves), repeat=G)))
    parameters = list(policy.parameters())
    for x, target in zip(environment.train.x_ND.double(), environment.train.target_NT, strict=True):
        logprob_YL = policy.path_logprobs(x[None], torch.arange(policy.leaves)[None])[0]
        logprob, levels = logprob_YL.sum(1), range(policy.levels)
        score_YLD = torch.stack(
            [torch.stack([_flat_gradient(row[level], parameters) for level in levels]) for row in logprob_YL]
        )
        rewards = exact_hit(codes[groups], codes[target].expand(len(groups), -1, -1)).double()
        signal = construct(
            name,
            rewards,
            structural_score(codes[groups], codes[target].expand(len(groups), -1, -1)),
            has_anchor_P=torch.ones(len(groups), dtype=torch.bool),
            anchor_logprob_P=logprob.detach()[target[0]].expand(len(groups)),
            anchor_logprob_PL=logprob_YL.detach()[target[0]].expand(len(groups), -1),
            sids_PGL=codes[groups],
            targets_PTL=codes[target].expand(len(groups), -1, -1),
            logprob_PG=logprob.detach()[groups],
            config=config,
            generator=torch_generator(5),
        )
        plan, group = signal.plan, signal.plan.rows_N // signal.group_size
        sampled = groups[group, (plan.rows_N % signal.group_size).clamp(max=G - 1)]
        leaf = torch.where(plan.anchor_N, target[0], sampled)
        estimate = torch.zeros(len(groups), score_YLD.shape[2]).double()
        coefficient_NL = (plan.weights_N[:, None] * plan.advantages_NL).expand(-1, policy.levels)
        estimate.index_add_(0, group, torch.einsum("nl,nld->nd", coefficient_NL, score_YLD[leaf]))
        pmf = logprob.detach()[groups].sum(1).exp()
        by_hits = [pmf[at] @ estimate[at] for at in (rewards.sum(1) == hits for hits in range(G + 1))]
        yield torch.stack(by_hits), pmf @ estimate.square().sum(1), pmf @ signal.learnable_P.double(), score_YLD


def _flat_gradient(value: Tensor, parameters: list[torch.nn.Parameter]) -> Tensor:
    gradients = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True, materialize_grads=True)
    return torch.cat([part.flatten() for part in gradients])


@pytest.mark.property
@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize(("targets", "kind"), [(1, "linear"), (2, "linear"), (1, "mlp"), (2, "low_rank")])
def test_counting_equals_brute_force(name: str, targets: int, kind: str) -> None:
    _compare(name, SignalConfig(pods_width=2), *tiny_world(targets, kind))


@pytest.mark.property
@pytest.mark.parametrize("name", ["recast", "add_gt", "repair_only"])
@pytest.mark.parametrize("weighting", ["clipped", "luffy"])
def test_counting_weighs_each_prompts_anchor(name: str, weighting: str) -> None:
    _compare(name, SignalConfig(anchor_weighting=weighting), *tiny_world(2))  # type: ignore[arg-type]


@pytest.mark.property
@pytest.mark.parametrize(
    "name", ["tempered_anchor", "hybrid", "grpo_anchor", "luffy", "visurf", "w_reinforce", "ngrpo", "near_miss"]
)
def test_counting_covers_the_other_constructors(name: str) -> None:
    try:
        get_constructor(name)
    except SignalError:
        pytest.skip(f"{name} is not registered")
    _compare(name, SignalConfig(), *tiny_world(1))


LEVELS = ("sapo", "recast_masked", "recast_diverging", "dft", "chord", "deepest_level", "grpo_sr", "exp_reward_sft")


@pytest.mark.property
@pytest.mark.parametrize("name", LEVELS)
@pytest.mark.parametrize("kind", ["linear", "low_rank", "mlp"])
def test_counting_covers_credit_by_level(name: str, kind: str) -> None:
    _compare(name, SignalConfig(w_minus=0.3), *tiny_world(1, kind))


@pytest.mark.parametrize("name", ["sibling", "sibling_grpo", "rl_zvp", "lens", "ada_grpo"])
def test_what_classes_do_not_tell_is_not_counted(name: str) -> None:
    with pytest.raises(ExactError, match=f"{name}: (depends on|needs entropy)"):
        counted(*tiny_world(1), name, SignalConfig())


def test_credit_by_level_on_several_targets_is_not_counted() -> None:
    with pytest.raises(ExactError, match="targets: with several of them"):
        counted(*tiny_world(2), "sapo", SignalConfig())


def _compare(name: str, config: SignalConfig, environment: Environment, policy: TreePolicy) -> None:
    found = counted(environment, policy, name, config)
    for p, (by_hits, square, learnable, score_YLD) in enumerate(brute_force(environment, policy, name, config)):
        regimes = torch.stack([by_hits[0], by_hits[1], by_hits[2:G].sum(0), by_hits[G]])
        coefficient_RYL = found.coefficient_RPYW[:, p].expand(-1, -1, policy.levels)
        expected = torch.einsum("ryl,yld->rd", coefficient_RYL, score_YLD)
        torch.testing.assert_close(expected, regimes, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(found.square_RP[:, p].sum(), square, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(found.mean_square_P[p], by_hits.sum(0).square().sum(), rtol=1e-9, atol=1e-11)
        assert found.learnable_P[p] == pytest.approx(float(learnable), abs=1e-12)


def weight(name: str, p: float, size: int) -> float:
    """w(p) in E[g_hat] / G = w(p) grad p."""
    k = range(size + 1)
    pmf = [math.comb(size, hits) * p**hits * (1 - p) ** (size - hits) for hits in k]
    if name == "grpo":
        roots = sum(share * math.sqrt(hits * (size - hits)) for share, hits in zip(pmf, k, strict=True))
        return roots / (size * p * (1 - p)) * math.sqrt((size - 1) / size)
    return {"dr_grpo": (size - 1) / size, "rloo": 1.0, "max_rl": (1 - (1 - p) ** size) / p - (1 - p) ** (size - 1)}[name]


@pytest.mark.property
@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "rloo", "max_rl"])
@pytest.mark.parametrize("size", [2, 8, 32])
def test_expected_gradients_have_their_closed_weight(name: str, size: int) -> None:
    world, policy = small_environment(), copy.deepcopy(small_base()).double()
    config = SignalConfig(std_eps=1e-12, mean_eps=0.0)
    found = counted(world, policy, name, config, size)
    for p in range(PROMPTS):
        x, target = world.train.x_ND[[p]].double(), world.train.target_NT[[p]]
        chance = policy.path_logprobs(x, target).sum().exp().item()
        expected = weight(name, chance, size) * pass_at_1_gradient(policy, x, target)
        estimate = expected_estimate(policy, x, found.coefficient_RPYW.sum(0)[[p], :, 0]) / size
        torch.testing.assert_close(estimate, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.property
def test_the_positive_half_of_recast_is_the_supervised_gradient() -> None:
    """With repair, E[positive half] = w_plus (1 - p^G) grad log pi(target)."""
    world, policy = small_environment(), copy.deepcopy(small_base()).double()
    for size in (2, 8):
        found = counted(world, policy, "recast", SignalConfig(w_plus=0.7), size).coefficient_RPYW.sum(0)[..., 0]
        target = world.train.target_NT[:PROMPTS]
        chance = policy.path_logprobs(world.train.x_ND[:PROMPTS].double(), target).sum(2).exp().detach()
        torch.testing.assert_close(found.gather(1, target), 0.7 * (1 - chance**size), rtol=1e-9, atol=1e-12)
        assert (found.scatter(1, target, -1.0) < 0).any(1).all()
        torch.testing.assert_close(found.scatter(1, target, 0.0).sum(1, keepdim=True), chance**size - 1)


def test_count_vectors_are_all_and_distinct() -> None:
    table = count_vectors(5, 4)
    assert len(table) == math.comb(8, 3) == len(table.unique(dim=0))
    assert (table.sum(1) == 5).all()
    assert (table >= 0).all()
    assert count_vectors(3, 1).tolist() == [[3]]


def test_chunks_do_not_change_the_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    environment, policy = tiny_world(1)
    whole = counted(environment, policy, "recast", SignalConfig())
    monkeypatch.setattr(class_counts, "_CHUNK", 50)
    parts = counted(environment, policy, "recast", SignalConfig())
    for name, value in vars(whole).items():
        torch.testing.assert_close(getattr(parts, name), value)


def test_traits_are_found_by_trial() -> None:
    scores = torch.tensor([1.0, 0.0, 0.01, 0.1]).double()
    found = {name: traits_of(name, SignalConfig(), 12, scores, 3) for name in ("grpo", "pods", "add_gt", "sft", "recast")}
    assert {name for name, traits in found.items() if traits.structural} == {"recast"}
    assert {name for name, traits in found.items() if traits.last_slot} == {"add_gt"}
    assert traits_of("recast", SignalConfig(tie_rule="random"), 12, scores, 3) == found["recast"]


@pytest.mark.parametrize(
    ("name", "config", "words"),
    [
        ("recast", SignalConfig(anchor_weighting="annealed"), "other groups"),
        ("recast", SignalConfig(tie_rule="highest_logprob"), "log-probabilities"),
        ("positional", SignalConfig(), "order of the rows"),
    ],
)
def test_what_counts_do_not_determine_is_refused(name: str, config: SignalConfig, words: str) -> None:
    @register("positional", source="test")
    def positional(state):  # type: ignore[no-untyped-def]
        return centred(dataclasses.replace(state, active_PG=state.active_PG & (torch.arange(8) != 2)))

    try:
        with pytest.raises(ExactError, match=words):
            traits_of(name, config, 8, torch.tensor([1.0, 0.0, 0.1]).double(), 3)
    finally:
        unregister("positional")


def refusal(name: str, group_size: int) -> str:
    """Why class counts do not determine a constructor's estimate, "" where they do."""
    try:
        traits_of(name, WIDTH_TWO, group_size, torch.tensor([1.0, 0.0, 0.01, 0.1]).double(), 3)
    except ExactError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", [name for name in BATCHWISE if name != "spo"])  # spo is refused for its baseline
def test_dependence_on_the_batch_is_found_at_every_group_size(name: str) -> None:
    missed = [size for size in range(2, 65) if "other groups of the batch" not in refusal(name, size)]
    assert missed == []


@pytest.mark.parametrize("name", [name for name in SHIPPED if name not in BATCHWISE])
def test_no_other_constructor_is_said_to_depend_on_the_batch(name: str) -> None:
    assert not any("other groups" in refusal(name, size) for size in (3, 8, 15, 31))


def test_a_random_anchor_of_several_targets_is_refused() -> None:
    environment, policy = tiny_world(2)
    with pytest.raises(ExactError, match="anchor_choice"):
        leaf_classes(policy, environment, 2, SignalConfig(anchor_choice="random"), structural=True)
