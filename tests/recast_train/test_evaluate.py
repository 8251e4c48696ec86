"""The pruned search against full enumeration, its bound, and the all-zero share against the exact expectation."""

import numpy as np
import pytest
import torch
from sid_world import enumerated, questions, tiny_catalog, tiny_model

from recast_sim.catalog import Catalog
from recast_train import evaluate
from recast_train.data import Prompts
from recast_train.data.references import target_rank
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
    found = score_prompts(model, catalog, ask, EvaluationConfig(width=width, batch=4))
    for seen, rank in ((True, found.rank_seen_filtered_N), (False, found.rank_unfiltered_N)):
        expected = target_rank(exact, ask, seen)
        assert np.where(rank <= 4, rank, np.inf).tolist() == np.where(expected <= 4, expected, np.inf).tolist()
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


def test_items_that_share_an_sid_are_refused() -> None:
    catalog = Catalog.from_codes(np.array([[0, 1], [0, 1], [1, 0]]))
    with pytest.raises(TrainError, match="2 items share an SID"):
        score_prompts(tiny_model(catalog), catalog, questions(catalog, 2), EvaluationConfig())


def test_bad_settings_are_refused() -> None:
    with pytest.raises(TrainError, match=r"EvaluationConfig\.width: 0 must be at least 1"):
        EvaluationConfig(width=0)
    with pytest.raises(TrainError, match=r"EvaluationConfig\.prompts: -1 must"):
        EvaluationConfig(prompts=-1)
