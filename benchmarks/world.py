"""What the benchmarks of the trainer measure on: random catalogs, models and prompts of given sizes."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from recast_sim.catalog import Catalog, synthetic_codes
from recast_train.model import ModelConfig, PromptTokens, SidModel, build_model

GROUP, HISTORY = 32, 16  # rollouts of a group, items of a prompt
STEP_ITEMS, STEP_SIZES = 4096, (64, 64, 64)  # the catalog of a step
SCALE = 8.0  # of the output matrix: its softmax is far from uniform, and no two beams are nearly tied


def random_catalog(items: int, sizes: Sequence[int]) -> Catalog:
    """Distinct random SIDs, an item a leaf."""
    return Catalog.from_codes(synthetic_codes(items, sizes, np.random.default_rng(0)), sizes)


def random_model(catalog: Catalog, config: ModelConfig, rows: int = 0) -> SidModel:
    """A model over the catalog's tokens and further ones up to `rows`, which stand for text; in evaluation mode."""
    model = build_model(catalog, config, seed=0)
    if rows > model.vocabulary.size:
        model.lm.resize_token_embeddings(rows, mean_resizing=False)
    with torch.no_grad():
        model.lm.get_output_embeddings().weight.mul_(SCALE)
    return model


def random_histories(catalog: Catalog, prompts: int, items: int) -> np.ndarray:
    """Item indices (P, items): prompts of equal length."""
    return np.random.default_rng(1).integers(0, catalog.items, (prompts, items))


def random_prompts(model: SidModel, catalog: Catalog, prompts: int, items: int) -> PromptTokens:
    """`random_histories` as tokens, 1 + L * items a prompt."""
    return model.vocabulary.encode(random_histories(catalog, prompts, items))


def flops(way: Callable[[], object]) -> int:
    """FLOPs of the matrix products of one call, those of padding too, as torch counts them."""
    with FlopCounterMode(display=False) as counter:
        way()
    return counter.get_total_flops()
