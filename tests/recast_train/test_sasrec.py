"""SASRec: causal, indifferent to padding, better than popularity where the next item follows from the last, repeatable."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sid_world import tiny_dataset

from recast_train.data import Prompts, prompts, train_matrix
from recast_train.data.references import popularity_scores, rank_metrics
from recast_train.model import TrainError
from recast_train.sasrec import SasRec, SasRecConfig, train_sasrec

SMALL = SasRecConfig(epochs=10, width=16, window=8, dropout=0.1, batch=16, learning_rate=0.01, evaluate_every=2, patience=20)


def test_a_state_does_not_depend_on_later_items_or_on_padding() -> None:
    torch.manual_seed(0)
    model = SasRec(20, SMALL).eval()
    items = torch.tensor([[3, 7, 3, 1], [3, 7, 5, 2]])
    states = model(items)
    assert torch.allclose(states[0, :2], states[1, :2], atol=1e-6)
    assert not torch.allclose(states[0, 2], states[1, 2], atol=1e-3)
    padded = model(torch.tensor([[3, 7, -1, -1]]))
    assert torch.allclose(padded[0, :2], states[0, :2], atol=1e-6)


def test_scores_are_of_the_last_item_wherever_the_padding_stands() -> None:
    torch.manual_seed(0)
    model = SasRec(20, SMALL).eval()
    history = np.array([[-1, -1, 3, 7], [4, 1, 3, 7]])
    ask = Prompts(history, np.array([[1], [1]]), np.arange(2), np.array([0, 2, 6]), history[history >= 0])
    with torch.no_grad():
        expected = [model(torch.tensor([[3, 7]]))[0, 1], model(torch.tensor([[4, 1, 3, 7]]))[0, 3]]
    for row, state in zip(model.scores(ask), expected, strict=True):
        assert row == pytest.approx((state @ model.items.weight[:20].T).detach().numpy(), abs=1e-5)


@pytest.mark.parametrize("loss", ["bce", "softmax"])
def test_it_learns_transitions_keeps_the_best_look_and_repeats_itself(loss) -> None:
    data = tiny_dataset(80)
    ask, test = prompts(data, "validation", 8), prompts(data, "test", 8)
    config = replace(SMALL, loss=loss)
    model, epoch = train_sasrec(data, ask, config, seed=1)
    again, same = train_sasrec(data, ask, config, seed=1)
    assert (model.scores(test) == again.scores(test)).all()
    assert epoch == same
    popular = popularity_scores(train_matrix(data))
    ours = rank_metrics(model.scores, test, seen_filter=False)["ndcg@10"]
    assert (
        ours
        > 1.2 * rank_metrics(lambda p: np.broadcast_to(popular, (len(p), len(popular))), test, seen_filter=False)["ndcg@10"]
    )
    early, first = train_sasrec(data, ask, replace(config, epochs=epoch), seed=1)
    assert (first, (early.scores(test) == model.scores(test)).all()) == (epoch, True)


def test_bad_settings_are_refused_and_divergence_is_named() -> None:
    with pytest.raises(TrainError, match=r"SasRecConfig\.width: 15 must be a multiple of heads \(2\)"):
        SasRecConfig(width=15)
    data = tiny_dataset(40)
    with pytest.raises(TrainError, match=r"SasRecConfig\.learning_rate: the loss is not finite"):
        train_sasrec(data, prompts(data, "validation", 8), replace(SMALL, learning_rate=1e20, epochs=3), seed=0)
