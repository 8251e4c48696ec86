"""Exact metrics of a policy over the whole catalog. Axes: N prompts, Y leaves, T targets.

On held-out prompts with one target the target is known only through the true preference, so every metric is its exact
expectation over the target's draw; with several targets, and on train prompts, it is taken on the drawn targets.
"""

import torch
from torch import Tensor

from recast_sim.world.environment import Environment, WorldPrompts
from recast_sim.world.policy import TreePolicy

_CHUNK = 1024


@torch.no_grad()
def evaluate(policy: TreePolicy, environment: Environment, k: int = 10) -> dict[str, float]:
    """Metrics on held-out prompts, and the first two on as many train prompts, the first ones (prefix `train_`).

    `pass_at_1_sampled` is the probability that one sample is a target, `pass_at_1_greedy` that of the policy's most likely
    item; `pass_at_k_beam` and `pass_at_k_iid` are the chances of a hit among the k best items and among k draws;
    `recall_at_k` and `ndcg_at_k` rank the whole catalog. All in [0, 1].
    """
    heldout = environment.heldout
    train = environment.train.first(len(heldout.x_ND))
    one_target = environment.config.targets == 1
    expected = environment.heldout_preference_NY if one_target else _drawn_gain(heldout, policy.leaves)
    metrics = _metrics(policy, heldout.x_ND, expected, one_target, k)
    return metrics | _train_metrics(policy, train)


def _train_metrics(policy: TreePolicy, train: WorldPrompts) -> dict[str, float]:
    best_N = policy.leaf_logprobs(train.x_ND).argmax(1)
    sampled_N = policy.path_logprobs(train.x_ND, train.target_NT).sum(2).exp().sum(1)
    greedy_N = (best_N[:, None] == train.target_NT).any(1)
    figures = {"train_pass_at_1_sampled": sampled_N, "train_pass_at_1_greedy": greedy_N}
    return {name: float(column.double().mean()) for name, column in figures.items()}


def _metrics(policy: TreePolicy, x_ND: Tensor, gain_NY: Tensor, one_target: bool, k: int) -> dict[str, float]:
    parts = [
        _chunk_metrics(policy.leaf_logprobs(x).exp(), gain, one_target, k)
        for x, gain in zip(x_ND.split(_CHUNK), gain_NY.split(_CHUNK), strict=True)
    ]
    return {name: float(torch.cat([part[name] for part in parts]).double().mean()) for name in parts[0]}


def _chunk_metrics(prob_NY: Tensor, gain_NY: Tensor, one_target: bool, k: int) -> dict[str, Tensor]:
    best = prob_NY.topk(k, dim=1).indices
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
    }


def _drawn_gain(prompts: WorldPrompts, leaves: int) -> Tensor:
    return torch.zeros(len(prompts.x_ND), leaves).scatter(1, prompts.target_NT, 1.0)
