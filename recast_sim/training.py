"""The policy-gradient loop over the environment: sample, construct the signal, update on the kept rows.

The objective is the clipped, KL-regularised surrogate of the field, token by token (a token is one level of the SID), summed
over a row's tokens. Axes: P prompts of a step, G rollouts, N kept rows, L levels.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import Tensor

from recast_sim.environment import Environment
from recast_sim.evaluation import evaluate
from recast_sim.policy import TreePolicy
from recast_sim.runs import RunWriter
from recast_sim.runs.checkpoint import latest_checkpoint, load_state, save_state
from recast_sim.sampling import Rollouts, Sampler, sample
from recast_sim.seeding import torch_generator
from recast_sim.signal import (
    Signal,
    SignalConfig,
    choose_anchor,
    construct,
    exact_hit,
    get_constructor,
    regime_codes,
    structural_score,
)


@dataclass(frozen=True)
class TrainingConfig:
    """One run of the loop.

    Attributes:
        constructor: a registered constructor; `signal` holds its numbers and rules.
        group_size: rollouts a prompt (the search width).
        prompts_per_step: groups in a batch; `steps` batches.
        optimiser, learning_rate: "adam" or "sgd".
        updates_per_batch: optimiser steps on one batch (off-policy from the second on).
        clip_low, clip_high: the ratio is clipped to 1 - clip_low .. 1 + clip_high (OpenOneRec: 0.2 and 0.28).
        kl: weight of the low-variance KL estimate against the base policy, in the loss.
        sampler: "iid", "beam" or "stochastic_beam".
        max_redraws: batches drawn at most for one step by a constructor that redraws (dapo).
        evaluate_every, checkpoint_every: in steps; 0 checkpoints never.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    constructor: str = "recast"
    signal: SignalConfig = field(default_factory=SignalConfig)
    group_size: int = 32
    prompts_per_step: int = 64
    steps: int = 200
    optimiser: Literal["adam", "sgd"] = "adam"
    learning_rate: float = 0.003
    updates_per_batch: int = 1
    clip_low: float = 0.2
    clip_high: float = 0.28
    kl: float = 0.0
    sampler: Sampler = "iid"
    max_redraws: int = 10
    evaluate_every: int = 10
    checkpoint_every: int = 0

    def __post_init__(self) -> None:
        get_constructor(self.constructor)
        for name in ("group_size", "prompts_per_step", "steps", "updates_per_batch", "max_redraws", "evaluate_every"):
            if getattr(self, name) < 1:
                raise TrainingError(f"TrainingConfig.{name}: {getattr(self, name)} must be at least 1")
        for name in ("clip_low", "clip_high", "kl", "checkpoint_every"):
            if getattr(self, name) < 0:
                raise TrainingError(f"TrainingConfig.{name}: {getattr(self, name)} must be 0 or more")
        if not self.learning_rate > 0:
            raise TrainingError(f"TrainingConfig.learning_rate: {self.learning_rate} must be positive")


class TrainingError(ValueError):
    """A bad training config, or a loss that is not finite."""


@dataclass(frozen=True)
class Batch:
    """Groups of one step with everything the signal needs, and what they cost."""

    prompt_P: Tensor
    rollouts: Rollouts
    rewards_PG: Tensor
    structural_PG: Tensor
    anchor_leaf_P: Tensor
    anchor_logprob_P: Tensor
    rollouts_drawn: int


def train(
    policy: TreePolicy,
    reference: TreePolicy,
    environment: Environment,
    config: TrainingConfig,
    seed: int,
    writer: RunWriter,
    on_step: Callable[[int], None] = lambda step: None,
) -> None:
    """Train `policy` in place and write a row a step, evaluations and checkpoints; resumes at the writer's last checkpoint.

    A step's randomness depends on the seed and the step alone, so a resumed run ends with the same numbers.

    Raises:
        TrainingError: the loss is not finite; the last checkpoint is kept.
    """
    optimiser = _optimiser(policy, config)
    totals = {"rollouts": 0, "actor_rows": 0, "optimiser_steps": 0}
    start = _restore(writer, policy, optimiser, totals)
    if start == 0:
        writer.evaluation({"step": 0, **totals, **evaluate(policy, environment)})
    for step in range(start + 1, config.steps + 1):
        batch = draw_batch(policy, environment, config, seed, step)
        signal = signal_of(batch, config, torch_generator(seed, "signal", step))
        log = update(policy, reference, environment, batch, signal, config, optimiser)
        totals["rollouts"] += batch.rollouts_drawn
        totals["actor_rows"] += len(signal.plan.rows_N) * config.updates_per_batch
        totals["optimiser_steps"] += config.updates_per_batch
        writer.step({"step": step, **totals, **_signal_row(signal), **log})
        writer.groups(_group_rows(step, batch, signal))
        if step % config.evaluate_every == 0 or step == config.steps:
            writer.evaluation({"step": step, **totals, **evaluate(policy, environment)})
        if config.checkpoint_every and step % config.checkpoint_every == 0:
            with writer.checkpoint(step) as folder:
                save_state(folder, policy, optimiser, totals=totals)
        on_step(step)


