"""What some constructors need beyond rewards, scores and anchors: reference log-probabilities, a running baseline a prompt."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from recast_sim.runs.model_state import save_tensors
from recast_sim.signal import get_constructor
from recast_sim.training.world_groups import Batch
from recast_sim.world.environment import Environment
from recast_sim.world.policy import TreePolicy


class Needs:
    """Supplies the arguments that a constructor lists in `needs`, and keeps the running mean reward of each train prompt.

    A prompt's baseline is the mean reward of its earlier rollouts, 0 before the first.
    """

    def __init__(self, constructor: str, reference: TreePolicy, environment: Environment) -> None:
        self.names = get_constructor(constructor).needs
        self.reference, self.environment = reference, environment
        self.reward_N, self.count_N = torch.zeros(2, len(environment.train.x_ND))

    @torch.no_grad()
    def supply(self, batch: Batch) -> Batch:
        """The batch with what the constructor needs in its `extras`."""
        sources: dict[str, Callable[[Batch], Tensor]] = {
            "baseline_P": lambda b: self.reward_N[b.prompt_P] / self.count_N[b.prompt_P].clamp(min=1),
            "reference_logprob_PG": lambda b: self._reference(b, b.rollouts.leaf_PG),
            "anchor_reference_logprob_P": lambda b: self._reference(b, b.anchor_leaf_P[:, None])[:, 0],
        }
        return replace(batch, extras={name: sources[name](batch) for name in self.names if name in sources})

    def learn(self, batch: Batch) -> None:
        """Count a batch's rewards towards its prompts' baselines."""
        if "baseline_P" in self.names:
            valid = batch.rollouts.valid_PG
            self.reward_N.index_add_(0, batch.prompt_P, (batch.rewards_PG * valid).sum(1))
            self.count_N.index_add_(0, batch.prompt_P, valid.sum(1).float())

    def save(self, folder: Path) -> None:
        """Write the baselines into a checkpoint folder, where the constructor has any."""
        if "baseline_P" in self.names:
            save_tensors(folder / "baseline.safetensors", {"reward": self.reward_N, "count": self.count_N})

    def load(self, folder: Path | None) -> None:
        """Read what `save` wrote; nothing where there is no checkpoint."""
        if folder is not None and "baseline_P" in self.names:
            table = load_file(folder / "baseline.safetensors")
            self.reward_N, self.count_N = table["reward"], table["count"]

    def _reference(self, batch: Batch, leaf_PR: Tensor) -> Tensor:
        return self.reference.path_logprobs(self.environment.train.x_ND[batch.prompt_P], leaf_PR).sum(2)
