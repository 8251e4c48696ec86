"""Every constructor once more, in plain Python: what the papers and the docstrings say, one group and one row at a time.

No tensors: a batch is a dict of nested lists under the argument names of `construct`. `expected` returns what the plan and the
signal must hold.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any


@dataclass(frozen=True)
class Expected:
    """Outcome of a constructor: by kept row (`rows`, `numbers`, `weights`, `anchors`), else by prompt."""

    group_size: int
    rows: list[int]
    numbers: list[list[float]]
    weights: list[float]
    anchors: list[bool]
    slot: list[int]
    positive: list[int]
    negative: list[int]
    redraw: list[bool]
    normaliser: float


@dataclass
class Group:
    """One prompt. `live` are the rows that count; `numbers` holds the kept rows, a list of one number or of one a level."""

    reward: list[float]
    live: list[int]
    score: list[float] = field(default_factory=list)
    logprob: list[float] = field(default_factory=list)
    reference: list[float] = field(default_factory=list)
    codes: list[list[int]] = field(default_factory=list)
    entropy: list[list[float]] = field(default_factory=list)
    targets: list[list[int]] = field(default_factory=list)
    has_anchor: bool = False
    anchor_codes: list[int] = field(default_factory=list)
    anchor_logprob: float = math.nan
    anchor_reference: float = math.nan
    anchor_levels: list[float] = field(default_factory=list)
    baseline: float = math.nan
    levels: int = 0
    slot: int = -1
    positive: int = -1
    negative: int = -1
    redraw: bool = False
    weight: float | None = None
    numbers: dict[int, list[float]] = field(default_factory=dict)

    def hits(self, config: Any) -> list[int]:
        return [g for g in self.live if self.reward[g] > config.hit_above]

    def misses(self, config: Any) -> list[int]:
        return [g for g in self.live if not self.reward[g] > config.hit_above]

    def sampled(self) -> list[int]:
        return [g for g in self.live if g != self.slot]

    def rewards(self) -> dict[int, float]:
        return {g: self.reward[g] for g in self.live}

    def append(self) -> None:
        """Room for an anchor behind the last row."""
        self.reward = [*self.reward, 0.0]
        self.score = [*self.score, 0.0] if self.score else []
        self.codes = [*self.codes, [-1] * self.levels] if self.codes else []

    def place(self, slot: int, config: Any) -> None:
        """The anchor in a row: it is the ground truth."""
        self.slot, self.reward[slot] = slot, config.anchor_reward
        self.live = sorted({*self.live, slot})
        if self.score:
            self.score[slot] = 1.0
        if self.codes:
            self.codes[slot] = self.anchor_codes

    def keep(self, numbers: dict[int, float]) -> None:
        """One number a row, on all the rows that are given."""
        self.numbers = {g: [number] for g, number in numbers.items()}

    def drop_zeros(self) -> None:
        self.numbers = {g: row for g, row in self.numbers.items() if any(row)}


def expected(name: str, batch: dict[str, Any], config: Any) -> Expected:
    """What `construct(name, **batch, config=config)` must give."""
    groups = [_group(batch, p) for p in range(len(batch["rewards_PG"]))]
    natural = sum(bool(group.hits(config)) for group in groups) / len(groups)
    ORACLES[name](groups, config)
    width = len(groups[0].reward)
    places = [(p, g) for p, group in enumerate(groups) for g in sorted(group.numbers)]
    return Expected(
        group_size=width,
        rows=[p * width + g for p, g in places],
        numbers=[groups[p].numbers[g] for p, g in places],
        weights=[_weight(groups[p], config, natural) if g == groups[p].slot else 1.0 for p, g in places],
        anchors=[g == groups[p].slot for p, g in places],
        slot=[group.slot for group in groups],
        positive=[group.positive for group in groups],
        negative=[group.negative for group in groups],
        redraw=[group.redraw for group in groups],
        normaliser=max(
            1, {"active_rows": len(places), "groups": len(groups), "all_rows": len(groups) * width}[config.normaliser]
        ),
    )


def _group(batch: dict[str, Any], p: int) -> Group:
    reward = [float(r) for r in batch["rewards_PG"][p]]
    valid = batch["valid_PG"][p] if batch.get("valid_PG") is not None else [True] * len(reward)

    def of(name: str, default: Any) -> Any:
        return default if batch.get(name) is None else batch[name][p]

    targets = of("targets_PTL", [])
    codes = [list(row) for row in of("sids_PGL", [])]
    return Group(
        reward=reward,
        live=[g for g, v in enumerate(valid) if v],
        score=[float(u) for u in of("structural_PG", [])],
        logprob=list(of("logprob_PG", [])),
        reference=list(of("reference_logprob_PG", [])),
        codes=codes,
        entropy=of("entropy_PGL", []),
        targets=[target for target in targets if min(target) >= 0],
        has_anchor=bool(of("has_anchor_P", False)),
        anchor_codes=list(of("anchor_sids_PL", targets[0] if targets else [])),
        anchor_logprob=of("anchor_logprob_P", math.nan),
        anchor_reference=of("anchor_reference_logprob_P", math.nan),
        anchor_levels=of("anchor_logprob_PL", []),
        baseline=of("baseline_P", math.nan),
        levels=len(codes[0]) if codes else 0,
    )


def _weight(group: Group, config: Any, natural: float) -> float:
    """Factor on an anchor's row; `natural` is the share of groups with a sampled hit."""
    if group.weight is not None:
        return group.weight
    if config.anchor_weighting == "ratio_one":
        return 1.0
    if config.anchor_weighting == "annealed":
        return 1.0 - natural
    pi = math.exp(group.anchor_logprob)
    return max(pi, config.anchor_floor) if config.anchor_weighting == "clipped" else _shaped(pi, config.luffy_gamma)


