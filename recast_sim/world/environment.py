"""The sparse-hit environment: contexts, a true preference over a catalog, prompts with targets: train, validation, held out.

Every quantity is a parameter. Axes: I items, D context dimensions, N prompts, T targets of a prompt.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

import numpy as np
import torch
from pydantic import Field, NonNegativeFloat, PositiveInt
from torch import Tensor

from recast_sim.catalog import Catalog, synthetic_codes, zipf_popularity
from recast_sim.configio import Checked
from recast_sim.runs import derive_seed


class WorldError(ValueError):
    """A bad knob of the environment; the message names the field, the value and the fix."""


@dataclass(frozen=True)
class EnvironmentConfig(Checked, error=WorldError):
    """Knobs of the generative model.

    Attributes:
        items, sizes: items in a random tree with these codes a level.
        dim: dimensions of contexts and item vectors.
        alpha: Zipf exponent of the items' popularity.
        beta: how sharply preference follows relevance: the standard deviation of the log preference over items.
        rho: structural informativeness, in [0, 1]: at 1 an item's vector is the sum of its path's node vectors, at 0
            siblings have nothing in common and the structural score is noise.
        targets: targets of a prompt, drawn from the true preference without replacement.
        train_prompts, heldout_prompts: numbers of prompts; train prompts keep their targets for good.
        validation_prompts: prompts apart from both, on which the base policy's training is stopped and temperatures are fitted.
        blur: standard deviation of the noise on what the policy sees of a context, relative to the context's own.
    """

    items: PositiveInt = 450
    sizes: tuple[int, ...] = (16, 16, 16)
    dim: PositiveInt = 16
    alpha: float = 0.0
    beta: NonNegativeFloat = 1.0
    rho: Annotated[float, Field(ge=0, le=1)] = 0.7
    targets: PositiveInt = 1
    train_prompts: PositiveInt = 8192
    heldout_prompts: PositiveInt = 2048
    validation_prompts: PositiveInt = 1024
    blur: NonNegativeFloat = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.targets > self.items:
            raise WorldError(f"EnvironmentConfig.targets: {self.targets} must be at most {self.items} (items)")


@dataclass(frozen=True)
class WorldPrompts:
    """Prompts of one split: contexts `x_ND` as the policy sees them, `target_NT` leaves, `context_ND` without blur."""

    x_ND: Tensor
    target_NT: Tensor
    context_ND: Tensor

    def first(self, count: int) -> "WorldPrompts":
        """The first `count` prompts (all, where there are fewer)."""
        return WorldPrompts(self.x_ND[:count], self.target_NT[:count], self.context_ND[:count])


@dataclass(frozen=True)
class Environment:
    """A drawn world. `item_ID` are item vectors, `log_popularity_I` the log Zipf weights."""

    config: EnvironmentConfig
    catalog: Catalog
    item_ID: Tensor
    log_popularity_I: Tensor
    train: WorldPrompts
    heldout: WorldPrompts
    validation: WorldPrompts

    def log_preference(self, context_ND: Tensor) -> Tensor:
        """The true log preference over items, (N, I)."""
        return _log_preference(self.config.beta, context_ND, self.item_ID, self.log_popularity_I)

    @cached_property
    def heldout_preference_NY(self) -> Tensor:
        """Probability that each leaf is the target of each held-out prompt, for one target, (N, leaves)."""
        preference = self.log_preference(self.heldout.context_ND).exp()
        leaf = torch.from_numpy(self.catalog.leaf_of_item_I)
        return preference.new_zeros(len(preference), self.catalog.leaves).index_add(1, leaf, preference)

    @cached_property
    def heldout_gain_NY(self) -> Tensor:
        """What each leaf is worth as an answer to each held-out prompt, (N, leaves): the probability that it is the one target,
        or, with several targets, 1 if it is one."""
        if self.config.targets == 1:
            return self.heldout_preference_NY
        return torch.zeros(len(self.heldout.x_ND), self.catalog.leaves).scatter(1, self.heldout.target_NT, 1.0)


def make_environment(config: EnvironmentConfig, seed: int) -> Environment:
    """Draw a world from its knobs and a seed."""
    rng = np.random.default_rng(derive_seed(seed, "environment"))
    catalog = Catalog.from_codes(synthetic_codes(config.items, config.sizes, rng), config.sizes)
    popularity = torch.from_numpy(np.log(zipf_popularity(config.items, config.alpha, rng))).float()
    item = torch.from_numpy(_item_vectors(catalog, config, rng)).float()
    counts = (config.train_prompts, config.heldout_prompts, config.validation_prompts)
    train, heldout, validation = (_prompts(config, item, popularity, catalog, count, rng) for count in counts)
    return Environment(config, catalog, item, popularity, train, heldout, validation)


def _item_vectors(catalog: Catalog, config: EnvironmentConfig, rng: np.random.Generator) -> np.ndarray:
    """z_i of unit variance: sqrt(rho) * path sum (variance halves from level to level) + sqrt(1 - rho) * own noise."""
    share = 0.5 ** np.arange(catalog.levels)
    path = np.zeros((config.items, config.dim))
    nodes_IL = catalog.leaf_nodes[catalog.leaf_of_item_I]
    for level, variance in enumerate(share / share.sum()):
        node_vectors = rng.standard_normal((len(catalog.node_code[level + 1]), config.dim))
        path += np.sqrt(variance) * node_vectors[nodes_IL[:, level]]
    return np.sqrt(config.rho) * path + np.sqrt(1 - config.rho) * rng.standard_normal(path.shape)


def _prompts(
    config: EnvironmentConfig, item: Tensor, popularity: Tensor, catalog: Catalog, count: int, rng: np.random.Generator
) -> WorldPrompts:
    context = torch.from_numpy(rng.standard_normal((count, config.dim))).float()
    preference = _log_preference(config.beta, context, item, popularity)
    gumbel = torch.from_numpy(rng.gumbel(size=preference.shape)).float()
    chosen_NT = (preference + gumbel).topk(config.targets, dim=1).indices
    leaf = torch.from_numpy(catalog.leaf_of_item_I)[chosen_NT]
    noise = torch.from_numpy(rng.standard_normal(context.shape)).float()
    return WorldPrompts(context + config.blur * noise, leaf, context)


def _log_preference(beta: float, context_ND: Tensor, item_ID: Tensor, popularity_I: Tensor) -> Tensor:
    relevance = context_ND @ item_ID.T / context_ND.shape[1] ** 0.5
    return (popularity_I + beta * relevance).log_softmax(1)


def best_possible(environment: Environment) -> dict[str, float]:
    """What a policy that knew the true preference could reach on held-out prompts, and the preference's entropy (nats).

    `pass_at_1` is the mean over prompts of the true preference's largest value (for one target; with several, the share of
    prompts whose most preferred item is among the targets).
    """
    preference = environment.log_preference(environment.heldout.context_ND)
    if environment.config.targets == 1:
        best = preference.amax(1).exp().mean()
    else:
        leaf = torch.from_numpy(environment.catalog.leaf_of_item_I)[preference.argmax(1)]
        best = (leaf[:, None] == environment.heldout.target_NT).any(1).float().mean()
    entropy = -(preference.exp() * preference).sum(1).mean()
    return {"pass_at_1": float(best), "entropy": float(entropy)}
