"""The pruned search against full enumeration, its bound, and the all-zero share against the exact expectation."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sid_world import enumerated, questions, tiny_catalog, tiny_model

from recast_sim.catalog import Catalog, synthetic_codes
from recast_train import evaluate
from recast_train.data import Prompts
from recast_train.data.references import shared_sids, target_rank
from recast_train.evaluate import (
    EvaluationConfig,
    expected_all_zero,
    sampled_regimes,
    score_prompts,
    search,
    target_logprobs,
)
from recast_train.model import SidModel, TrainError, tokenise_histories

ITEMS, SIZES = 90, (6, 5, 7)


def enumerated_scores(model: SidModel, catalog: Catalog, prompts: Prompts) -> np.ndarray:
    tokens = tokenise_histories(prompts.history_NH, catalog)
    return enumerated(model, tokens).sum(2)[:, catalog.leaf_of_item_I]


@pytest.mark.parametrize("width", [1, 3, 1000])
def test_a_search_of_any_width_equals_full_enumeration(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "K", 4)
    catalog = tiny_catalog(ITEMS, SIZES)
    model, ask = tiny_model(catalog), questions(catalog, 10)
    exact = enumerated_scores(model, catalog, ask)
    found = score_prompts(model, catalog, ask, EvaluationConfig(width=width, batch=4, cuts=(1, 4)))
    for seen, rank in ((True, found.rank_seen_filtered_N), (False, found.rank_unfiltered_N)):
        expected = target_rank(exact, ask, seen)
        assert np.where(rank <= 4, rank, np.inf).tolist() == np.where(expected <= 4, expected, np.inf).tolist()
        bound = found.bound_seen_filtered_N if seen else found.bound_unfiltered_N
        assert (rank[bound == 0] == expected[bound == 0]).all()  # what is not marked as a bound is exact, beyond K too
        assert (rank <= expected).all()
        assert (rank[bound == 1] > 4).all()
        assert bool(bound.any()) == (width < 1000)
    own = exact[np.arange(10), ask.target_N]
    assert np.allclose(found.probability_N, np.exp(own), rtol=1e-3)
    assert np.allclose(target_logprobs(model, catalog, ask, batch=3), own, atol=1e-3)
    assert (found.wider > 0) == (width < 1000)


def test_what_is_pruned_is_bounded() -> None:
    catalog = tiny_catalog(ITEMS, SIZES)
    model, ask = tiny_model(catalog, scale=5.0), questions(catalog, 8)
    exact = enumerated_scores(model, catalog, ask)
    tokens = tokenise_histories(ask.history_NH, catalog)
    target = torch.from_numpy(catalog.leaf_of_item_I[ask.targets_NT])
    logprob, pruned, _ = search(model, tokens, target, 4)
    by_item = logprob.numpy()[:, catalog.leaf_of_item_I]
    kept = np.isfinite(by_item)
    assert np.allclose(by_item[kept], exact[kept], atol=1e-3)
    assert (np.where(kept, -np.inf, exact).max(1) <= pruned.numpy() + 1e-4).all()
    assert kept[np.arange(8), ask.target_N].all()
    assert 0.02 < kept.mean() < 0.9
    assert bool(torch.isinf(search(model, tokens, target, 1000)[1]).all())


def test_greedy_decoding_goes_level_by_level() -> None:
    catalog = tiny_catalog(ITEMS, SIZES)
    model, ask = tiny_model(catalog), questions(catalog, 10, seed=3)
    tokens = tokenise_histories(ask.history_NH, catalog)
    greedy = search(model, tokens, torch.zeros(10, 1, dtype=torch.int64), 2)[2]
    for row, steps in enumerate(enumerated(model, tokens)):
        alive = np.arange(catalog.leaves)
        for level in range(3):
            alive = alive[np.isclose(steps[alive, level], steps[alive, level].max())]
        assert alive.tolist() == [int(greedy[row])]


def test_a_sure_greedy_hit_counts_as_one() -> None:
    catalog = tiny_catalog(ITEMS, SIZES)
    model, ask = tiny_model(catalog), questions(catalog, 12, seed=3)
    tokens = tokenise_histories(ask.history_NH, catalog)
    greedy = search(model, tokens, torch.zeros(12, 1, dtype=torch.int64), 2)[2].numpy()
    item_of_leaf = np.argsort(catalog.leaf_of_item_I)
    ask.target_N[:5] = item_of_leaf[greedy[:5]]
    found = score_prompts(model, catalog, ask, EvaluationConfig(width=2))
    assert found.greedy_N[:5].tolist() == [1.0] * 5
    assert found.summary()["pass_at_1_greedy"] == pytest.approx(found.greedy_N.mean())
    assert found.metric_rows()["hr@10"].mean() == pytest.approx(found.summary()["hr@10"])
    assert found.metric_rows()["ndcg@10"].mean() == pytest.approx(found.summary()["ndcg@10"])


def test_all_zero_share_as_sampled_and_as_expected() -> None:
    catalog = tiny_catalog(ITEMS, SIZES)
    model, ask = tiny_model(catalog, scale=4.0), questions(catalog, 600)
    probability = np.exp(target_logprobs(model, catalog, ask))
    expected = expected_all_zero(probability, 16)
    shares = sampled_regimes(model, catalog, ask, EvaluationConfig(group_size=16), seed=0)
    found = shares["all_zero"]
    assert sum(shares[name] for name in ("all_zero", "single_hit", "multi_hit", "all_hit")) == pytest.approx(1.0)
    each = (1 - probability) ** 16
    assert 0.2 < expected < 0.98
    assert abs(found - expected) < 4 * np.sqrt((each * (1 - each)).sum()) / 600
    assert expected_all_zero(np.array([0.0, 0.5]), 2) == pytest.approx((1 + 0.25) / 2)


def shared_catalog(items: int = 40) -> Catalog:
    """Some SIDs have one item, some two or three."""
    rng = np.random.default_rng(5)
    return Catalog.from_codes(synthetic_codes(25, (4, 3, 5), rng)[rng.integers(25, size=items)], (4, 3, 5))


def rank_by_hand(scores_I: np.ndarray, sid_I: np.ndarray, targets: list[int], seen: list[int]) -> float:
    """SIDs of items that are left, each as good as its best one; targets that were seen do not count."""
    value = {}
    for item in np.setdiff1d(np.arange(len(sid_I)), seen).tolist():
        value[sid_I[item]] = max(value.get(sid_I[item], -np.inf), scores_I[item])
    own = {sid_I[item] for item in targets if item not in seen}
    best = max((value[sid] for sid in own), default=-np.inf)
    return 1 + sum(score >= best for sid, score in value.items() if sid not in own) if own else np.inf


@pytest.mark.parametrize("width", [2, 1000])
@pytest.mark.parametrize("targets", [1, 3])
def test_a_hit_of_a_shared_sid_is_a_hit_of_all_its_items(width: int, targets: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "K", 5)
    catalog, rng = shared_catalog(), np.random.default_rng(0)
    assert catalog.collisions > 10
    model, ask = tiny_model(catalog), questions(catalog, 40)
    wanted = np.stack([rng.permutation(catalog.items)[:targets] for _ in range(40)])
    ask = replace(ask, targets_NT=wanted)
    exact = enumerated_scores(model, catalog, ask)
    found = score_prompts(model, catalog, ask, EvaluationConfig(width=width, batch=16, cuts=(5,)))
    sid_I = catalog.leaf_of_item_I
    for row, scores in enumerate(exact):
        seen = ask.seen_item[ask.seen_offset[row] : ask.seen_offset[row + 1]].tolist()
        for rank, gone in ((found.rank_seen_filtered_N[row], seen), (found.rank_unfiltered_N[row], [])):
            expected = rank_by_hand(scores, sid_I, wanted[row].tolist(), gone)
            assert rank == expected if expected <= 5 else rank > 5
        each = {sid_I[item]: np.exp(scores[item]) for item in wanted[row]}  # two targets of one SID are one answer
        assert found.probability_N[row] == pytest.approx(sum(each.values()), rel=1e-3)
        one = target_logprobs(model, catalog, ask.take(np.array([row])))
        assert np.exp(one[0]) == pytest.approx(sum(each.values()), rel=1e-3)
    assert (found.rank_unfiltered_N == 1).any()
    assert (found.greedy_N[found.rank_unfiltered_N == 1]).mean() > 0.5


def test_the_metric_that_counts_is_unfiltered_where_users_come_back() -> None:
    catalog = tiny_catalog(ITEMS, SIZES)
    model, ask = tiny_model(catalog), questions(catalog, 12)
    last = np.where(ask.history_NH[:, -1:] >= 0, ask.history_NH[:, -1:], 0)
    again = replace(ask, targets_NT=last)  # the item before, which was seen
    for prompts, policy in ((ask, "seen_filtered"), (again, "unfiltered")):
        found = score_prompts(model, catalog, prompts, EvaluationConfig(width=4))
        if policy == "seen_filtered":
            found = replace(found, repeats_N=np.zeros(12))
        rank = found.rank_unfiltered_N if policy == "unfiltered" else found.rank_seen_filtered_N
        summary = found.summary()
        assert summary["policy"] == policy
        assert summary["hr@10"] == found.metric_rows()["hr@10"].mean() == (rank <= 10).mean() == summary[policy]["hr@10"]
        assert summary["targets_seen_before"] == found.repeats_N.mean()
    assert summary["seen_filtered"]["hr@10"] < 0.3


def test_references_are_judged_by_sid_as_models_are() -> None:
    sid_I, rng = shared_catalog().leaf_of_item_I, np.random.default_rng(1)
    ask = questions(shared_catalog(), 30)
    scores = rng.integers(0, 6, (30, 40)).astype(float)  # with ties
    for seen_filter in (True, False):
        ranks = target_rank(scores, ask, seen_filter, sid_I)
        for row in range(30):
            seen = ask.seen_item[ask.seen_offset[row] : ask.seen_offset[row + 1]].tolist() if seen_filter else []
            assert ranks[row] == rank_by_hand(scores[row], sid_I, [int(ask.target_N[row])], seen)
    assert shared_sids(np.array([[0, 1], [1, 0]])) is None
    assert shared_sids(np.array([[0, 1], [1, 0], [0, 1]])).tolist() == [0, 1, 0]  # pyright: ignore[reportOptionalMemberAccess]


def test_bad_settings_are_refused() -> None:
    with pytest.raises(TrainError, match=r"EvaluationConfig\.width: 0 must be at least 1"):
        EvaluationConfig(width=0)
    with pytest.raises(TrainError, match=r"EvaluationConfig\.prompts: -1 must"):
        EvaluationConfig(prompts=-1)
    with pytest.raises(TrainError, match=r"EvaluationConfig\.cuts: \(1, 5\) must have 10 among them"):
        EvaluationConfig(cuts=(1, 5))
