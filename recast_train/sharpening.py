"""Learning told from sharpening on real prompts: what no temperature buys, and what one does.

The definitions are those of `recast_sim.world.learning`, with one difference: a temperature divides the logits of every level,
since pi^(1/T) over a large catalog cannot be enumerated. Axis letters: N prompts, P prompts of a batch, M targets, G draws, B
children of a node, L levels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recast_sim.catalog import Catalog
from recast_sim.matched_temperature import WIDEST, matching_temperature
from recast_sim.runs import derive_seed
from recast_sim.temperatures import Choices, best_numbers
from recast_train.data import Prompts
from recast_train.evaluate import EvaluationConfig, score_prompts
from recast_train.model import PromptTokens, SidModel
from recast_train.model.shared_prefixes import prefix_states
from recast_train.model.shared_prompts import PromptCache, sid_prefixes
from recast_train.rollout.iid import sample_iid
from recast_train.rollout.rollouts import Part
from recast_train.rollout.targets import target_leaves

_DRAWS = 16  # a prompt, behind a mean entropy
_TOLERANCE = 1e-3  # of the log of a matched temperature
_LEAST = float(np.exp(-WIDEST))
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Seen:
    """A model on some prompts, at any temperature.

    Attributes:
        levels: of each level log-probability of the children of the target's parent and of the target's own child, for each of
            M targets, (M, B, 1) and (M, 1), float64.
        prompt_M: the prompt of each target.
        seed: of the draws behind entropies, the same at every temperature.
    """

    model: SidModel
    catalog: Catalog
    prompts: Prompts
    config: EvaluationConfig
    levels: list[Choices]
    prompt_M: Tensor
    seed: int

    @classmethod
    def of(cls, model: SidModel, catalog: Catalog, prompts: Prompts, config: EvaluationConfig, seed: int) -> "Seen":
        leaf_NT = target_leaves(catalog, prompts)
        prompt_M = (leaf_NT >= 0).nonzero()[:, 0]
        return cls(model, catalog, prompts, config, _choices(model, prompts, leaf_NT, config.batch), prompt_M, seed)

    def target_logprob(self, inverse_L: Sequence[float]) -> Tensor:
        """Log-probability of each target with the logits of level l times `inverse_L[l]`, (M,)."""
        parts = []
        for choices, b in zip(self.levels, inverse_L, strict=True):
            scores = [(options * b)[..., 0].nan_to_num(nan=-torch.inf) for options, _ in choices]
            own = torch.cat([chosen[:, 0] * b for _, chosen in choices])
            parts.append(own - torch.cat([score_MB.logsumexp(1) for score_MB in scores]))
        return torch.stack(parts).sum(0)

    def pass_at_1(self, temperature: float = 1.0) -> Floats:
        """Probability that one draw at a temperature is any of a prompt's targets, (N,)."""
        probability_M = self.target_logprob([1 / temperature] * len(self.levels)).exp()
        return self._by_prompt(probability_M).clamp(max=1.0).numpy()

    def log_likelihood(self, inverse_L: Sequence[float]) -> Floats:
        """Mean log-probability of a prompt's targets, (N,), nats."""
        logprob_M = self.target_logprob(inverse_L)
        return (self._by_prompt(logprob_M) / self._by_prompt(torch.ones_like(logprob_M))).numpy()

    @torch.no_grad()
    def entropy(self, temperature: float = 1.0) -> float:
        """Mean entropy of the distribution over items, nats: the levels' entropies on the way to draws from it."""
        total = 0.0
        for start in range(0, len(self.prompts), self.config.batch):
            chunk = self.prompts.take(slice(start, start + self.config.batch))
            generator = torch.Generator().manual_seed(derive_seed(self.seed, "entropy", start))
            cache, levels = PromptCache(self.model, _tokens(self.model, chunk)), []
            sample_iid(self.model, cache, _DRAWS, generator, temperature, Part(0, len(chunk)), watch=levels.append)
            total += sum(float(torch.special.entr(level.exp()).sum(2).mean(1).double().sum()) for level in levels)
        return total / len(self.prompts)

    def best_temperature(self) -> float:
        """The one T at which these prompts' targets are likeliest."""
        ((b,), _) = best_numbers([chunk for choices in self.levels for chunk in choices], _LEAST)
        return 1 / b

    def best_levels(self) -> tuple[float, ...]:
        """The inverse temperatures of the levels at which these prompts' targets are likeliest."""
        return tuple(best_numbers(choices, _LEAST)[0][0] for choices in self.levels)

    def _by_prompt(self, value_M: Tensor) -> Tensor:
        return torch.zeros(len(self.prompts), dtype=value_M.dtype).index_add(0, self.prompt_M, value_M)


