"""What some constructors need beyond rewards, scores and anchors: codes, references, entropies, a running baseline a prompt."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from recast_sim.runs.model_state import load_tensors, save_tensors
from recast_sim.signal import Constructor
from recast_sim.signal.groups import ScoredGroups, level_codes
from recast_sim.world.environment import Environment
from recast_sim.world.policy import TreePolicy


class ConstructorInputs:
    """Supplies the arguments that a constructor lists in `needs`, and keeps the running mean reward of each train prompt.

    A prompt's baseline is the mean reward of its earlier rollouts, 0 before the first.
    """

    def __init__(self, constructor: Constructor, reference: TreePolicy, environment: Environment) -> None:
        self.constructor, self.names = constructor, constructor.needs
        self.reference, self.environment = reference, environment
        self.reward_N, self.count_N = torch.zeros(2, len(environment.train.x_ND))

    @torch.no_grad()
    def supply(self, groups: ScoredGroups, policy: TreePolicy) -> ScoredGroups:
        """The groups with what the constructor needs in their `extras`; `policy` has drawn them."""
        train = self.environment.train
        x_PD, rewarded_PR = train.x_ND[groups.prompt_P], train.reward_NR[groups.prompt_P]
        sources: dict[str, Callable[[], Tensor]] = {
            "baseline_P": lambda: self.reward_N[groups.prompt_P] / self.count_N[groups.prompt_P].clamp(min=1),
            "reference_logprob_PG": lambda: self.reference.path_logprobs(x_PD, groups.leaf_PG).sum(2),
            "anchor_reference_logprob_P": lambda: self.reference.path_logprobs(x_PD, groups.anchor_leaf_P[:, None]).sum((1, 2)),
            "entropy_PGL": lambda: path_entropies(policy, x_PD, groups.leaf_PG),
        }
        extras = {name: sources[name]() for name in self.names if name in sources}
        codes_YL = torch.from_numpy(self.environment.catalog.leaf_codes)
        extras |= level_codes(self.constructor, codes_YL, groups.leaf_PG, rewarded_PR, groups.anchor_leaf_P)
        return replace(groups, extras={**groups.extras, **extras})

    def learn(self, groups: ScoredGroups) -> None:
        """Count the groups' rewards towards their prompts' baselines."""
        if "baseline_P" in self.names:
            self.reward_N.index_add_(0, groups.prompt_P, (groups.rewards_PG * groups.valid_PG).sum(1))
            self.count_N.index_add_(0, groups.prompt_P, groups.valid_PG.sum(1).float())

    def save(self, folder: Path) -> None:
        """Write the baselines into a checkpoint folder, where the constructor has any."""
        if "baseline_P" in self.names:
            save_tensors(folder / "baseline.safetensors", {"reward": self.reward_N, "count": self.count_N})

    def load(self, folder: Path | None) -> None:
        """Read what `save` wrote; nothing where there is no checkpoint."""
        if folder is not None and "baseline_P" in self.names:
            table = load_tensors(folder / "baseline.safetensors", folder)
            self.reward_N, self.count_N = table["reward"], table["count"]


def path_entropies(policy: TreePolicy, x_PD: Tensor, leaf_PR: Tensor) -> Tensor:
    """Entropy (nats) of the policy's choice at each level on the way to given leaves, (P, R, L)."""
    h_PH, nodes_PRL = policy.encode(x_PD), policy.get_buffer("leaf_nodes")[leaf_PR]
    parent_PR, levels = torch.zeros_like(leaf_PR), []
    for level in range(policy.levels):
        logprob_PRB = policy.child_logprobs(h_PH, level, parent_PR)
        levels.append(torch.special.entr(logprob_PRB.exp()).sum(2))
        parent_PR = nodes_PRL[..., level]
    return torch.stack(levels, 2)
