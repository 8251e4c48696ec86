"""The sparse-hit environment: contexts, a true preference over a catalog, prompts with targets: train, validation, held out.

Every quantity is a parameter. Axes: I items, D context dimensions, N prompts, T targets of a prompt.
"""

from dataclasses import dataclass, fields, replace
from functools import cached_property
from math import prod
from typing import Annotated

import numpy as np
import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor
from torch.nn.functional import pad

from recast_sim.catalog import Catalog, synthetic_codes, zipf_popularity
from recast_sim.configio import Checked
from recast_sim.errors import RecastError
from recast_sim.field_types import Exponent, Part, Width
from recast_sim.runs import derive_seed


class WorldError(RecastError):
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
        exposure: Zipf exponent of how often an item was shown, in an order of its own: tilts the train prompts' targets (the
            log), not the true preference, on which everything is evaluated.
        label_noise: share of the log's targets that are replaced by an item drawn uniformly.
        reward_knows: share of train prompts whose reward is on `reward_items` items drawn from the true preference without
            replacement; the other prompts' is on the log's own targets. 0: the reward knows what the log does; 1: it knows
            the preference itself.
        reward_items: see `reward_knows`.
        fresh_prompts: train prompts that the base policy is not trained on.
    """

    items: Annotated[int, Field(ge=2, le=200_000)] = 450
    sizes: Annotated[tuple[Annotated[int, Field(ge=1, le=65_536)], ...], Field(min_length=1, max_length=32)] = (16, 16, 16)
    dim: Width = 16
    alpha: Exponent = 0.0
    beta: Annotated[float, Field(ge=0, le=1000)] = 1.0
    rho: Part = 0.7
    targets: PositiveInt = 1
    train_prompts: PositiveInt = 8192
    heldout_prompts: PositiveInt = 2048
    validation_prompts: PositiveInt = 1024
    blur: Annotated[float, Field(ge=0, le=1000)] = 0.0
    exposure: Annotated[float, Field(ge=0, le=10)] = 0.0
    label_noise: Part = 0.0
    reward_knows: Part = 0.0
    reward_items: PositiveInt = 4
    fresh_prompts: NonNegativeInt = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.items > (room := prod(self.sizes)):
            raise WorldError(f"EnvironmentConfig.items: {self.items} must be at most {room}, the leaves of sizes {self.sizes}")
        for name in ("targets", "reward_items"):
            if (number := getattr(self, name)) > self.items:
                raise WorldError(f"EnvironmentConfig.{name}: {number} must be at most {self.items} (items)")

    @property
    def reward_is_the_log(self) -> bool:
        """Whether every prompt's reward is on the log's own targets."""
        return self.reward_knows == 0


@dataclass(frozen=True)
class WorldPrompts:
    """Prompts of one split.

    Attributes:
        x_ND: contexts as the policy sees them; `context_ND` without blur.
        target_NT: leaves of the targets, which supervision and anchors know.
        reward_NR: leaves that are rewarded, -1 on the right where a prompt has fewer; the targets, but where the reward knows
            more.
    """

    x_ND: Tensor
    target_NT: Tensor
    context_ND: Tensor
    reward_NR: Tensor

    def first(self, count: int) -> "WorldPrompts":
        """The first `count` prompts (all, where there are fewer)."""
        return self.take(slice(count))

    def take(self, rows: slice | Tensor) -> "WorldPrompts":
        """Some of the prompts."""
        return WorldPrompts(*(getattr(self, field.name)[rows] for field in fields(self)))

    def by_target(self) -> "WorldPrompts":
        """Each prompt once for each of its targets, one after the other, with that one as its only target."""
        rows = torch.arange(len(self.x_ND)).repeat_interleave(self.target_NT.shape[1])
        return replace(self.take(rows), target_NT=self.target_NT.reshape(-1, 1))

    def joined(self, other: "WorldPrompts") -> "WorldPrompts":
        """These prompts and then others of the same kind."""
        pairs = ((getattr(self, field.name), getattr(other, field.name)) for field in fields(self))
        return WorldPrompts(*(torch.cat(pair) for pair in pairs))


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
    fresh: WorldPrompts

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
    exposure = torch.from_numpy(np.log(zipf_popularity(config.items, config.exposure, _rng(seed, "exposure")))).float()
    world = _World(config, catalog, item, popularity, exposure)
    train, heldout, validation, fresh = (
        world.prompts(count, rng, _rng(seed, name) if name else None)
        for count, name in (
            (config.train_prompts, "train log"),
            (config.heldout_prompts, ""),
            (config.validation_prompts, ""),
            (config.fresh_prompts, "fresh log"),
        )
    )
    return Environment(config, catalog, item, popularity, train, heldout, validation, fresh)


def _rng(seed: int, name: str) -> np.random.Generator:
    """Chance of its own, so that a knob leaves all else of a world as it is."""
    return np.random.default_rng(derive_seed(seed, name))


def _item_vectors(catalog: Catalog, config: EnvironmentConfig, rng: np.random.Generator) -> np.ndarray:
    """z_i of unit variance: sqrt(rho) * path sum (variance halves from level to level) + sqrt(1 - rho) * own noise."""
    share = 0.5 ** np.arange(catalog.levels)
    path = np.zeros((config.items, config.dim))
    nodes_IL = catalog.leaf_nodes[catalog.leaf_of_item_I]
    for level, variance in enumerate(share / share.sum()):
        node_vectors = rng.standard_normal((len(catalog.node_code[level + 1]), config.dim))
        path += np.sqrt(variance) * node_vectors[nodes_IL[:, level]]
    return np.sqrt(config.rho) * path + np.sqrt(1 - config.rho) * rng.standard_normal(path.shape)


@dataclass(frozen=True)
class _World:
    """What prompts are drawn from."""

    config: EnvironmentConfig
    catalog: Catalog
    item_ID: Tensor
    log_popularity_I: Tensor
    log_exposure_I: Tensor

    def prompts(self, count: int, rng: np.random.Generator, log: np.random.Generator | None) -> WorldPrompts:
        """Prompts with targets from the true preference, or, with the chance of a `log`, as the log has them."""
        config, leaf_of_item = self.config, torch.from_numpy(self.catalog.leaf_of_item_I)
        context = torch.from_numpy(rng.standard_normal((count, config.dim))).float()
        preference = _log_preference(config.beta, context, self.item_ID, self.log_popularity_I)
        seen = preference if log is None else preference + self.log_exposure_I
        chosen_NT = (seen + _gumbel(rng, preference.shape)).topk(config.targets, dim=1).indices
        noise = torch.from_numpy(rng.standard_normal(context.shape)).float()
        if log is not None and config.label_noise:
            wrong_NT = torch.from_numpy(log.random(chosen_NT.shape) < config.label_noise)
            chosen_NT = torch.where(wrong_NT, torch.from_numpy(log.integers(config.items, size=chosen_NT.shape)), chosen_NT)
        target_NT = leaf_of_item[chosen_NT]
        reward_NR = target_NT
        if log is not None and not config.reward_is_the_log:
            knows_N1 = torch.from_numpy(log.random((count, 1)) < config.reward_knows)
            clean_NR = leaf_of_item[(preference + _gumbel(log, preference.shape)).topk(config.reward_items, dim=1).indices]
            width = max(config.targets, config.reward_items)
            clean_NR, own_NR = (pad(table, (0, width - table.shape[1]), value=-1) for table in (clean_NR, target_NT))
            reward_NR = torch.where(knows_N1, clean_NR, own_NR)
        return WorldPrompts(context + config.blur * noise, target_NT, context, reward_NR)


def _gumbel(rng: np.random.Generator, shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(rng.gumbel(size=shape)).float()


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
