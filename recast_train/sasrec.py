"""SASRec (arXiv 1808.09781): a causal transformer over items, the sequential reference that a recommender has to beat.

As published (binary cross-entropy against one sampled item a position, dot products with the item embeddings), or with the full
softmax over the catalog, which later work found stronger. Axis letters: B windows, W items of a window, P prompts, I items,
D width.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from recast_sim.configio import Checked, Share
from recast_sim.runs import derive_seed
from recast_train.data import Dataset, Prompts, sample_prompts
from recast_train.data.interactions import left_packed
from recast_train.data.references import rank_metrics
from recast_train.model import TrainError, require
from recast_train.supervised.windows import Windows, layouts

_BETAS = (0.9, 0.98)  # of Adam, as in the authors' code
_INITIAL = 0.02  # standard deviation of the embeddings


@dataclass(frozen=True)
class SasRecConfig(Checked, error=TrainError):
    """SASRec as a reference; its defaults are the sizes that the Amazon benchmarks use.

    Attributes:
        epochs: passes over the train items, at most; 0 leaves the reference out.
        loss: "bce", as published, or "softmax" over the whole catalog.
        width, layers, heads: of the transformer; `width` is a multiple of `heads`.
        window: items that it sees.
        dropout: on embeddings, attention and feed-forward layers.
        batch: windows of a step.
        learning_rate: of Adam.
        evaluate_every: epochs between looks at the validation prompts; the weights of the best NDCG@10, unfiltered, are kept.
        validation_prompts: of them, at most.
        patience: looks without a better one after which training stops.
    """

    epochs: NonNegativeInt = 0
    loss: Literal["bce", "softmax"] = "bce"
    width: PositiveInt = 64
    layers: PositiveInt = 2
    heads: PositiveInt = 2
    window: PositiveInt = 50
    dropout: Share = 0.5
    batch: PositiveInt = 256
    learning_rate: PositiveFloat = 0.001
    evaluate_every: PositiveInt = 5
    validation_prompts: PositiveInt = 2000
    patience: PositiveInt = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.width % self.heads == 0, "SasRecConfig.width", self.width, f"must be a multiple of heads ({self.heads})")


class SasRec(nn.Module):
    """Scores of all items after each item of a sequence."""

    def __init__(self, n_items: int, config: SasRecConfig) -> None:
        super().__init__()
        self.window = config.window
        self.items = nn.Embedding(n_items + 1, config.width, padding_idx=n_items)
        self.places = nn.Embedding(config.window, config.width)
        self.dropout = nn.Dropout(config.dropout)
        layer = nn.TransformerEncoderLayer(
            config.width, config.heads, config.width, config.dropout, batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, config.layers, nn.LayerNorm(config.width), enable_nested_tensor=False)
        for table in (self.items, self.places):
            nn.init.normal_(table.weight, std=_INITIAL)
        nn.init.zeros_(self.items.weight[n_items])

    def forward(self, item_BW: Tensor) -> Tensor:
        """States (B, W, D) after each item; -1 on the right is padding, whose states mean nothing."""
        W = item_BW.shape[1]
        known = self.items(torch.where(item_BW < 0, self.items.num_embeddings - 1, item_BW)) * self.items.embedding_dim**0.5
        mask = torch.ones(W, W, dtype=torch.bool, device=item_BW.device).triu(1)
        return self.layers(self.dropout(known + self.places.weight[:W]), mask=mask, is_causal=True)

    @property
    def item_ID(self) -> Tensor:
        """The items' embeddings (I, D)."""
        return self.items.weight[:-1]

    @torch.no_grad()
    def scores(self, prompts: Prompts) -> NDArray[np.float64]:
        """Scores (P, I) of the item that comes after each history."""
        history = prompts.history_NH[:, -self.window :]
        item_PW, last_P = left_packed(history, history >= 0), (history >= 0).sum(1) - 1
        states_PWD = self(torch.from_numpy(item_PW))
        return (states_PWD[torch.arange(len(item_PW)), torch.from_numpy(last_P)] @ self.item_ID.T).double().numpy()


def train_sasrec(
    dataset: Dataset,
    validation: Prompts,
    config: SasRecConfig,
    seed: int,
    on_epoch: Callable[[int], None] = lambda epoch: None,
) -> tuple[SasRec, int]:
    """A model trained on the train split, on the CPU, with the weights of its best look at the validation prompts; and the
    epoch of that look. What is random is drawn from `seed`.

    Raises:
        TrainError: the loss is not finite.
    """
    part = sample_prompts(validation, config.validation_prompts, seed, "sasrec validation prompts")
    windows = Windows(dataset, config.window + 1, config.batch, derive_seed(seed, "sasrec"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "sasrec"))
        model = SasRec(dataset.n_items, config)
        optimiser = torch.optim.Adam(model.parameters(), lr=config.learning_rate, betas=_BETAS)
        best, best_epoch, kept = -1.0, 0, model.state_dict()
        for epoch in range(1, config.epochs + 1):
            model.train()
            for step in range(windows.steps_an_epoch):
                _descend(model, optimiser, windows.step((epoch - 1) * windows.steps_an_epoch + step + 1), config.loss)
            model.eval()
            on_epoch(epoch)
            if epoch % config.evaluate_every and epoch < config.epochs:
                continue
            found = rank_metrics(model.scores, part, seen_filter=False)["ndcg@10"]
            if found > best:
                best, best_epoch = found, epoch
                kept = {name: weight.clone() for name, weight in model.state_dict().items()}
            elif epoch - best_epoch >= config.patience * config.evaluate_every:
                break
    model.load_state_dict(kept)
    return model.eval(), best_epoch


def _descend(model: SasRec, optimiser: torch.optim.Optimizer, window_BW: NDArray[np.int64], loss: str) -> None:
    """One step on the mean loss over the items that have one before them."""
    optimiser.zero_grad()
    total = int(((window_BW >= 0).sum(1) - 1).sum())
    for part in layouts(window_BW):
        if part.shape[1] < 2:
            continue
        items = torch.from_numpy(part)
        after = items[:, 1:]
        real = after >= 0
        states_ND, target_N = model(items[:, :-1])[real], after[real]
        if loss == "softmax":
            value = functional.cross_entropy(states_ND @ model.item_ID.T, target_N, reduction="sum")
        else:
            other_N = torch.randint(len(model.item_ID), target_N.shape)
            other_N = torch.where(other_N == target_N, (other_N + 1) % len(model.item_ID), other_N)
            hit_N, miss_N = ((states_ND * model.item_ID[item]).sum(1) for item in (target_N, other_N))
            value = -(functional.logsigmoid(hit_N) + functional.logsigmoid(-miss_N)).sum()
        if not torch.isfinite(value):
            raise TrainError("SasRecConfig.learning_rate: the loss is not finite; lower it")
        (value / max(total, 1)).backward()
    optimiser.step()