def learning_scores(model: Seen, start: Seen, validation: Seen) -> dict[str, Floats | float]:
    """Figures of a model on test prompts: of each prompt (N,), or one number where it is of all prompts together.

    - `log_likelihood` of a target, nats; `entropy`, nats.
    - `temperature`: the T that fits the validation prompts' targets best; `pass_at_1_sampled_fitted` is at it.
    - `level_weight_l`: inverse temperatures of the levels that fit them best; `calibrated_log_likelihood` and figures that end
      in `_levels` are at them.
    - `pass_at_1_sampled_at_start_entropy`: at the T where the mean entropy is the start's.
    - `sharpened`: what the start's sampled Pass@1 gains at the T where its entropy is the model's; `learned`: the rest of the
      model's gain. A model that is its start at another temperature has learned 0.

    Args:
        model, start: on the same test prompts.
        validation: the model on validation prompts.
    """
    entropy, fitted, inverse_L = model.entropy(), validation.best_temperature(), validation.best_levels()
    own_N, start_N = model.pass_at_1(), start.pass_at_1()
    cooled_N = start.pass_at_1(matching_temperature(entropy, start.entropy, _TOLERANCE))
    matched = matching_temperature(start.entropy(), model.entropy, _TOLERANCE)
    at_levels = tuple(1 / b for b in inverse_L)
    ranked = score_prompts(model.model, model.catalog, model.prompts, model.config, temperatures=at_levels)
    return {
        "pass_at_1_sampled": own_N,
        "log_likelihood": model.log_likelihood([1.0] * len(inverse_L)),
        "entropy": entropy,
        "temperature": fitted,
        "pass_at_1_sampled_fitted": model.pass_at_1(fitted),
        **{f"level_weight_{level}": b for level, b in enumerate(inverse_L, start=1)},
        "calibrated_log_likelihood": model.log_likelihood(inverse_L),
        **{f"{name}_levels": row for name, row in ranked.metric_rows().items()},
        "pass_at_1_sampled_at_start_entropy": model.pass_at_1(matched),
        "sharpened": cooled_N - start_N,
        "learned": own_N - cooled_N,
    }


def _tokens(model: SidModel, prompts: Prompts) -> PromptTokens:
    return model.vocabulary.encode(prompts.history_NH, chat_P=prompts.chat_N).to(model.device)


@torch.no_grad()
def _choices(model: SidModel, prompts: Prompts, leaf_NT: Tensor, batch: int) -> list[Choices]:
    levels: list[Choices] = [[] for _ in range(model.levels)]
    for start in range(0, len(prompts), batch):
        some = slice(start, start + batch)
        place = (leaf_NT[some] >= 0).nonzero()
        prompt_M, leaf_M = place[:, 0].to(model.device), leaf_NT[some][leaf_NT[some] >= 0].to(model.device)
        hidden_XD, at_ML = prefix_states(model, _tokens(model, prompts.take(some)), sid_prefixes(model, prompt_M, leaf_M))
        nodes_ML = model.table("leaf_nodes")[leaf_M]
        parent_M = torch.zeros_like(leaf_M)
        for level, choices in enumerate(levels):
            logprob_MB = model.child_logprobs(hidden_XD[at_ML[:, level]], level, parent_M).double()
            column_M1 = (nodes_ML[:, level] - model.table("first_child", level)[parent_M])[:, None]
            choices.append((logprob_MB[..., None].cpu(), logprob_MB.gather(1, column_M1).cpu()))
            parent_M = nodes_ML[:, level]
    return levels
