"""The expected update and the variance of every method at a policy, all thoughts and groups enumerated.

A group's update is a mean over its rows. Parameters of thoughts and of items are disjoint, so a score's square is a sum of two.
Axes: Z thoughts, T targets (1 where they are summed), G rollouts, C groups up to order, V parameters.
"""

import copy
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recast_sim.signal import construct
from recast_sim.thought_methods import ThoughtError, ThoughtMethod, row_coefficients
from recast_sim.thoughts.latent_policy import LatentPolicy
from recast_sim.thoughts.thought_training import soft_coefficients
from recast_sim.world.environment import Environment, WorldPrompts
from recast_sim.world.thermometer import leaf_steps

_MOST = 20_000  # groups up to order


@dataclass(frozen=True)
class ThoughtGradient:
    """One method's update at a policy, a mean over prompts.

    Attributes:
        method: its name.
        learnable: share of groups that move the thoughts (thought and SID, for a hard reward).
        cosine_hit: to the exact gradient of the chance of a hit; of a draw, on the same prompts.
        cosine_likelihood: to that of the targets' mean log-likelihood, thoughts summed out.
        cosine_heldout: to that of the held-out log-likelihood under the true preference.
        variance: E||u - E u||^2 of one group of one prompt, over ||E u||^2.
        within: share of it that comes from sampling thoughts and SIDs; the rest is between prompts.
    """

    method: str
    learnable: float
    cosine_hit: float
    cosine_likelihood: float
    cosine_heldout: float
    variance: float
    within: float


def thought_gradients(
    policy: LatentPolicy, environment: Environment, methods: Sequence[ThoughtMethod], group_size: int, prompts: int
) -> list[ThoughtGradient]:
    """Every method on the first train prompts, exactly.

    Raises:
        ThoughtError: too many groups to enumerate.
    """
    policy = copy.deepcopy(policy).double()
    train, moments = environment.train.first(prompts), {method.name: _Moments() for method in methods}
    hit, likelihood = _Moments(), _Moments()
    for p in range(len(train.x_ND)):
        scores = _Scores.of(policy, train.take(slice(p, p + 1)))
        hit.add(scores.hit_gradient(), 0.0, 1.0)
        likelihood.add(scores.likelihood_gradient(), 0.0, 1.0)
        for method in methods:
            moments[method.name].add(*_update(scores, method, group_size))
    heldout = _heldout_gradient(policy, environment)
    return [_row(name, found, hit.mean, likelihood.mean, heldout) for name, found in moments.items()]


@dataclass
class _Moments:
    """Sums over prompts of an update's mean, the square of that, its second moment, and the learnable share."""

    count: int = 0
    total_V: Tensor | float = 0.0
    squares: float = 0.0
    second: float = 0.0
    learnable: float = 0.0

    def add(self, mean_V: Tensor, second: float, learnable: float) -> None:
        self.count += 1
        self.total_V = self.total_V + mean_V
        self.squares += float(mean_V.square().sum())
        self.second += second
        self.learnable += learnable

    @property
    def mean(self) -> Tensor:
        return torch.as_tensor(self.total_V) / self.count


def _row(name: str, found: _Moments, hit_V: Tensor, likelihood_V: Tensor, heldout_V: Tensor) -> ThoughtGradient:
    mean_V, second = found.mean, found.second / found.count
    square = float(mean_V.square().sum())
    hit, likelihood, heldout = (float(torch.cosine_similarity(mean_V, v, dim=0)) for v in (hit_V, likelihood_V, heldout_V))
    variance, sampled = second - square, second - found.squares / found.count
    within = max(0.0, sampled / variance) if variance else 0.0
    return ThoughtGradient(name, found.learnable / found.count, hit, likelihood, heldout, variance / square, within)


