"""Training and evaluation of a policy that thinks first.

Axes: P prompts, G rollouts of a group, Z thoughts, T targets (1 where they are summed), Y leaves.
"""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from recast_sim.configio import Checked
from recast_sim.signal import construct
from recast_sim.thought_methods import ThoughtError, ThoughtMethod, row_coefficients, thought_signal
from recast_sim.thoughts.latent_policy import LatentPolicy
from recast_sim.training.plan_update import UpdateError
from recast_sim.world.environment import Environment
from recast_sim.world.evaluation import entropies, ranking_metrics
from recast_sim.world.generators import torch_generator
from recast_sim.world.sampling import sample_iid

_CHUNK = 256  # prompts of an evaluation
_RANKED = ("pass_at_1_greedy", "recall_at_k", "pass_at_1_sampled", "log_likelihood", "entropy")


@dataclass(frozen=True)
class ThoughtTraining(Checked, error=ThoughtError):
    """One run of Adam.

    Attributes:
        group_size: thoughts (or rollouts) of a prompt, G.
        prompts_per_step: groups in a batch; they are drawn with replacement.
        steps: batches.
    """

    group_size: Annotated[int, Field(ge=2, le=4096)] = 8
    prompts_per_step: PositiveInt = 64
    steps: PositiveInt = 128


def train_thoughts(
    policy: LatentPolicy, environment: Environment, method: ThoughtMethod, training: ThoughtTraining, rate: float, seed: int
) -> float | None:
    """Train in place. Returns the mean share of groups that move the thoughts (the rollouts, for "hard"); None for supervision.

    All methods of a seed meet the same prompts in the same order.

    Raises:
        UpdateError: the loss is not finite.
    """
    optimiser, train, learnable = torch.optim.Adam(policy.parameters(), lr=rate), environment.train, []
    for step in range(training.steps):
        generator = torch_generator(seed, "thoughts", step)
        prompt_P = torch.randint(len(train.x_ND), (training.prompts_per_step,), generator=generator)
        batch = (train.x_ND[prompt_P], train.target_NT[prompt_P])
        loss, share = thought_loss(policy, *batch, method, training.group_size, generator)
        if not math.isfinite(value := float(loss.detach())):
            raise UpdateError(f"step {step + 1}: loss {value} of method {method.name!r}; lower the learning rate")
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        learnable.append(share)
    return None if method.kind == "supervision" else sum(learnable) / len(learnable)


def thought_loss(
    policy: LatentPolicy, x_PD: Tensor, target_PT: Tensor, method: ThoughtMethod, group_size: int, generator: torch.Generator
) -> tuple[Tensor, float]:
    """The loss of a batch of prompts, and the share of groups with a number other than 0 for their thoughts."""
    if method.kind == "supervision":
        return -policy.marginal_target_logprobs(x_PD, target_PT).mean(), 1.0
    logprob_PZ = policy.thought_logprobs(x_PD)
    thought_PG = torch.multinomial(logprob_PZ.detach().exp(), group_size, replacement=True, generator=generator)
    logprob_PG = logprob_PZ.gather(1, thought_PG)
    if method.kind == "hard":
        return _hard(policy, x_PD, target_PT, thought_PG, logprob_PG, method.constructor, generator)
    answer_PZT = soft_logprobs(policy, x_PD, target_PT, method.by_target)
    answer_PTG = answer_PZT.gather(1, thought_PG[..., None].expand(-1, -1, answer_PZT.shape[2])).transpose(1, 2)
    thought_PTG, answer_weight_PTG, learnable = soft_coefficients(answer_PTG.detach(), method)
    return -(thought_PTG * logprob_PG[:, None] + answer_weight_PTG * answer_PTG).sum(), learnable


def soft_logprobs(policy: LatentPolicy, x_PD: Tensor, target_PT: Tensor, by_target: bool) -> Tensor:
    """log p(targets | x, z) of every thought, (P, Z, T): of each target, or of any of them, T = 1; repeats count once."""
    logprob_PZT = policy.target_logprobs(x_PD, target_PT)
    if by_target:
        return logprob_PZT
    again_PT = (target_PT[:, :, None] == target_PT[:, None]).tril(-1).any(2)
    return logprob_PZT.masked_fill(again_PT[:, None], -torch.inf).logsumexp(2, keepdim=True)


def soft_coefficients(logprob_PTG: Tensor, method: ThoughtMethod) -> tuple[Tensor, Tensor, float]:
    """Factors on grad log pi(z | x) and on grad log p(targets | x, z) of sampled thoughts, both (P, T, G), and the learnable
    share, from log p(targets | x, z). Every prompt and target is a group."""
    signal, answer_NG = thought_signal(logprob_PTG.flatten(0, 1), method)
    thought_PTG, answer_PTG = (factor_NG.view_as(logprob_PTG) for factor_NG in (row_coefficients(signal), answer_NG))
    return thought_PTG, answer_PTG, float(thought_PTG.ne(0).any(2).double().mean())


def _hard(
    policy: LatentPolicy,
    x_PD: Tensor,
    target_PT: Tensor,
    thought_PG: Tensor,
    logprob_PG: Tensor,
    constructor: str,
    generator: torch.Generator,
) -> tuple[Tensor, float]:
    seen = policy.behind(x_PD, thought_PG)
    leaf_R1 = sample_iid(policy.items, seen, 1, generator).leaf_PG
    leaf_PG = leaf_R1.view_as(thought_PG)
    hit_PG = (leaf_PG[..., None] == target_PT[:, None]).any(2).to(x_PD.dtype)
    factor_PG = row_coefficients(construct(constructor, hit_PG))
    item_PG = policy.items.path_logprobs(seen, leaf_R1).sum((1, 2)).view_as(thought_PG)
    return -(factor_PG * (logprob_PG + item_PG)).sum(), float(factor_PG.ne(0).any(1).double().mean())


@torch.no_grad()
def evaluate_thoughts(policy: LatentPolicy, environment: Environment) -> dict[str, float]:
    """Metrics on held-out prompts, all thoughts summed out, as `recast_sim.world.evaluation.evaluate` has them, and

    - `pass_at_1_one_thought`: of the likeliest item behind one sampled thought;
    - `thought_entropy`: of pi(z | x), and `thought_information`: what the thought tells of the item, I(z; y | x), nats.
    """
    marginals, rest = [], []
    chunks = zip(environment.heldout.x_ND.split(_CHUNK), environment.heldout_gain_NY.split(_CHUNK), strict=True)
    for x_PD, gain_PY in chunks:
        thought_PZ, item_PZY = policy.thought_logprobs(x_PD), policy.leaf_logprobs(x_PD)
        marginals.append((thought_PZ[..., None] + item_PZY).logsumexp(1))
        share_PZ = thought_PZ.exp()
        one_P = (share_PZ * gain_PY.gather(1, item_PZY.argmax(2))).sum(1)
        left_P = (share_PZ * torch.special.entr(item_PZY.exp()).sum(2)).sum(1)
        rest.append(torch.stack([one_P, entropies(thought_PZ), entropies(marginals[-1]) - left_P], 1))
    metrics = ranking_metrics(torch.cat(marginals), environment)
    names = ("pass_at_1_one_thought", "thought_entropy", "thought_information")
    return {name: metrics[name] for name in _RANKED} | dict(zip(names, torch.cat(rest).double().mean(0).tolist(), strict=True))
