"""Supervised training: its loss against a dense oracle, its schedule, early stopping, and what it learns."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sid_world import dense_logprobs, tiny_catalog, tiny_dataset, tiny_model

from recast_sim.catalog import Catalog
from recast_sim.runs import RunWriter, read_run
from recast_train.data import prompts
from recast_train.engine import Engine, Recorder
from recast_train.evaluate import target_logprobs
from recast_train.model import BOS_TOKEN, TrainError
from recast_train.supervised import SftConfig
from recast_train.supervised.train import learning_rate, train_sft
from recast_train.supervised.window_loss import window_loss
from recast_train.supervised.windows import Windows

FAST = SftConfig(steps=60, batch=16, window=5, learning_rate=0.01, warm_up=5, evaluate_every=10, validation_prompts=20)


def test_loss_is_the_mean_nll_of_a_plain_forward() -> None:
    catalog = tiny_catalog()
    model = tiny_model(catalog)
    windows = np.array([[3, 7, 3, 1], [5, 2, -1, -1], [4, -1, -1, -1]])
    nll, spread = [], []
    for row in windows:
        tokens = [BOS_TOKEN]
        for item in row[row >= 0]:
            leaf = catalog.leaf_of_item_I[item]
            of_levels = dense_logprobs(model, torch.tensor(tokens))
            nll.append(-of_levels[leaf].sum())
            spread.append(-sum(_siblings(catalog, of_levels, leaf, level) for level in range(3)))
            tokens += model.vocabulary.sid_tokens_IL[item].tolist()
    with torch.no_grad():
        assert float(window_loss(model, catalog, windows)) == pytest.approx(np.mean(nll), rel=1e-4)
        expected = 0.9 * np.mean(nll) + 0.1 * np.mean(spread)
        assert float(window_loss(model, catalog, windows, 0.1)) == pytest.approx(expected, rel=1e-4)


def _siblings(catalog: Catalog, of_levels: np.ndarray, leaf: int, level: int) -> float:
    """Mean log-probability of all children of a leaf's node at one level."""
    same = (catalog.leaf_nodes[:, :level] == catalog.leaf_nodes[leaf, :level]).all(1)
    _, first = np.unique(np.where(same, catalog.leaf_nodes[:, level], -1), return_index=True)
    return float(of_levels[[row for row in first if same[row]], level].mean())


def test_schedule_by_hand() -> None:
    config = SftConfig(steps=100, warm_up=10, learning_rate=1.0)
    assert learning_rate(config, 5) == pytest.approx(0.5 * learning_rate(replace(config, warm_up=0), 5))
    assert learning_rate(config, 50) == pytest.approx(0.05 + 0.95 / 2)
    assert learning_rate(config, 100) == pytest.approx(0.05)


def test_training_learns_and_keeps_the_best_state(engine: Engine, tmp_path: Path) -> None:
    catalog, data = tiny_catalog(), tiny_dataset(60)
    model, ask = tiny_model(catalog, scale=1.0), prompts(data, "validation", 5)
    before = -target_logprobs(model, catalog, ask).mean()
    config = replace(FAST, steps=80, validation_prompts=60)
    state, found = train_sft(engine, model, catalog, data, ask, config, 0, _recorder(engine, tmp_path))
    evals = read_run(tmp_path / "run").evals
    assert found["validation_nll"] < 0.7 * before
    assert found["validation_nll"] == evals["validation_nll"].min()
    assert not model.training
    model.load_state_dict(state.model)
    assert -target_logprobs(model, catalog, ask).mean() == pytest.approx(found["validation_nll"], rel=1e-5)


def test_the_kept_state_is_the_best_by_what_was_asked(engine: Engine, tmp_path: Path) -> None:
    catalog, data = tiny_catalog(), tiny_dataset(60)
    model, ask = tiny_model(catalog, scale=1.0), prompts(data, "validation", 5)
    config = replace(FAST, steps=80, validation_prompts=60, choose_by="ndcg@10", patience=8)
    state, found = train_sft(engine, model, catalog, data, ask, config, 0, _recorder(engine, tmp_path))
    evals = read_run(tmp_path / "run").evals
    best = evals.sort("ndcg@10_unfiltered", descending=True, maintain_order=True).row(0, named=True)
    assert (found["best_step"], found["validation_nll"]) == (best["step"], best["validation_nll"])
    assert evals["ndcg@10_unfiltered"].n_unique() > 2
    steps = read_run(tmp_path / "run").steps
    assert steps["tokens"].min() >= 3 * config.batch  # three levels, an item a window at least
    assert 0.5 < steps["filled"].min() <= steps["filled"].max() <= 1
    model.load_state_dict(state.model)
    assert -target_logprobs(model, catalog, ask).mean() == pytest.approx(found["validation_nll"], rel=1e-5)


