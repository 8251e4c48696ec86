"""What verl and TRL compute from the rewards of a batch, for `construction.py`. N rewards, G of each prompt in a row."""

from collections import defaultdict
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

TRL_EXPRESSIONS = (
    "torch.isnan(rewards_per_func).all(dim=1)",
    "(rewards_per_func * self.reward_weights.to(device).unsqueeze(0)).nansum(dim=1)",
    "torch.nanmean(rewards.view(-1, num_generations), dim=1)",
    "nanstd(rewards.view(-1, num_generations), dim=1)",
    "repeat_interleave(num_generations, dim=0)",
    "advantages / (std_rewards + 1e-4)",
    "torch.isclose(std_rewards, torch.zeros_like(std_rewards))",
    "torch.nan_to_num(advantages, nan=0.0)",
)
Advantages = Callable[[Tensor, np.ndarray], Tensor]


def verl() -> dict[str, Advantages]:
    """verl's own functions from rewards (N,) and prompt ids to advantages (N,); nothing where verl is not installed."""
    if find_spec("verl") is None:
        return {}
    from verl.trainer.ppo import core_algos  # pyright: ignore[reportMissingImports]

    def of(function: Callable[..., tuple[Tensor, Tensor]]) -> Advantages:
        return lambda rewards_N, ids_N: function(rewards_N[:, None], torch.ones(len(rewards_N), 1), ids_N)[0][:, 0]

    return {
        "verl's loop": of(core_algos.compute_grpo_outcome_advantage),
        "verl vectorised": of(core_algos.compute_grpo_vectorized_outcome_advantage),
    }


def loop_by_id(rewards_N: Tensor, ids_N: np.ndarray) -> Tensor:
    """Our own loop over the rows with a dict of prompts, of the same shape as verl's: its stand-in where it is missing."""
    groups: dict[str, list[Tensor]] = defaultdict(list)
    for reward, key in zip(rewards_N, ids_N, strict=True):
        groups[key].append(reward)
    stacked = {key: torch.stack(rows) for key, rows in groups.items()}
    moments = {key: (rows.mean(), rows.std()) for key, rows in stacked.items()}
    advantages = rewards_N.clone()
    for row, key in enumerate(ids_N):
        mean, std = moments[key]
        advantages[row] = (rewards_N[row] - mean) / (std + 1e-6)
    return advantages


def trl() -> tuple[dict[str, Callable[[Tensor, int], Tensor]], str]:
    """TRL's lines as functions from rewards (N, 1) and G to advantages (N,); without them the reason why."""
    spec = find_spec("trl")
    if spec is None or spec.origin is None:
        return {}, "TRL is not installed and was left out."
    source = (Path(spec.origin).parent / "trainer" / "grpo_trainer.py").read_text()
    if missing := [expression for expression in TRL_EXPRESSIONS if expression not in source]:
        return {}, f"TRL was left out: the installed version does not hold {missing[0]!r} any more."
    from trl.trainer.utils import nanstd

    def normalised(rewards_N: Tensor, G: int) -> tuple[Tensor, Tensor]:
        grouped = rewards_N.view(-1, G)
        mean = torch.nanmean(grouped, dim=1).repeat_interleave(G, dim=0)
        std = nanstd(grouped, dim=1).repeat_interleave(G, dim=0)
        return (rewards_N - mean) / (std + 1e-4), std

    def whole(rewards_NF: Tensor, G: int) -> Tensor:
        unscorable = torch.isnan(rewards_NF).all(dim=1)
        total = (rewards_NF * torch.ones(rewards_NF.shape[1]).unsqueeze(0)).nansum(dim=1)
        total[unscorable] = torch.nan
        advantages, std = normalised(total, G)
        torch.isclose(std, torch.zeros_like(std))
        return torch.nan_to_num(advantages, nan=0.0)

    def alone(rewards_NF: Tensor, G: int) -> Tensor:
        return torch.nan_to_num(normalised(rewards_NF[:, 0], G)[0], nan=0.0)

    return {"TRL": whole, "TRL, advantages alone": alone}, ""
