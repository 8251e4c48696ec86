"""Exact metrics of a policy over the whole catalog. Axes: N prompts, Y leaves, T targets.

On held-out prompts with one target the target is known only through the true preference, so every metric is its exact
expectation over the target's draw; with several targets, and on train prompts, it is taken on the drawn targets.
"""

import torch
from torch import Tensor

from recast_sim.world.environment import Environment, WorldPrompts
from recast_sim.world.policy import TreePolicy

_CHUNK = 1024
FIRST_HALF = "_first_half"
_HALVED = ("pass_at_1_sampled", "pass_at_1_greedy", "recall_at_k", "ndcg_at_k")
_LEAST = -1e9  # of a log-probability, where 0 times it must be 0


@torch.no_grad()
def evaluate(policy: TreePolicy, environment: Environment, k: int = 10) -> dict[str, float]:
    """Metrics on held-out prompts, and the first two on the rewards of as many train prompts, the first ones (prefix `train_`).

    `pass_at_1_sampled` is the probability that one sample is a target, `pass_at_1_greedy` that of the policy's most likely
    item; `pass_at_k_beam` and `pass_at_k_iid` are the chances of a hit among the k best items and among k draws;
    `recall_at_k` and `ndcg_at_k` rank the whole catalog: all these lie in [0, 1]. `entropy` of the policy and `log_likelihood`
    of a target are in nats. Greedy Pass@1 is the paper's metric; sampled Pass@1, entropy and log-likelihood move with
    temperature alone (`recast_sim.world.learning` tells what of a gain that is).
    """
    train = environment.train.first(len(environment.heldout.x_ND))
    return ranking_metrics(leaf_logprobs(policy, environment.heldout.x_ND), environment, k) | _train_metrics(policy, train)


@torch.no_grad()
def leaf_logprobs(policy: TreePolicy, x_ND: Tensor) -> Tensor:
    """log pi of every leaf, (N, Y), a part of the prompts at a time."""
    return torch.cat([policy.leaf_logprobs(x) for x in x_ND.split(_CHUNK)])


def ranking_metrics(logprob_NY: Tensor, environment: Environment, k: int = 10) -> dict[str, float]:
    """The metrics of `evaluate` on held-out prompts, from log-probabilities of all leaves (N, Y).

    Those that end in `_first_half` are of the first half of the prompts: two halves tell the prompts' chance from the world's.
    """
    one_target = environment.config.targets == 1
    gain_NY = environment.heldout_gain_NY
    chunks = zip(logprob_NY.split(_CHUNK), gain_NY.split(_CHUNK), strict=True)
    parts = [_chunk_metrics(logprob, gain, one_target, k) for logprob, gain in chunks]
    columns = {name: torch.cat([part[name] for part in parts]).double() for name in parts[0]}
    half = len(logprob_NY) // 2
    halves = {f"{name}{FIRST_HALF}": float(columns[name][:half].mean()) for name in _HALVED} if half else {}
    return {name: float(column.mean()) for name, column in columns.items()} | halves


def entropies(logprob_NY: Tensor) -> Tensor:
    """Entropy of each row of log-probabilities, nats, (N,)."""
    return torch.special.entr(logprob_NY.exp()).sum(1)


def reward_probability(policy: TreePolicy, prompts: WorldPrompts) -> Tensor:
    """Total probability of what is rewarded at each prompt, the chance that one draw is a hit, (N,)."""
    logprob_NR = policy.path_logprobs(prompts.x_ND, prompts.reward_NR.clamp(min=0)).sum(2)
    return logprob_NR.exp().masked_fill(prompts.reward_NR < 0, 0.0).sum(1)


def _train_metrics(policy: TreePolicy, train: WorldPrompts) -> dict[str, float]:
    best_N = policy.leaf_logprobs(train.x_ND).argmax(1)
    sampled_N = reward_probability(policy, train)
    greedy_N = (best_N[:, None] == train.reward_NR).any(1)
    figures = {"train_pass_at_1_sampled": sampled_N, "train_pass_at_1_greedy": greedy_N}
    return {name: float(column.double().mean()) for name, column in figures.items()}


def _chunk_metrics(logprob_NY: Tensor, gain_NY: Tensor, one_target: bool, k: int) -> dict[str, Tensor]:
    best, prob_NY = logprob_NY.topk(k, dim=1).indices, logprob_NY.exp()
    found_Nk, wanted = gain_NY.gather(1, best), gain_NY.sum(1)
    discount = 1 / torch.log2(torch.arange(2, k + 2))
    ideal = discount.cumsum(0)[wanted.round().long().clamp(1, k) - 1]
    sampled = (prob_NY * gain_NY).sum(1)
    iid = (gain_NY * (1 - (1 - prob_NY).pow(k))).sum(1) if one_target else 1 - (1 - sampled).pow(k)
    return {
        "pass_at_1_sampled": sampled,
        "pass_at_1_greedy": found_Nk[:, 0],
        "pass_at_k_beam": found_Nk.sum(1).clamp(max=1),
        "pass_at_k_iid": iid,
        "recall_at_k": found_Nk.sum(1) / wanted,
        "ndcg_at_k": (found_Nk * discount).sum(1) / ideal,
        "entropy": entropies(logprob_NY),
        "log_likelihood": (gain_NY * logprob_NY.clamp(min=_LEAST)).sum(1) / wanted,
    }
