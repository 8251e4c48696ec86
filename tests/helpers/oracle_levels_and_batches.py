"""The oracle of constructors that go by level, stand beside an anchor, or look at the whole batch."""

import math
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from typing import Any

from oracle_groups import Group, average, inject_last, minus_mean, spread, supervise, z_scores
from oracle_rows import recast


def match_depth(codes: Sequence[int], others: Iterable[Sequence[int]]) -> int:
    """The longest prefix that the codes share with any of the others."""
    depth = 0
    for other in others:
        while depth < len(codes) and list(codes[: depth + 1]) == list(other[: depth + 1]):
            depth += 1
    return depth


def sapo(group: Group, config: Any) -> None:
    depth = {g: match_depth(group.codes[g], group.targets) for g in group.live}
    numbers = {g: [0.0] * group.levels for g in group.live}
    for level in range(group.levels):
        matched = {g: float(depth[g] > level) for g in group.live if depth[g] >= level}
        if len(set(matched.values())) == 2:
            for g, number in z_scores(matched, config).items():
                numbers[g][level] = number
    group.numbers = numbers


def among_siblings(group: Group, config: Any) -> dict[int, list[float]]:
    numbers: dict[int, list[float]] = {g: [] for g in group.live}
    for level in range(group.levels):
        rewards: dict[tuple[int, ...], list[float]] = {}  # of the rows through a node
        for g in group.live:
            rewards.setdefault(tuple(group.codes[g][: level + 1]), []).append(group.reward[g])
        value = {node: average(some) for node, some in rewards.items()}
        for g in group.live:
            node = tuple(group.codes[g][: level + 1])
            children = [v for other, v in value.items() if other[:level] == node[:level]]
            numbers[g].append((value[node] - average(children)) / (spread(children, 0) + config.sibling_eps))
    return numbers


def sibling(group: Group, config: Any) -> None:
    group.numbers = among_siblings(group, config)


def sibling_grpo(group: Group, config: Any) -> None:
    row, levels = z_scores(group.rewards(), config), among_siblings(group, config)
    group.numbers = {g: [row[g] + config.sibling_weight * number for number in levels[g]] for g in group.live}


def recast_masked(group: Group, config: Any) -> None:
    recast(group, config)
    _over_levels(group, lambda depth, level: level >= depth)


def recast_diverging(group: Group, config: Any) -> None:
    recast(group, config)
    _over_levels(group, lambda depth, level: level == depth)


def _over_levels(group: Group, kept: Callable[[int, int], bool]) -> None:
    """The pair on all levels, the negative on those that `kept` says of the depth where it leaves the positive."""
    depth = match_depth(group.codes[group.negative], [group.codes[group.positive]]) if group.negative >= 0 else 0
    for g, (number,) in group.numbers.items():
        of_negative = g == group.negative
        group.numbers[g] = [number if not of_negative or kept(depth, level) else 0.0 for level in range(group.levels)]
    group.drop_zeros()


def dft(group: Group, config: Any) -> None:
    supervise(group, config)
    if group.slot >= 0:
        group.positive = group.slot
        group.numbers = {group.slot: [config.w_plus * math.exp(x) for x in group.anchor_levels]}


def rl_zvp(group: Group, config: Any) -> None:
    if len(set(group.rewards().values())) > 1:
        group.numbers = {g: [number] * group.levels for g, number in z_scores(group.rewards(), config).items()}
        return
    for g in group.live:
        H = group.entropy[g]
        hit = g in group.hits(config)
        group.numbers[g] = [config.zvp_alpha * h if hit else -config.zvp_alpha * (max(H) - h) for h in H]


def beside_anchor(group: Group, rows: dict[int, float], anchor: Sequence[float], config: Any) -> None:
    """Numbers of the sampled rows, and numbers times how many they are on the anchor's own row."""
    inject_last(group, config)
    group.numbers = {g: [number] * len(anchor) for g, number in rows.items()}
    if group.slot >= 0:
        group.numbers[group.slot] = [len(rows) * number for number in anchor]


def chord(group: Group, config: Any) -> None:
    group.append()
    rows = {g: (1 - config.chord_mu) * number for g, number in z_scores(group.rewards(), config).items()}
    chances = [math.exp(x) for x in group.anchor_levels]
    beside_anchor(group, rows, [config.chord_mu * p * (1 - p) for p in chances], config)


