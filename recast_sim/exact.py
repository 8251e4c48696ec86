"""The exact instrument: the gradient of sampled Pass@1 by enumeration, and what a constructor's estimate makes of it.

At the on-policy point a group's estimate is a sum over its kept rows of coefficient times score vector, s_y = grad log pi(y).
Norms need only the Gram matrix of the score vectors, which for a linear tree policy is known in closed form: no gradient of a
single group is ever materialised. Axes: P prompts, R rows, Y leaves, L levels.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from recast_sim.batches import Batch, kept_leaves, roll_out, signal_of
from recast_sim.environment import Environment
from recast_sim.policy import TreePolicy
from recast_sim.seeding import torch_generator
from recast_sim.signal import Regime, Signal, SignalConfig


@dataclass(frozen=True)
class GradientReport:
    """A constructor's estimate on i.i.d. groups at a given policy, against the exact gradient of sampled Pass@1.

    Attributes:
        learnable: share of groups with a non-zero advantage.
        update_width: kept rows a group.
        variance: E||g||^2 - ||E g||^2 of the estimate g of one group of a random prompt, relative to ||E g||^2: it does not
            change when the estimate is rescaled. None, like the cosine, where the sample does not tell E g from 0.
        cosine: between E g and the exact gradient; 1 means unbiased up to a scalar.
        regime_before, regime_after: of the groups, before and after the constructor placed anchors.
    """

    constructor: str
    learnable: float
    update_width: float
    variance: float | None
    cosine: float | None
    regime_before: Regime
    regime_after: Regime

    @property
    def snr(self) -> float | None:
        """Signal-to-noise ratio of one group, 1 / variance."""
        return 1 / self.variance if self.variance else None


def gradient_reports(
    policy: TreePolicy,
    environment: Environment,
    constructors: tuple[str, ...],
    group_size: int,
    prompts: int,
    groups_per_prompt: int,
    seed: int,
    config: SignalConfig | None = None,
) -> list[GradientReport]:
    """Monte-Carlo reports of several constructors on the same i.i.d. groups of the first `prompts` train prompts.

    The squared norm of E g comes from two independent halves of the groups, so it is not inflated by noise.

    Raises:
        ValueError: `groups_per_prompt` is not even.
    """
    config = replace(config or SignalConfig(), normaliser="groups")
    if groups_per_prompt < 2 or groups_per_prompt % 2:
        raise ValueError(f"groups_per_prompt: {groups_per_prompt} must be even and at least 2, it is split into halves")
    prompts = min(prompts, len(environment.train.x_ND))
    prompt_P = torch.arange(prompts).repeat(groups_per_prompt)  # the first half of the rows is a half of each prompt's groups
    batch = roll_out(policy, environment, prompt_P, group_size, "iid", config, torch_generator(seed, "gradient groups"))
    exact = pass_at_1_gradient(policy, environment.train.x_ND[:prompts], environment.train.target_NT[:prompts])
    reports = []
    for name in constructors:
        signal = signal_of(batch, name, config, torch_generator(seed, "gradient signal"))
        rows = _Rows.of(batch, signal, prompt_P, group_size)
        half = len(prompt_P) // 2
        early, late = rows.mean_estimate(policy, environment, 0, half), rows.mean_estimate(policy, environment, half, 2 * half)
        square, along = float(early @ late), float((early + late) @ exact / 2)
        found = square > 0
        reports.append(
            GradientReport(
                constructor=name,
                learnable=float(signal.learnable_P.float().mean()),
                update_width=len(signal.plan.rows_N) / len(prompt_P),
                variance=max(0.0, rows.mean_square_norm(policy, environment) / square - 1) if found else None,
                cosine=min(1.0, along / (square**0.5 * float(exact.norm()))) if found else None,
                regime_before=signal.regime_before,
                regime_after=signal.regime_after,
            )
        )
    return reports


@dataclass(frozen=True)
class _Rows:
    """Kept rows of many groups: each row's group, leaf and coefficient; each group's prompt."""

    prompt_P: Tensor
    group_N: Tensor
    leaf_N: Tensor
    coefficient_N: Tensor

    @classmethod
    def of(cls, batch: Batch, signal: Signal, prompt_P: Tensor, group_size: int) -> "_Rows":
        plan = signal.plan
        return cls(prompt_P, plan.rows_N // group_size, kept_leaves(batch, signal), plan.weights_N * plan.advantages_N)

    def mean_estimate(self, policy: TreePolicy, environment: Environment, start: int, stop: int) -> Tensor:
        """Mean estimate of the groups start .. stop - 1, one flat vector."""
        part = (self.group_N >= start) & (self.group_N < stop)
        prompts = int(self.prompt_P.max()) + 1
        flat = self.prompt_P[self.group_N[part]] * policy.leaves + self.leaf_N[part]
        coefficient = torch.zeros(prompts * policy.leaves).index_add(0, flat, self.coefficient_N[part])
        total = expected_estimate(policy, environment.train.x_ND[:prompts], coefficient.view(prompts, policy.leaves))
        return total / (stop - start)

    def mean_square_norm(self, policy: TreePolicy, environment: Environment) -> float:
        """Mean over groups of the squared norm of a group's estimate; rows of a group are laid side by side first."""
        groups = len(self.prompt_P)
        counts = torch.bincount(self.group_N, minlength=groups)
        column = torch.arange(len(self.group_N)) - (counts.cumsum(0) - counts)[self.group_N]
        shape = (groups, max(1, int(counts.max())))
        leaf, coefficient = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape)
        leaf[self.group_N, column], coefficient[self.group_N, column] = self.leaf_N, self.coefficient_N
        return float(square_norms(policy, environment.train.x_ND[self.prompt_P], leaf, coefficient).mean())