def draw_batch(policy: TreePolicy, environment: Environment, config: TrainingConfig, seed: int, step: int) -> Batch:
    """Groups for one step. A constructor that redraws gets learnable groups only, as far as `max_redraws` batches reach;
    rollouts thrown away are counted like the others."""
    parts, drawn = [], 0
    for attempt in range(config.max_redraws if get_constructor(config.constructor).redraws else 1):
        generator = torch_generator(seed, "prompts", step, attempt)
        prompt = torch.randint(len(environment.train.x_ND), (config.prompts_per_step,), generator=generator)
        part = roll_out(policy, environment, prompt, config, torch_generator(seed, "rollouts", step, attempt))
        drawn += part.rollouts_drawn
        keep = torch.ones_like(prompt, dtype=torch.bool)
        if get_constructor(config.constructor).redraws:
            keep = ~signal_of(part, config, generator).redraw_P
        parts.append(_take(part, keep))
        if sum(len(p.prompt_P) for p in parts) >= config.prompts_per_step:
            break
    return _join(parts, config.prompts_per_step, drawn) if drawn else parts[0]


def roll_out(
    policy: TreePolicy, environment: Environment, prompt_P: Tensor, config: TrainingConfig, generator: torch.Generator
) -> Batch:
    """Sample a group for each of the given train prompts and score it."""
    x, targets_PT = environment.train.x_ND[prompt_P], environment.train.target_NT[prompt_P]
    rollouts = sample(policy, x, config.group_size, config.sampler, generator)
    codes = torch.from_numpy(environment.catalog.leaf_codes)
    with torch.no_grad():
        target_logprob_PT = policy.path_logprobs(x, targets_PT).sum(2)
    everything = torch.ones_like(targets_PT, dtype=torch.bool)
    chosen = choose_anchor(everything, config.signal.anchor_choice, target_logprob_PT, generator)[:, None]
    return Batch(
        prompt_P=prompt_P,
        rollouts=rollouts,
        rewards_PG=exact_hit(codes[rollouts.leaf_PG], codes[targets_PT]).masked_fill(~rollouts.valid_PG, 0.0),
        structural_PG=structural_score(codes[rollouts.leaf_PG], codes[targets_PT]),
        anchor_leaf_P=targets_PT.gather(1, chosen)[:, 0],
        anchor_logprob_P=target_logprob_PT.gather(1, chosen)[:, 0],
        rollouts_drawn=rollouts.leaf_PG.numel(),
    )


def signal_of(batch: Batch, config: TrainingConfig, generator: torch.Generator) -> Signal:
    """The shared signal module on a batch; every prompt has an anchor."""
    return construct(
        config.constructor,
        batch.rewards_PG,
        batch.structural_PG,
        valid_PG=batch.rollouts.valid_PG,
        has_anchor_P=torch.ones_like(batch.prompt_P, dtype=torch.bool),
        logprob_PG=batch.rollouts.logprob_PG,
        anchor_logprob_P=batch.anchor_logprob_P,
        config=config.signal,
        generator=generator,
    )