@dataclass(frozen=True)
class _Scores:
    """One prompt: log pi(z | x) and log p(y | x, z) of its targets, their gradients, and the squares of a draw's score."""

    share_Z: Tensor
    logprob_ZT: Tensor
    distinct_T: Tensor
    thought_ZV: Tensor
    item_ZTV: Tensor
    square: float  # E ||grad log pi(z, y | x)||^2

    @classmethod
    def of(cls, policy: LatentPolicy, prompt: WorldPrompts) -> "_Scores":
        x_1D, target_1T = prompt.x_ND.double(), prompt.target_NT
        thought_Z, item_ZT = policy.thought_logprobs(x_1D)[0], policy.target_logprobs(x_1D, target_1T)[0]
        share_Z, thought_ZV = thought_Z.detach().exp(), _gradients(policy, thought_Z)
        item_ZTV = _gradients(policy, item_ZT.flatten()).view(*item_ZT.shape, -1)
        distinct_T = torch.tensor([leaf not in target_1T[0, :t] for t, leaf in enumerate(target_1T[0])])
        square = share_Z @ (thought_ZV.square().sum(1) + _item_squares(policy, x_1D))
        return cls(share_Z, item_ZT.detach(), distinct_T, thought_ZV, item_ZTV, float(square))

    @property
    def joint_ZT(self) -> Tensor:
        """pi(z, y | x) of the targets."""
        return self.share_Z[:, None] * self.logprob_ZT.exp()

    @property
    def hit(self) -> float:
        """The chance that a draw is a target."""
        return float((self.joint_ZT * self.distinct_T).sum())

    def hit_gradient(self) -> Tensor:
        return self._weighed(self.joint_ZT * self.distinct_T)

    def likelihood_gradient(self) -> Tensor:
        return self._weighed(self.joint_ZT / self.joint_ZT.sum(0)) / self.joint_ZT.shape[1]

    def hit_square(self) -> float:
        """E ||grad log pi(z, y | x)||^2 of a draw that is a target."""
        square_ZT = self.thought_ZV.square().sum(1)[:, None] + self.item_ZTV.square().sum(2)
        return float((self.joint_ZT * self.distinct_T * square_ZT).sum()) / self.hit

    def answers(self, by_target: bool) -> tuple[Tensor, Tensor]:
        """log p(targets | x, z), (Z, T), and its gradient, (Z, T, V); T is 1 where the targets are summed."""
        if by_target:
            return self.logprob_ZT, self.item_ZTV
        each_ZT = self.logprob_ZT.masked_fill(~self.distinct_T, -torch.inf)
        gradient_ZV = torch.einsum("zt,ztv->zv", each_ZT.softmax(1), self.item_ZTV)
        return each_ZT.logsumexp(1, keepdim=True), gradient_ZV[:, None]

    def _weighed(self, weight_ZT: Tensor) -> Tensor:
        return weight_ZT.sum(1) @ self.thought_ZV + torch.einsum("zt,ztv->v", weight_ZT, self.item_ZTV)


def _gradients(policy: LatentPolicy, values_N: Tensor) -> Tensor:
    """Gradient of each value in all parameters, (N, V)."""
    parameters = list(policy.parameters())
    rows = [torch.autograd.grad(v, parameters, retain_graph=True, materialize_grads=True, allow_unused=True) for v in values_N]
    return torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])


@torch.no_grad()
def _item_squares(policy: LatentPolicy, x_1D: Tensor) -> Tensor:
    """E ||grad log pi(y | x, z)||^2 behind each thought, (Z,).

    A step's gradient in the logits is e - pi, whose expected square is 1 - |pi|^2 = E[1 - pi(the step)]; each logit reads x, 1
    and its own bias.
    """
    thoughts = torch.arange(policy.thoughts)[None]
    steps_ZYL = leaf_steps(policy.items, policy.behind(x_1D, thoughts))
    return (x_1D.square().sum() + 2) * (steps_ZYL.sum(2).exp() * (1 - steps_ZYL.exp()).sum(2)).sum(1)


def _update(scores: _Scores, method: ThoughtMethod, group_size: int) -> tuple[Tensor, float, float]:
    """Mean and second moment of one group's update, and the chance that the group is learnable."""
    if method.kind == "supervision":
        mean_V = scores.likelihood_gradient()
        return mean_V, float(mean_V.square().sum()), 1.0
    return (_hard_update if method.kind == "hard" else _soft_update)(scores, method, group_size)


