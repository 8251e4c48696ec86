"""A tiny catalog, model and prompts for the tests of the real trainer."""

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from recast_sim.catalog import Catalog, synthetic_codes
from recast_train.data import Dataset, Prompts
from recast_train.model import ModelConfig, PromptTokens, SidModel, build_model, tokenise_histories

TINY = ModelConfig(hidden=16, layers=2, heads=2, feed_forward=24, dropout=0.0, attention_dropout=0.0)


def tiny_catalog(items: int = 20, sizes: tuple[int, ...] = (4, 3, 5), seed: int = 0) -> Catalog:
    return Catalog.from_codes(synthetic_codes(items, sizes, np.random.default_rng(seed)), sizes)


def tiny_model(catalog: Catalog, seed: int = 0, scale: float = 8.0) -> SidModel:
    """A model whose weights are scaled up, so that its softmaxes are far from uniform."""
    model = build_model(catalog, TINY, seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" not in name:
                weight.mul_(scale)
    return model


def histories(catalog: Catalog, prompts: int, window: int = 5, seed: int = 0) -> np.ndarray:
    """Random histories of 0 to `window` items, (P, window), padded on the left."""
    rng = np.random.default_rng(seed)
    length = np.resize(np.arange(window, -1, -1), prompts)
    items = rng.integers(0, catalog.items, (prompts, window))
    return np.where(np.arange(window) >= window - length[:, None], items, -1)


def tiny_prompts(catalog: Catalog, prompts: int, window: int = 5, seed: int = 0) -> PromptTokens:
    return tokenise_histories(histories(catalog, prompts, window, seed), catalog)


def questions(catalog: Catalog, prompts: int, seed: int = 0) -> Prompts:
    """Prompts with targets; the whole past is the window."""
    history, rng = histories(catalog, prompts, seed=seed), np.random.default_rng(seed + 1)
    seen = [row[row >= 0] for row in history]
    offset = np.concatenate([[0], np.cumsum([len(row) for row in seen])])
    target = rng.integers(0, catalog.items, prompts)
    return Prompts(history, target[:, None], np.arange(prompts) // 2, offset, np.concatenate(seen))


def tiny_dataset(users: int = 24, items: int = 20, seed: int = 0) -> Dataset:
    """Users who walk the catalog in steps of one, so that the next item can be learnt."""
    rng = np.random.default_rng(seed)
    length = rng.integers(10, 16, users)
    offset = np.concatenate([[0], np.cumsum(length)])
    item = np.concatenate([(rng.integers(items) + np.arange(n)) % items for n in length])
    names = [f"i{i}" for i in range(items)], [f"u{u}" for u in range(users)]
    return Dataset(*names, [], item, offset, length - 2, length - 1)


@torch.no_grad()
def dense_logprobs(model: SidModel, prompt: Tensor) -> np.ndarray:
    """Log-probabilities (Y, L) of all leaves after one unpadded prompt: a plain forward of transformers, no mask of ours."""
    tokens_YT = torch.cat([prompt.expand(model.nodes[-1], -1), model.table("leaf_tokens")], 1)
    logits_YTV = model.lm(input_ids=tokens_YT).logits
    found = np.empty((model.nodes[-1], model.levels))
    for leaf, path in enumerate(model.table("leaf_nodes").tolist()):
        for level, (parent, child) in enumerate(zip([0, *path[:-1]], path, strict=True)):
            children = list(range(*model.table("first_child", level)[parent : parent + 2].tolist()))
            legal = model.table("code_token", level)[model.table("node_code", level + 1)[children]]
            steps = logits_YTV[leaf, len(prompt) - 1 + level, legal].log_softmax(0)
            found[leaf, level] = steps[children.index(child)]
    return found


def enumerated(model: SidModel, prompts: PromptTokens) -> np.ndarray:
    """`dense_logprobs` of each prompt, (P, Y, L)."""
    rows = range(len(prompts.tokens_PT))
    return np.stack([dense_logprobs(model, prompts.tokens_PT[row][prompts.real_PT[row]]) for row in rows])


def interactions(seed: int, shape: tuple[int, int] = (30, 20)) -> sparse.csr_array:
    """A random binary matrix of users and items."""
    return sparse.csr_array((np.random.default_rng(seed).random(shape) < 0.3).astype(np.float64))
