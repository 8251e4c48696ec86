"""The oracle of constructors that give a row one number, group by group."""

import itertools
import math
from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import Any

from oracle_groups import (
    Group,
    average,
    best_hit,
    boundary,
    hardest_misses,
    in_order,
    inject_last,
    minus_mean,
    pair,
    repair,
    rescue,
    shaped,
    spread,
    supervise,
    z_scores,
)


def grpo(group: Group, config: Any) -> None:
    group.keep(z_scores(group.rewards(), config))


def dr_grpo(group: Group, config: Any) -> None:
    group.keep(minus_mean(group.rewards()))


def rloo(group: Group, config: Any) -> None:
    numbers = {}
    for g in group.live:
        others = [group.reward[h] for h in group.live if h != g]
        numbers[g] = group.reward[g] - average(others) if others else 0.0
    group.keep(numbers if len({*group.rewards().values()}) > 1 else dict.fromkeys(numbers, 0.0))


def max_rl(group: Group, config: Any) -> None:
    mean = average(group.rewards().values())
    group.keep({g: d / (mean + config.mean_eps) if mean else 0.0 for g, d in minus_mean(group.rewards()).items()})


def reward_share(group: Group, config: Any) -> None:
    mean = average(group.rewards().values())
    group.keep({g: r / (mean + config.mean_eps) if mean else 0.0 for g, r in group.rewards().items()})


def ngrpo(group: Group, config: Any) -> None:
    rewards = group.rewards()
    seen = [*rewards.values(), config.virtual_reward]
    mean, std = average(seen), spread(seen, config.std_ddof)
    group.keep({g: (r - mean if std else 0.0) / (std + config.std_eps) for g, r in rewards.items()})


def pass_at_k(group: Group, config: Any) -> None:
    """Subsets of k rows are worth 1 where they hold a hit; a row gets the mean z-score of those with it."""
    k, n, hits = config.pass_k, len(group.live), set(group.hits(config))
    if math.comb(n, k) <= 300:  # all subsets, one by one
        worth = {subset: float(bool(hits & set(subset))) for subset in itertools.combinations(group.live, k)}
        mean, std = average(worth.values()), spread(list(worth.values()), 0)
        means = {g: average(value for subset, value in worth.items() if g in subset) for g in group.live}
    else:
        M = n - len(hits)
        mean = 1 - math.comb(M, k) / math.comb(n, k)
        std = math.sqrt(mean * (1 - mean))
        missed = 1 - math.comb(M - 1, k - 1) / math.comb(n - 1, k - 1) if M else 0.0
        means = {g: 1.0 if g in hits else missed for g in group.live}
    group.keep({g: (m - mean) / (std + config.std_eps) if std else 0.0 for g, m in means.items()})


def reinforce(positive: Callable[[Any], float], negative: float) -> Callable[[Group, Any], None]:
    def oracle(group: Group, config: Any) -> None:
        hits = group.hits(config)
        group.keep({g: positive(config) * group.reward[g] if g in hits else -negative for g in group.live})

    return oracle


def dapo(group: Group, config: Any) -> None:
    group.redraw = len(set(group.rewards().values())) < 2
    if not group.redraw:
        grpo(group, config)


def pods(group: Group, config: Any) -> None:
    """Of all splits into lowest and highest rewards the one of largest variance, with the fewest from the top."""
    width, order = config.pods_width, sorted(group.live, key=lambda g: (group.reward[g], g))
    if len(order) > width:
        splits = [order[: width - high] + order[len(order) - high :] for high in range(width + 1)]
        variances = [exact_variance([group.reward[g] for g in rows]) for rows in splits]
        order = splits[variances.index(max(variances))]
    group.keep(z_scores({g: group.reward[g] for g in order}, config))


def exact_variance(values: list[float]) -> Fraction:
    """The population variance without any rounding, so that equal ones are equal."""
    numbers = [Fraction(v) for v in values]
    return sum(v * v for v in numbers) / len(numbers) - (sum(numbers) / len(numbers)) ** 2


def two_grpo(group: Group, config: Any) -> None:
    group.keep(z_scores({g: group.reward[g] for g in group.live[:2]}, config))


def by_likelihood(group: Group, rows: Iterable[int]) -> list[int]:
    return sorted(rows, key=lambda g: (-group.logprob[g], g))


def rank_reward(group: Group, config: Any) -> None:
    rewards, hits = group.rewards(), group.hits(config)
    # ReRe adds its ranking reward to the task reward, which is 0 on a miss unless hit_above or negative rewards say otherwise
    discounts = [1 / math.log2(j + 2) for j in range(len(group.live))]
    if hits:
        for j, g in enumerate(by_likelihood(group, group.live)):
            if g not in hits:
                rewards[g] -= config.rank_weight * discounts[j] / sum(discounts)
    group.keep(z_scores(rewards, config))


def wpauc(group: Group, config: Any) -> None:
    """The misses' shares of the window of false-positive rates, as integrals."""
    hits, misses = group.hits(config), group.misses(config)
    K, M, n = len(hits), len(misses), len(group.live)
    if not K or not M:
        group.keep(dict.fromkeys(group.live, 0.0))
        return
    low, high = config.window_low, config.window_low + config.window_span
    share = {}
    for j, g in enumerate(by_likelihood(group, misses)):
        share[g] = max(0.0, min((j + 1) / M, high) - max(j / M, low)) * M
    std = spread([1.0] * K + [0.0] * M, config.std_ddof) + config.std_eps
    up = sum(share.values()) / (n * std)
    group.keep({g: up if g in hits else -K * share[g] / (n * std) for g in group.live})