def _hard_update(scores: _Scores, method: ThoughtMethod, group_size: int) -> tuple[Tensor, float, float]:
    """By the number of hits: draws are independent, and a row's number depends on the group's hits alone."""
    p, hits = scores.hit, torch.arange(group_size + 1)
    chances = [math.comb(group_size, k) * p**k * (1 - p) ** (group_size - k) for k in hits.tolist()]
    chance_C = torch.tensor(chances, dtype=torch.float64)
    hit_CG = (torch.arange(group_size) < hits[:, None]).double()
    number_CG = row_coefficients(construct(method.constructor, hit_CG)) * len(hits)
    on_hits_C, on_misses_C = (number_CG * hit_CG).sum(1), (number_CG * (1 - hit_CG)).sum(1)
    gradient_V = scores.hit_gradient()
    pull_C = on_hits_C / p - on_misses_C / (1 - p)  # of grad p: a hit's mean score is grad p / p, a miss's - grad p / (1 - p)
    slope = float(gradient_V.square().sum())
    hit_square = scores.hit_square()
    miss_square = (scores.square - p * hit_square) / (1 - p)
    own_hit, own_miss = hit_square - slope / p**2, miss_square - slope / (1 - p) ** 2  # less the mean's square
    own_CG = own_hit * hit_CG + own_miss * (1 - hit_CG)
    second_C = (number_CG.square() * own_CG).sum(1) + pull_C.square() * slope
    learnable = float(chance_C @ number_CG.ne(0).any(1).double())
    return float(chance_C @ pull_C) * gradient_V, float(chance_C @ second_C), learnable


def _soft_update(scores: _Scores, method: ThoughtMethod, group_size: int) -> tuple[Tensor, float, float]:
    """By the thoughts of the group, up to their order."""
    thought_CG, chance_C = _groups(scores.share_Z, group_size)
    logprob_ZT, answer_ZTV = scores.answers(method.by_target)
    factor_CTG, answer_CTG, _ = soft_coefficients(logprob_ZT[thought_CG].transpose(1, 2), method)
    Z, T = logprob_ZT.shape
    place_CG, C = thought_CG, len(thought_CG)
    on_thought_CZ = factor_CTG.new_zeros(C, Z).scatter_add_(1, place_CG, factor_CTG.sum(1) * C)
    on_answer_CTZ = factor_CTG.new_zeros(C, T, Z).scatter_add_(2, place_CG[:, None].expand(C, T, -1), answer_CTG * C)
    row_RV = torch.cat([scores.thought_ZV, answer_ZTV.transpose(0, 1).flatten(0, 1)])
    factor_CR = torch.cat([on_thought_CZ, on_answer_CTZ.flatten(1)], 1)
    second_C = torch.einsum("cr,rs,cs->c", factor_CR, row_RV @ row_RV.T, factor_CR)
    learnable = float(chance_C @ factor_CTG.ne(0).flatten(1).any(1).double())
    return (chance_C @ factor_CR) @ row_RV, float(chance_C @ second_C), learnable


def _groups(share_Z: Tensor, group_size: int) -> tuple[Tensor, Tensor]:
    """Every group of thoughts up to order, (C, G), and its chance, (C,)."""
    Z = len(share_Z)
    if (count := math.comb(group_size + Z - 1, group_size)) > _MOST:
        raise ThoughtError(f"group_size: {group_size} thoughts among {Z} make {count} groups, more than {_MOST}; lower either")
    thought_CG = torch.tensor(list(itertools.combinations_with_replacement(range(Z), group_size)))
    number_CZ = torch.nn.functional.one_hot(thought_CG, Z).sum(1).double()
    orders_C = math.lgamma(group_size + 1) - torch.lgamma(number_CZ + 1).sum(1)
    return thought_CG, (orders_C + torch.xlogy(number_CZ, share_Z).sum(1)).exp()


def _heldout_gradient(policy: LatentPolicy, environment: Environment) -> Tensor:
    """Of the held-out log-likelihood of a target under the true preference, thoughts summed out."""
    gain_NY = environment.heldout_gain_NY.double()
    logprob_NY = policy.marginal_logprobs(environment.heldout.x_ND.double())
    value = ((gain_NY * logprob_NY).sum(1) / gain_NY.sum(1)).mean()
    return _gradients(policy, value[None])[0]