def pass_at_1_gradient(policy: TreePolicy, x_PD: Tensor, target_PT: Tensor) -> Tensor:
    """Gradient of sampled Pass@1, the mean over prompts of the targets' total probability, as one flat vector."""
    return _flat_gradient(policy, policy.path_logprobs(x_PD, target_PT).sum(2).exp().sum(1).mean())


def expected_estimate(policy: TreePolicy, x_PD: Tensor, coefficient_PY: Tensor) -> Tensor:
    """Flat vector sum over prompts and leaves of coefficient * grad log pi(leaf)."""
    return _flat_gradient(policy, (policy.leaf_logprobs(x_PD) * coefficient_PY).sum())


def square_norms(policy: TreePolicy, x_PD: Tensor, leaf_PR: Tensor, coefficient_PR: Tensor) -> Tensor:
    """||sum over rows of coefficient * grad log pi(leaf)||^2 of each prompt's rows, (P,)."""
    if isinstance(policy.encoder, nn.Identity):
        return _linear_square_norms(policy, x_PD, leaf_PR, coefficient_PR)
    norms = [
        _flat_gradient(policy, (policy.path_logprobs(x[None], leaf[None]).sum(2)[0] * c).sum()).square().sum()
        for x, leaf, c in zip(x_PD, leaf_PR, coefficient_PR, strict=True)
    ]
    return torch.stack(norms)


@torch.no_grad()
def _linear_square_norms(policy: TreePolicy, x_PD: Tensor, leaf_PR: Tensor, coefficient_PR: Tensor) -> Tensor:
    """(||x||^2 + 1) times, level by level, c' K c with K the Gram matrix of e_child - pi of rows under the same parent."""
    nodes, parent = policy.get_buffer("leaf_nodes")[leaf_PR], torch.zeros_like(leaf_PR)
    total = x_PD.new_zeros(len(x_PD))
    for level in range(policy.levels):
        node = nodes[..., level]
        prob_PRB = policy.child_logprobs(x_PD, level, parent).exp()
        slot = node - policy.child_nodes(level)[parent][..., 0]
        own = prob_PRB.gather(2, slot[..., None])[..., 0]
        gram = (node[:, :, None] == node[:, None]).float() - own[:, :, None] - own[:, None]
        gram = (gram + prob_PRB.square().sum(2)[:, :, None]) * (parent[:, :, None] == parent[:, None])
        total = total + torch.einsum("pr,prs,ps->p", coefficient_PR, gram, coefficient_PR)
        parent = node
    return total * (x_PD.square().sum(1) + 1)


def _flat_gradient(policy: TreePolicy, value: Tensor) -> Tensor:
    grads = torch.autograd.grad(value, list(policy.parameters()), allow_unused=True)
    pairs = zip(grads, policy.parameters(), strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).reshape(-1) for g, p in pairs])