def care(group: Group, config: Any) -> None:
    hit = best_hit(group, config)
    rescued = hit < 0
    positive = in_order(group, group.live, lambda g: group.logprob[g], config)[0] if rescued else hit
    negatives = hardest_misses(group, config, config.care_negatives, without=positive)
    K = len(negatives)
    if not K:
        return
    rewards = dict.fromkeys(negatives, -config.care_delta / K if rescued else 0.0)
    rewards[positive] = config.care_delta if rescued else 1.0
    mean = math.fsum(rewards.values()) / (K + 1)
    std = math.sqrt(math.fsum((r - mean) ** 2 for r in rewards.values()) / (K + 1)) + config.std_eps
    size = math.sqrt(config.care_negatives / K)
    group.keep({g: (r - mean) / std * size * (1.0 if g == positive else config.care_scale) for g, r in rewards.items()})
    group.positive = positive


def add_gt(group: Group, config: Any) -> None:
    inject_last(group, config)
    grpo(group, config)


def luffy(group: Group, config: Any) -> None:
    inject_last(group, config)
    group.keep(minus_mean(group.rewards()))
    if group.slot >= 0:
        group.weight = shaped(math.exp(group.anchor_logprob), config.luffy_gamma)


def visurf(group: Group, config: Any) -> None:
    group.append()
    sampled, hit = group.rewards(), group.hits(config)
    inject_last(group, config)
    rewards = group.rewards()
    if group.slot < 0 or not hit:
        group.keep(z_scores(rewards, config))
        return
    if len(set(sampled.values())) < 2:
        group.keep(dict.fromkeys(rewards, 0.0))
        return
    rewards[group.slot] = average(sampled.values())
    group.keep(z_scores(rewards, config) | {group.slot: 0.0})


def repair_only(group: Group, config: Any) -> None:
    repair(group, config)
    grpo(group, config)


def recast(group: Group, config: Any) -> None:
    repair(group, config)
    boundary(group, config)


def sft(group: Group, config: Any) -> None:
    supervise(group, config)
    pair(group, config, group.slot, -1)


def tempered_anchor(group: Group, config: Any) -> None:
    sft(group, config)
    if group.slot >= 0:
        group.weight = math.exp(group.anchor_logprob) ** config.anchor_power


def sft_hard_negative(group: Group, config: Any) -> None:
    supervise(group, config)
    if group.slot >= 0:
        pair(group, config, group.slot, next(iter(hardest_misses(group, config, 1)), -1))


def s_dpo(group: Group, config: Any) -> None:
    supervise(group, config)
    negatives = hardest_misses(group, config, config.sdpo_negatives)
    if group.slot < 0 or not negatives:
        return
    beta, target = config.sdpo_beta, group.anchor_logprob - group.anchor_reference
    odds = {g: math.exp(beta * (group.logprob[g] - group.reference[g] - target)) for g in negatives}
    total = math.fsum(odds.values())
    s = total / (1 + total)  # sigma(log total)
    group.keep({group.slot: beta * s} | {g: -beta * s * odd / total for g, odd in odds.items()})
    group.positive = group.slot


def hybrid(group: Group, config: Any) -> None:
    boundary(group, config)
    rescue(group, config)


def grpo_anchor(group: Group, config: Any) -> None:
    grpo(group, config)
    rescue(group, config)


def rloo_anchor(group: Group, config: Any) -> None:
    rloo(group, config)
    rescue(group, config)


def mixture_anchor(group: Group, config: Any) -> None:
    sft(group, config)
    if group.slot >= 0:
        chance = math.exp(group.anchor_logprob)
        group.weight = chance / (chance + config.mixture_gamma)


def hits_light_anchor(group: Group, config: Any) -> None:
    group.keep({g: group.reward[g] for g in group.hits(config)})
    rescue(group, config)
    group.drop_zeros()


def beam_listwise(group: Group, config: Any) -> None:
    misses = group.misses(config)
    group.append()
    inject_last(group, config)
    if group.slot < 0:
        return
    scores = {g: group.logprob[g] for g in misses} | {group.slot: group.anchor_logprob}
    top = max(scores.values())
    odds = {g: math.exp(score - top) for g, score in scores.items()}
    share = {g: odd / math.fsum(odds.values()) for g, odd in odds.items()}
    numbers = {g: -config.listwise_weight * share[g] for g in misses}
    group.keep(numbers | {group.slot: 1 + config.listwise_weight * (1 - share[group.slot])})
    group.drop_zeros()


def composite(group: Group, config: Any) -> None:
    natural = group.hits(config)
    beam_listwise(group, config)
    numbers = {g: row[0] for g, row in group.numbers.items()}
    if group.slot >= 0:
        chance, share = math.exp(group.anchor_logprob), config.hit_share
        factor = chance / (chance + config.mixture_gamma) if config.mixture_gamma else 1.0
        light = 0.0 if natural else share * config.w_anchor
        numbers[group.slot] = numbers.get(group.slot, 0.0) - 1 + factor * (1 - share + light)
        if not numbers[group.slot]:  # no place for an anchor that would get nothing
            group.live, group.slot = group.live[:-1], -1
    group.keep(numbers | {g: config.hit_share * group.reward[g] for g in natural})
    group.weight = 1.0
    group.drop_zeros()


def near_miss(group: Group, config: Any) -> None:
    recast(group, config)
    if group.negative in group.numbers:
        group.numbers[group.negative][0] *= 1 - group.score[group.negative]
        if not group.numbers[group.negative][0]:
            group.negative = -1
    group.drop_zeros()
