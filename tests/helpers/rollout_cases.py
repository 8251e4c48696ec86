"""Worlds for the tests of the samplers: a tempered policy by enumeration, and a vocabulary with words beside the SIDs."""

import copy

import numpy as np
import torch
from sid_world import enumerated, tiny_catalog, tiny_model, tiny_prompts

from recast_sim.catalog import Catalog
from recast_train.model import PromptTokens, SidModel

SIZES = [(4, 3, 5), (6, 4), (20,), (2, 3, 2, 3)]
WORDS = 6


def world(sizes: tuple[int, ...], prompts: int = 3) -> tuple[Catalog, SidModel, PromptTokens]:
    catalog = tiny_catalog(min(20, int(np.prod(sizes))), sizes)
    return catalog, tiny_model(catalog), tiny_prompts(catalog, prompts)


def tempered(model: SidModel, prompts: PromptTokens, temperature: float) -> np.ndarray:
    """Log-probabilities (P, Y, L) by a plain forward of a model whose output projection is divided by the temperature."""
    cooled = copy.deepcopy(model)
    with torch.no_grad():
        cooled.lm.lm_head.weight.div_(temperature)
    return enumerated(cooled, prompts)


def small_world(leaves: int = 8) -> tuple[SidModel, PromptTokens, np.ndarray]:
    """A trie of three levels with few leaves, one prompt, and the leaves' probabilities (Y,)."""
    catalog = tiny_catalog(leaves, (3, 2, 3))
    model, prompts = tiny_model(catalog, scale=6.0), tiny_prompts(catalog, 5).take(torch.tensor([4]))
    return model, prompts, np.exp(enumerated(model, prompts)[0].sum(1))


def wordy_world(prompts: int = 3) -> tuple[SidModel, PromptTokens]:
    """A model with `WORDS` more tokens after those of the SIDs; the last of them are 14 .. 19."""
    _, model, tokens = world((4, 3, 5), prompts)
    vocabulary = model.lm.lm_head.weight.shape[0] + WORDS
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model.lm.resize_token_embeddings(vocabulary, mean_resizing=False)
        for table in (model.lm.lm_head.weight, model.lm.get_input_embeddings().weight):
            table[-WORDS:] = torch.randn(WORDS, table.shape[1]) * 0.3
    return model.eval(), tokens