def test_a_step_follows_the_gradient_of_all_its_windows_whatever_their_layout(engine: Engine, tmp_path: Path) -> None:
    """One step of plain AdamW on the mean NLL of the step's windows in one pass, against the trainer's passes."""
    catalog, data = tiny_catalog(), tiny_dataset(60)
    ask, config = prompts(data, "validation", 5), replace(FAST, steps=1, warm_up=0, evaluate_every=1)
    trained, by_hand = tiny_model(catalog), tiny_model(catalog)
    for model in (trained, by_hand):
        model.dropout.p = 0.0
    state, _ = train_sft(engine, trained, catalog, data, ask, config, 3, _recorder(engine, tmp_path))
    optimiser = torch.optim.AdamW(by_hand.parameters(), lr=learning_rate(config, 1), weight_decay=config.weight_decay)
    window_loss(by_hand, catalog, Windows(data, config.window, config.batch, 3).step(1)).backward()
    torch.nn.utils.clip_grad_norm_(by_hand.parameters(), config.max_norm)
    optimiser.step()
    for name, weight in by_hand.state_dict().items():
        assert torch.allclose(weight, state.model[name], atol=2e-4), name


def test_the_best_state_is_kept_where_later_ones_are_worse(engine: Engine, tmp_path: Path) -> None:
    catalog, data = tiny_catalog(), tiny_dataset()
    model, ask = tiny_model(catalog), prompts(data, "validation", 5)
    config = replace(FAST, steps=300, learning_rate=3.0, max_norm=100.0, warm_up=0, patience=2, validation_prompts=len(ask))
    state, found = train_sft(engine, model, catalog, data, ask, config, 0, _recorder(engine, tmp_path))
    assert found["steps"] == found["best_step"] + 20
    assert found["steps"] < 300
    last = -target_logprobs(model, catalog, ask).mean()
    model.load_state_dict(state.model)
    assert -target_logprobs(model, catalog, ask).mean() < last


def test_the_kept_state_is_the_running_mean_of_the_weights(engine: Engine, tmp_path: Path) -> None:
    catalog, data = tiny_catalog(), tiny_dataset(60)
    model, ask, config = tiny_model(catalog), prompts(data, "validation", 5), replace(FAST, steps=12, average=0.5)
    seen: list[dict[str, torch.Tensor]] = []

    def note(step: int) -> None:
        seen.append({name: weight.detach().clone() for name, weight in model.named_parameters()})

    state, found = train_sft(engine, model, catalog, data, ask, config, 0, _recorder(engine, tmp_path), note)
    mean = seen[0]
    for step, weights in enumerate(seen[1 : found["best_step"]], start=2):
        share = min(0.5, (1 + step) / (10 + step))
        mean = {name: share * mean[name] + (1 - share) * weights[name] for name in mean}
    assert found["best_step"] == 12
    for name, weight in mean.items():
        assert torch.allclose(state.model[name], weight, atol=1e-6), name
        assert torch.equal(model.get_parameter(name), seen[-1][name])  # training goes on from the weights themselves
    assert any(not torch.allclose(state.model[name], seen[-1][name], atol=1e-4) for name in mean)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("batch", 0),
        ("steps", -1),
        ("window", 1),
        ("learning_rate", 0.0),
        ("label_smoothing", 1.0),
        ("item_dropout", 1.0),
        ("average", 1.0),
    ],
)
def test_bad_settings_are_refused(field: str, value: float) -> None:
    with pytest.raises(TrainError, match=rf"SftConfig\.{field}: {value} must"):
        SftConfig(**{field: value})


def _recorder(engine: Engine, folder: Path) -> Recorder:
    return Recorder(engine, folder / "run", RunWriter.create(folder / "run", "real-sft", {}, 0))