def grpo_sr(group: Group, config: Any) -> None:
    group.append()
    beside_anchor(group, z_scores(group.rewards(), config), [config.nll_weight], config)


def ada_grpo(group: Group, config: Any) -> None:
    group.append()
    rows = z_scores(group.rewards(), config)
    likelier = sum(group.has_anchor and group.logprob[g] > group.anchor_logprob for g in rows)
    if group.has_anchor and likelier < config.ada_tau * len(rows):
        rows = dict.fromkeys(rows, 0.0)
    beside_anchor(group, rows, [1.0], config)


def deepest_level(group: Group, config: Any) -> None:
    group.keep(z_scores({g: match_depth(group.codes[g], group.targets) / group.levels for g in group.live}, config))


def lens(group: Group, config: Any) -> None:
    hits, n = group.hits(config), len(group.live)
    q = {g: math.exp(group.logprob[g] / group.levels) for g in group.live}
    D = 2 * max(q.values())
    if hits:
        D = max(D, n / math.fsum(1 / math.exp(group.logprob[g]) for g in hits))
    rewards = {g: 1.0 if g in hits else -q[g] / (D - q[g]) / n for g in group.live}
    if hits:
        group.keep(z_scores(rewards, config))
    else:
        group.keep({g: config.lens_alpha * d for g, d in minus_mean(rewards).items()})


def exp_reward_sft(group: Group, config: Any) -> None:
    group.keep({g: math.exp((group.reward[g] - 1) / config.reward_temperature) for g in group.live})


# constructors over the batch


def reinforce_pp(groups: list[Group], config: Any) -> None:
    _whiten(groups, [group.rewards() for group in groups], lambda var: math.sqrt(var + config.whiten_eps))


def reinforce_pp_baseline(groups: list[Group], config: Any) -> None:
    _whiten(groups, [minus_mean(group.rewards()) for group in groups], lambda var: math.sqrt(var + config.whiten_eps))


def spo(groups: list[Group], config: Any) -> None:
    gaps = [{g: r - group.baseline for g, r in group.rewards().items()} for group in groups]
    _whiten(groups, gaps, lambda var: math.sqrt(var) + config.whiten_eps)


def _whiten(groups: list[Group], values: list[dict[int, float]], scale: Callable[[float], float]) -> None:
    flat = [v for some in values for v in some.values()]
    mean, varied, below = average(flat), len(set(flat)) > 1, scale(spread(flat, 1) ** 2)
    for group, some in zip(groups, values, strict=True):
        group.keep({g: (v - mean if varied else 0.0) / below for g, v in some.items()})


def gpg(groups: list[Group], config: Any) -> None:
    flat = [r for group in groups for r in group.rewards().values()]
    rewarded = sum(r != 0 for r in flat)
    for group in groups:
        scale = len(flat) / rewarded / config.gpg_norm if rewarded else 0.0
        group.keep({g: scale * d for g, d in minus_mean(group.rewards()).items()})


def bnpo(groups: list[Group], config: Any) -> None:
    means = [sum(map(Fraction, group.rewards().values()), Fraction()) / len(group.live) for group in groups]
    centre = sum(means, Fraction()) / len(means)
    variance = sum(((m - centre) ** 2 for m in means), Fraction()) / max(1, len(means) - 1)
    for group, m in zip(groups, means, strict=True):
        factor = min(1.0, config.bnpo_max_weight)
        if variance:
            size = float(centre * (1 - centre) / variance - 1)
            a, b = (max(1.0, 1 + float(part) * size / 3) for part in (centre, 1 - centre))
            density = beta_density(float(m), a, b)
            factor = config.bnpo_max_weight if density * config.bnpo_max_weight <= 1 else 1 / density
        group.keep({g: d * factor for g, d in minus_mean(group.rewards()).items()})


def beta_density(x: float, a: float, b: float) -> float:
    def power(base: float, exponent: float) -> float:
        return exponent * math.log(base) if base else (0.0 if exponent == 0 else -math.inf)

    return math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + power(x, a - 1) + power(1 - x, b - 1))