def _shaped(pi: float, gamma: float) -> float:
    """The derivative of pi / (pi + gamma) in log pi: pi times gamma / (pi + gamma)^2."""
    return pi * gamma / (pi + gamma) ** 2


# statistics


def average(values: Iterable[float]) -> float:
    """The mean, rounded once for the sum and once for the division."""
    numbers = list(values)
    return math.fsum(numbers) / len(numbers)


def spread(values: Sequence[float], ddof: int) -> float:
    """The standard deviation: 0 where the values agree, whatever the rounding, or are too few."""
    if len(set(values)) < 2:
        return 0.0
    mean = average(values)
    return math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - ddof))


def minus_mean(values: dict[int, float]) -> dict[int, float]:
    """0 where the values agree, whatever the rounding."""
    mean = average(values.values())
    return dict.fromkeys(values, 0.0) if len(set(values.values())) < 2 else {g: v - mean for g, v in values.items()}


def z_scores(values: dict[int, float], config: Any) -> dict[int, float]:
    """GRPO's numbers: 0 where the values do not vary; a lone row by `singleton`."""
    if len(values) == 1 and config.singleton == "raw":
        return dict(values)
    std = spread(list(values.values()), config.std_ddof)
    return {g: d / (std + config.std_eps) for g, d in minus_mean(values).items()}


# picking rows


def in_order(group: Group, rows: Iterable[int], key: Callable[[int], float], config: Any) -> list[int]:
    """Rows from the highest key on; ties by the config's rule, then the first row."""
    likely = config.tie_rule == "highest_logprob"
    return sorted(rows, key=lambda g: (-key(g), -group.logprob[g] if likely else 0.0, g))


def best_hit(group: Group, config: Any) -> int:
    return next(iter(in_order(group, group.hits(config), lambda g: group.reward[g], config)), -1)


def hardest_misses(group: Group, config: Any, count: int, without: int = -1) -> list[int]:
    rows = [g for g in group.misses(config) if g != without]
    return in_order(group, rows, lambda g: group.score[g], config)[:count]


def empty_row(group: Group) -> int:
    """The first row that holds no valid rollout."""
    return next((g for g in range(len(group.reward)) if g not in group.live), -1)


def repair(group: Group, config: Any) -> None:
    """ReCast's: only without a hit; an empty row costs nothing, else the lowest score goes."""
    if group.has_anchor and not group.hits(config):
        slot = empty_row(group)
        if slot < 0:
            slot = in_order(group, group.live, lambda g: -group.score[g], config)[0]
        group.place(slot, config)


def supervise(group: Group, config: Any) -> None:
    """An anchor in every group: an empty row, else a hit, else the lowest score."""
    if not group.has_anchor:
        return
    slot, hits = empty_row(group), group.hits(config)
    if slot < 0:
        slot = in_order(group, hits or group.live, (lambda _: 0.0) if hits else (lambda g: -group.score[g]), config)[0]
    group.place(slot, config)


def inject_last(group: Group, config: Any) -> None:
    if group.has_anchor:
        group.place(len(group.reward) - 1, config)


def pair(group: Group, config: Any, positive: int, negative: int) -> None:
    group.positive, group.negative = positive, negative if config.w_minus else -1
    numbers = {positive: config.w_plus, negative: -config.w_minus}
    group.keep({g: number for g, number in numbers.items() if g >= 0 and number})


def boundary(group: Group, config: Any) -> None:
    """The best hit against the hardest miss; nothing where one of them is missing."""
    positive, negative = best_hit(group, config), next(iter(hardest_misses(group, config, 1)), -1)
    if positive >= 0 and negative >= 0:
        pair(group, config, positive, negative)


def rescue(group: Group, config: Any) -> None:
    """The anchor alone where nothing was hit, blind to scores."""
    if group.has_anchor and not group.hits(config):
        slot = empty_row(group)
        group.place(slot if slot >= 0 else in_order(group, group.live, lambda _: 0.0, config)[0], config)
        group.positive, group.negative = group.slot, -1
        group.keep({group.slot: config.w_anchor})


# constructors, group by group


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
        group.weight = _shaped(math.exp(group.anchor_logprob), config.luffy_gamma)


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


# by level


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


def _each(oracle: Callable[[Group, Any], None]) -> Callable[[list[Group], Any], None]:
    def over(groups: list[Group], config: Any) -> None:
        for group in groups:
            oracle(group, config)

    return over


_BY_GROUP = {
    **{f.__name__: f for f in (grpo, dr_grpo, rloo, dapo, max_rl, pass_at_k, ngrpo, rank_reward, pods, add_gt, two_grpo, care)},
    **{f.__name__: f for f in (luffy, visurf, wpauc, repair_only, recast, sft, sft_hard_negative, s_dpo, tempered_anchor)},
    **{f.__name__: f for f in (mixture_anchor, hits_light_anchor, beam_listwise, composite)},
    **{f.__name__: f for f in (hybrid, grpo_anchor, rloo_anchor, near_miss, sapo, sibling, sibling_grpo, recast_masked)},
    **{f.__name__: f for f in (recast_diverging, dft, rl_zvp, chord, deepest_level, lens, exp_reward_sft, grpo_sr, ada_grpo)},
    "boundary_only": boundary,
    "w_reinforce": reinforce(lambda config: config.positive_weight, 1.0),
    "psr": reinforce(lambda config: 1.0, 0.0),
    "nsr": reinforce(lambda config: 0.0, 1.0),
}
ORACLES: dict[str, Callable[[list[Group], Any], None]] = {
    **{name: _each(oracle) for name, oracle in _BY_GROUP.items()},
    **{f.__name__: f for f in (reinforce_pp, reinforce_pp_baseline, gpg, bnpo, spo)},
}