def update(
    policy: TreePolicy,
    reference: TreePolicy,
    environment: Environment,
    batch: Batch,
    signal: Signal,
    config: TrainingConfig,
    optimiser: torch.optim.Optimizer,
) -> dict[str, float]:
    """Optimiser steps on the kept rows of a batch; the other rows reach no policy. Returns the last step's figures."""
    plan, G = signal.plan, batch.rollouts.leaf_PG.shape[1]
    if len(plan.rows_N) == 0:
        return {"loss": 0.0, "gradient_norm": 0.0, "kl": 0.0, "clip_share": 0.0}
    leaf_N, prompt_N = kept_leaves(batch, signal), batch.prompt_P[plan.rows_N // G]
    x_ND = environment.train.x_ND[prompt_N]
    with torch.no_grad():
        old_NL = policy.path_logprobs(x_ND, leaf_N[:, None])[:, 0]
        reference_NL = reference.path_logprobs(x_ND, leaf_N[:, None])[:, 0] if config.kl else old_NL
    log: dict[str, float] = {}
    for _ in range(config.updates_per_batch):
        new_NL = policy.path_logprobs(x_ND, leaf_N[:, None])[:, 0]
        surrogate_NL, clipped_NL = clipped_surrogate(new_NL, old_NL, plan.advantages_N, config.clip_low, config.clip_high)
        kl_NL = low_variance_kl(new_NL, reference_NL)
        loss = (plan.weights_N[:, None] * surrogate_NL + config.kl * kl_NL).sum() / plan.normaliser
        if not bool(torch.isfinite(loss)):
            raise TrainingError(f"loss: {loss.item()} at constructor {config.constructor}; lower learning_rate")
        optimiser.zero_grad()
        loss.backward()
        norm = torch.nn.utils.get_total_norm([p.grad for p in policy.parameters() if p.grad is not None])
        optimiser.step()
        shares = {"kl": float(kl_NL.detach().sum(1).mean()), "clip_share": float(clipped_NL.float().mean())}
        log = {"loss": float(loss.detach()), "gradient_norm": float(norm), **shares}
    return log


def clipped_surrogate(
    new_NL: Tensor, old_NL: Tensor, advantages_N: Tensor, clip_low: float, clip_high: float
) -> tuple[Tensor, Tensor]:
    """PPO's pessimistic token loss -min(ratio A, clip(ratio) A) (arXiv 1707.06347) and where the clip binds, both (N, L)."""
    ratio, A = (new_NL - old_NL).exp(), advantages_N[:, None]
    free, clipped = ratio * A, ratio.clamp(1 - clip_low, 1 + clip_high) * A
    return -torch.minimum(free, clipped), clipped < free


def low_variance_kl(new_NL: Tensor, reference_NL: Tensor) -> Tensor:
    """Token-wise estimate of KL(new || reference) that is never negative (k3): exp(d) - d - 1, d = reference - new."""
    gap = reference_NL - new_NL
    return gap.exp() - gap - 1


def kept_leaves(batch: Batch, signal: Signal) -> Tensor:
    """Leaf of each kept row, the anchor's where one was placed, (N,)."""
    rows, G = signal.plan.rows_N, batch.rollouts.leaf_PG.shape[1]
    return torch.where(signal.plan.anchor_N, batch.anchor_leaf_P[rows // G], batch.rollouts.leaf_PG.reshape(-1)[rows])


def run_folder_config(environment: Environment, config: TrainingConfig, **extra: object) -> dict[str, object]:
    """The resolved config of a run, as it goes into the manifest."""
    return {"environment": asdict(environment.config), "training": asdict(config), **extra}


def run_path(root: Path, constructor: str, seed: int) -> Path:
    """Folder of one run inside a study."""
    return root / "runs" / f"{constructor}-seed{seed}"


def _optimiser(policy: TreePolicy, config: TrainingConfig) -> torch.optim.Optimizer:
    kind = torch.optim.Adam if config.optimiser == "adam" else torch.optim.SGD
    return kind(policy.parameters(), lr=config.learning_rate)


def _restore(writer: RunWriter, policy: TreePolicy, optimiser: torch.optim.Optimizer, totals: dict[str, int]) -> int:
    folder = latest_checkpoint(writer.path)
    if folder is None:
        return 0
    totals.update(load_state(folder, policy, optimiser)["totals"])  # type: ignore[arg-type]
    return int(folder.name.split("-")[1])


def _signal_row(signal: Signal) -> dict[str, float]:
    row: dict[str, float] = {f"before_{name}": share for name, share in asdict(signal.regime_before).items()}
    row |= {f"after_{name}": share for name, share in asdict(signal.regime_after).items()}
    row["learnable"] = float(signal.learnable_P.float().mean())
    row["repaired"] = float(signal.repaired_P.float().mean())
    row["update_width"] = len(signal.plan.rows_N) / len(signal.learnable_P)
    return row


def _group_rows(step: int, batch: Batch, signal: Signal) -> dict[str, object]:
    valid = batch.rollouts.valid_PG.sum(1)
    return {
        "step": [step] * len(batch.prompt_P),
        "prompt": batch.prompt_P.numpy(),
        "hits": signal.hits_before_P.numpy(),
        "valid": valid.numpy(),
        "regime": regime_codes(signal.hits_before_P, valid).numpy(),
        "repaired": signal.repaired_P.numpy(),
        "learnable": signal.learnable_P.numpy(),
    }


def _take(batch: Batch, keep: Tensor) -> Batch:
    rollouts = Rollouts(batch.rollouts.leaf_PG[keep], batch.rollouts.logprob_PG[keep], batch.rollouts.valid_PG[keep])
    return Batch(
        batch.prompt_P[keep],
        rollouts,
        batch.rewards_PG[keep],
        batch.structural_PG[keep],
        batch.anchor_leaf_P[keep],
        batch.anchor_logprob_P[keep],
        batch.rollouts_drawn,
    )


def _join(parts: list[Batch], count: int, drawn: int) -> Batch:
    def rows(tensors: list[Tensor]) -> Tensor:
        return torch.cat(tensors)[:count]

    rollouts = Rollouts(
        *(rows([getattr(p.rollouts, name) for p in parts]) for name in ("leaf_PG", "logprob_PG", "valid_PG"))
    )
    names = ("rewards_PG", "structural_PG", "anchor_leaf_P", "anchor_logprob_P")
    return Batch(rows([p.prompt_P for p in parts]), rollouts, *(rows([getattr(p, n) for p in parts]) for n in names), drawn)
