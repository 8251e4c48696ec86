"""Several targets a prompt against plain loops: ranks, probabilities, hits, rewards, and which target is the anchor."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from sid_world import enumerated, questions, tiny_catalog, tiny_model
from torch import Tensor

from recast_sim.catalog import Catalog
from recast_sim.signal import SignalConfig, get_constructor
from recast_sim.signal.groups import ScoredGroups, kept_leaves, signal_of
from recast_train import evaluate
from recast_train.data import Prompts
from recast_train.engine import Engine, EngineConfig
from recast_train.evaluate import EvaluationConfig, expected_all_zero, sampled_regimes, score_prompts, target_logprobs
from recast_train.model import SidModel, tokenise_histories
from recast_train.rl.rl_loop import train_prompts
from recast_train.rl.rollout_groups import Groups, TrainPrompts, draw_groups
from recast_train.rollout.targets import target_leaves

ITEMS, SIZES, T = 60, (5, 4, 6), 3


def asked(catalog: Catalog, prompts: int, seed: int = 0) -> Prompts:
    """Questions with 1 to T targets, each once; the last of several was seen before, so that a filter takes it out."""
    one, rng = questions(catalog, prompts, seed), np.random.default_rng(seed + 7)
    targets_NT = np.full((prompts, T), -1)
    for row in range(prompts):
        seen = one.seen_item[one.seen_offset[row] : one.seen_offset[row + 1]]
        count = 1 + row % T
        fresh = rng.permutation(np.setdiff1d(np.arange(catalog.items), seen))[:count]
        targets_NT[row, :count] = [*fresh[: count - 1], rng.choice(seen)] if count > 1 and len(seen) else fresh
    return replace(one, targets_NT=targets_NT)


def real_targets(ask: Prompts, row: int) -> list[int]:
    return [item for item in ask.targets_NT[row].tolist() if item >= 0]


def best_rank(scores_I: np.ndarray, targets: list[int], seen: list[int]) -> float:
    """Rank of the best target left, by a plain sort of what is left without the others."""
    left = [item for item in targets if item not in seen]
    if not left:
        return np.inf
    best = max(left, key=lambda item: scores_I[item])
    rivals = [item for item in range(len(scores_I)) if item not in seen and item not in targets]
    return 1 + sum(scores_I[item] >= scores_I[best] for item in rivals)


@pytest.mark.parametrize("width", [1, 3, 1000])
def test_a_search_of_any_width_equals_plain_loops(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "K", 6)
    catalog = tiny_catalog(ITEMS, SIZES)
    model, ask = tiny_model(catalog, scale=6.0), asked(catalog, 60)
    steps = enumerated(model, tokenise_histories(ask.history_NH, catalog))
    scores_NI = steps.sum(2)[:, catalog.leaf_of_item_I]
    found = score_prompts(model, catalog, ask, EvaluationConfig(width=width, batch=16, cuts=(6,)))
    assert (found.wider > 0) == (width < 1000)
    for row, scores_I in enumerate(scores_NI):
        targets = real_targets(ask, row)
        seen = ask.seen_item[ask.seen_offset[row] : ask.seen_offset[row + 1]].tolist()
        for rank, gone in ((found.rank_seen_filtered_N[row], seen), (found.rank_unfiltered_N[row], [])):
            expected = best_rank(scores_I, targets, gone)
            assert rank == expected if expected <= 6 else rank > 6
        together = np.exp(scores_I[targets]).sum()
        assert found.probability_N[row] == pytest.approx(together, rel=1e-3)
        assert np.exp(target_logprobs(model, catalog, ask.take(np.array([row])))[0]) == pytest.approx(together, rel=1e-3)
        greedy = level_wise(catalog, steps[row])
        assert found.greedy_N[row] == float(greedy in targets)
    ranks = np.stack([found.rank_seen_filtered_N, found.rank_unfiltered_N])
    assert ((ranks <= 6).sum(1) > 5).all()
    assert (ranks[0] != ranks[1]).any()
    assert 0 < found.greedy_N.mean() < 1


def test_a_likely_target_seen_before_proves_nothing_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "K", 20)
    catalog = tiny_catalog(ITEMS, SIZES)
    model, ask = tiny_model(catalog, scale=4.0), questions(catalog, 60)
    scores_NI = enumerated(model, tokenise_histories(ask.history_NH, catalog)).sum(2)[:, catalog.leaf_of_item_I]
    targets_NT = np.stack([scores_NI.argmax(1), np.argsort(scores_NI, 1)[:, 40]], 1)
    seen = targets_NT[:, 0]
    ask = Prompts(ask.history_NH, targets_NT, ask.user_N, np.arange(61), seen)
    found = score_prompts(model, catalog, ask, EvaluationConfig(width=2, cuts=(20,)))
    expected = [best_rank(scores_NI[row], real_targets(ask, row), [int(seen[row])]) for row in range(60)]
    assert found.rank_seen_filtered_N.tolist() == expected == [19] * 60
    assert found.rank_unfiltered_N.tolist() == [1] * 60


def level_wise(catalog: Catalog, steps_YL: np.ndarray) -> int:
    alive = np.arange(catalog.leaves)
    for level in range(catalog.levels):
        alive = alive[np.isclose(steps_YL[alive, level], steps_YL[alive, level].max())]
    return int(np.flatnonzero(catalog.leaf_of_item_I == alive[0])[0])


def test_sampled_groups_hit_any_target() -> None:
    catalog = tiny_catalog(ITEMS, SIZES)
    model, ask = tiny_model(catalog, scale=4.0), asked(catalog, 2000)
    probability = np.exp(target_logprobs(model, catalog, ask))
    first = np.exp(target_logprobs(model, catalog, replace(ask, targets_NT=ask.targets_NT[:, :1])))
    found = sampled_regimes(model, catalog, ask, EvaluationConfig(group_size=8), seed=0)["all_zero"]
    each = (1 - probability) ** 8
    noise = np.sqrt((each * (1 - each)).sum()) / 2000
    assert abs(found - expected_all_zero(probability, 8)) < 4 * noise
    assert abs(found - expected_all_zero(first, 8)) > 6 * noise


def draw(model: SidModel, train: TrainPrompts, name: str, choice: str = "first", group: int = 6) -> Groups:
    config = SignalConfig(anchor_choice=choice)  # type: ignore[arg-type]
    with Engine(EngineConfig(), "cpu") as engine:
        return draw_groups(engine, engine.prepare(model), train, get_constructor(name), config, (24, group), 1, 5)


@pytest.fixture(scope="module")
def world() -> tuple[Catalog, SidModel, TrainPrompts]:
    catalog = tiny_catalog(ITEMS, SIZES)
    model = tiny_model(catalog, scale=5.0)
    return catalog, model, train_prompts(asked(catalog, 30), catalog, model.vocabulary)


def test_rewards_and_scores_are_those_of_the_best_target(world: tuple[Catalog, SidModel, TrainPrompts]) -> None:
    catalog, model, train = world
    groups = draw(model, train, "grpo", group=12)
    several = 0
    for prompt, leaves, hits, scores in zip(
        groups.scored.prompt_P, groups.scored.leaf_PG, groups.scored.rewards_PG, groups.scored.structural_PG, strict=True
    ):
        targets = [leaf for leaf in train.target_leaf_NT[prompt].tolist() if leaf >= 0]
        assert hits.tolist() == [float(leaf in targets) for leaf in leaves.tolist()]
        for leaf, score in zip(leaves.tolist(), scores.tolist(), strict=True):
            shared = [shared_prefix(catalog.leaf_codes[leaf], catalog.leaf_codes[target]) for target in targets]
            assert score == pytest.approx((0.0, 0.01, 0.1, 1.0)[max(shared)])
        several += bool(hits.any()) and not (leaves == targets[0]).any()
    assert several > 0  # a hit that the first target alone would not be


def shared_prefix(ours: np.ndarray, theirs: np.ndarray) -> int:
    return int((np.cumprod(ours == theirs)).sum())


@pytest.mark.parametrize("choice", ["first", "random", "most_likely"])
@pytest.mark.parametrize("name", ["luffy", "sft"])
def test_the_anchor_is_the_chosen_target(choice: str, name: str, world: tuple[Catalog, SidModel, TrainPrompts]) -> None:
    _, model, train = world
    groups = draw(model, train, name, choice)
    table_PY = torch.from_numpy(enumerated(model, train.tokens).sum(2))[groups.scored.prompt_P]
    columns = []
    for row, prompt in enumerate(groups.scored.prompt_P.tolist()):
        targets = [leaf for leaf in train.target_leaf_NT[prompt].tolist() if leaf >= 0]
        columns.append(targets.index(int(groups.scored.anchor_leaf_P[row])))
        if choice == "most_likely":
            assert table_PY[row, groups.scored.anchor_leaf_P[row]] == table_PY[row, targets].max()
    assert (choice == "first") == (set(columns) == {0})
    if name == "luffy":
        own_P = table_PY.gather(1, groups.scored.anchor_leaf_P[:, None])[:, 0]
        assert torch.allclose(groups.scored.extras["anchor_logprob_P"], own_P.float(), atol=1e-3)
    signal = signal_of(groups.scored, get_constructor(name), SignalConfig(), torch.Generator().manual_seed(1))
    leaves = kept_leaves(groups.scored, signal.plan, signal.group_size, torch.arange(24))[signal.plan.anchor_N]
    assert torch.equal(leaves, groups.scored.anchor_leaf_P[signal.plan.rows_N[signal.plan.anchor_N] // signal.group_size])


def test_the_choice_changes_no_rollout(world: tuple[Catalog, SidModel, TrainPrompts]) -> None:
    _, model, train = world
    first, *others = (draw(model, train, "recast", choice) for choice in ("first", "random", "most_likely"))
    for other in others:
        assert not torch.equal(first.scored.anchor_leaf_P, other.scored.anchor_leaf_P)
        assert torch.equal(first.scored.leaf_PG, other.scored.leaf_PG)
        assert torch.equal(first.scored.rewards_PG, other.scored.rewards_PG)


@pytest.mark.parametrize("choice", ["first", "random", "most_likely"])
def test_one_target_beside_padding_is_one_target(choice: str, world: tuple[Catalog, SidModel, TrainPrompts]) -> None:
    _, model, train = world
    one = replace(train, target_leaf_NT=train.target_leaf_NT[:, :1])
    padded = replace(train, target_leaf_NT=torch.nn.functional.pad(one.target_leaf_NT, (0, 2), value=-1))
    plain, wide = draw(model, one, "luffy", choice), draw(model, padded, "luffy", choice)
    for column in fields(ScoredGroups):
        ours, theirs = getattr(plain.scored, column.name), getattr(wide.scored, column.name)
        if isinstance(ours, Tensor):
            assert torch.equal(ours, theirs), column.name


def test_leaves_of_targets() -> None:
    catalog = tiny_catalog(ITEMS, SIZES)
    ask = asked(catalog, 9)
    found = target_leaves(catalog, ask)
    assert ((found >= 0).numpy() == (ask.targets_NT >= 0)).all()
    for row in range(9):
        assert found[row][found[row] >= 0].tolist() == catalog.leaf_of_item_I[real_targets(ask, row)].tolist()
