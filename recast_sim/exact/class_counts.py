"""Exact moments of a constructor's estimate on i.i.d. groups, by counting.

A constructor sees a rollout only through its reward and structural score, so the leaves of a prompt fall into C classes: the
hits, and the misses by score (all misses alike, for a constructor that does not read scores). Given its class a rollout is an
independent draw from pi restricted to it. So a group's coefficients depend on its class counts n_1..n_C alone, one canonical
group stands for each, and every prompt only re-weights them by its own multinomial probabilities. With a1_c and a2_c the sums
of the coefficients and of their squares over the sampled rows of class c, mu_c = E[s | c], m2_c = E[||s||^2 | c]:

    E[sum of coefficients on y] = E[a1_c(y)] pi(y | c(y))
    E||estimate||^2 = E[sum_c a2_c (m2_c - ||mu_c||^2) + ||sum_c a1_c mu_c + anchor s_anchor||^2]

A level-wise constructor sees how many codes a rollout shares with the target too, which with one target its score tells. Its
coefficients are one a level, s is then a vector a level, and a2 and m2 are tables over pairs of levels.

Axes: P prompts, Y leaves, C classes (0 is the hits), W columns of coefficients (1, or the L levels), K = (C + 1) W (class by
class, the anchor last), N groups, G rollouts, R regimes.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from recast_sim.exact.gram import gram, leaf_products
from recast_sim.exact.group_sums import AT, ExactError, GroupSums, sums_of
from recast_sim.exact.traits import equal, probe_groups
from recast_sim.signal import (
    REGIMES,
    SignalConfig,
    choose_anchor,
    exact_hit,
    structural_score,
)
from recast_sim.world.environment import Environment
from recast_sim.world.generators import torch_generator
from recast_sim.world.policy import TreePolicy

_CHUNK = 1_000_000  # numbers in the largest intermediate table: larger ones are new pages of memory each time
VECTOR_LIMIT = 5_000_000  # count vectors that are listed
COUNT_LIMIT = 2_000_000_000  # likely ones times (prompts + group size) that are counted: about a minute on one core
_TAIL = 1e-16  # probability of counts that are left out


@dataclass(frozen=True)
class LeafClasses:
    """Classes of the leaves under a policy: what the counting needs to know of each prompt.

    Attributes:
        scores_C: structural score of each class.
        class_PY, leaf_PY: class of each leaf, and its probability given the class.
        prob_PC: probability of a class.
        gram_PKK: inner products of the classes' mean score vectors and, last, the anchor's score vectors.
        spread_PCWW: m2 minus the products of mu.
        anchor_P, anchor_logprob_PL: the anchor's leaf and the log-probability of each of its codes.
    """

    scores_C: Tensor
    class_PY: Tensor
    leaf_PY: Tensor
    prob_PC: Tensor
    gram_PKK: Tensor
    spread_PCWW: Tensor
    anchor_P: Tensor
    anchor_logprob_PL: Tensor

    @property
    def columns(self) -> int:
        """W."""
        return self.spread_PCWW.shape[-1]

    @property
    def levels(self) -> int:
        """L."""
        return self.anchor_logprob_PL.shape[1]


@dataclass(frozen=True)
class Counted:
    """Exact moments of an estimate, by regime of the group as sampled (R in the order of `REGIMES`).

    Attributes:
        coefficient_RPYW: expected coefficient on each leaf, the anchor's among them; over R it sums to E[estimate].
        square_RP: E||estimate||^2; mean_square_P: ||E estimate||^2 of each prompt.
        before_RP, after_RP: probability of the regime before and after anchors were placed.
        learnable_P, width_P: probability of a non-zero advantage, expected kept rows.
    """

    coefficient_RPYW: Tensor
    square_RP: Tensor
    mean_square_P: Tensor
    before_RP: Tensor
    after_RP: Tensor
    learnable_P: Tensor
    width_P: Tensor


@torch.no_grad()
def leaf_classes(
    policy: TreePolicy, environment: Environment, prompts: int, config: SignalConfig, structural: bool, level_wise: bool = False
) -> LeafClasses:
    """Classes of the first `prompts` train prompts: hits and, if `structural`, misses by score (else all in one class)."""
    if not environment.config.reward_is_the_log:
        raise ExactError(
            f"reward_knows: {environment.config.reward_knows}, a reward apart from the anchors' targets, is not enumerated"
        )
    if level_wise and environment.config.targets > 1:
        raise ExactError("targets: with several of them a rollout's score does not tell which codes it shares with which")
    if config.anchor_choice == "random" and environment.config.targets > 1:
        raise ExactError("anchor_choice: 'random' among several targets is not enumerated")
    dtype = policy.biases[0].dtype
    x_PD, target_PT = environment.train.x_ND[:prompts].to(dtype), environment.train.target_NT[:prompts]
    class_PY, scores_C = _class_table(environment, target_PT, structural)
    target_logprob_PTL = policy.path_logprobs(x_PD, target_PT)
    everything = torch.ones_like(target_PT, dtype=torch.bool)
    chosen_P1 = choose_anchor(everything, config.anchor_choice, target_logprob_PTL.sum(2))[:, None]
    anchor_P = target_PT.gather(1, chosen_P1)[:, 0]
    W = policy.levels if level_wise else 1
    step = max(1, _CHUNK // (policy.leaves * (len(scores_C) + 1) * W**2))
    chunks = zip(x_PD.split(step), class_PY.split(step), anchor_P.split(step), strict=True)
    parts = [_classes_of(policy, x, leaf_class, anchor, len(scores_C), W) for x, leaf_class, anchor in chunks]
    leaf, prob, inner, spread = (torch.cat(columns) for columns in zip(*parts, strict=True))
    anchor_logprob_PL = target_logprob_PTL[torch.arange(len(x_PD)), chosen_P1[:, 0]]
    return LeafClasses(scores_C, class_PY, leaf, prob, inner, spread, anchor_P, anchor_logprob_PL)


def count_vectors(group_size: int, classes: int) -> Tensor:
    """All ways to share `group_size` rollouts among classes, int64 (N, C): C(G + C - 1, C - 1) of them."""
    table_NC, left_N = torch.zeros(1, 0, dtype=torch.int64), torch.tensor([group_size])
    for _ in range(classes - 1):
        row_N = torch.arange(len(left_N)).repeat_interleave(left_N + 1)
        taken_N = torch.arange(len(row_N)) - ((left_N + 1).cumsum(0) - left_N - 1)[row_N]
        table_NC, left_N = torch.cat([table_NC[row_N], taken_N[:, None]], dim=1), left_N[row_N] - taken_N
    return torch.cat([table_NC, left_N[:, None]], dim=1)


@torch.no_grad()
def count_moments(classes: LeafClasses, constructor: str, config: SignalConfig, group_size: int, last_slot: bool) -> Counted:
    """Exact moments of one constructor's estimate on i.i.d. groups (`config.normaliser` is taken as "groups").

    Raises:
        ExactError: the anchor's log-probability changes more than a factor on the anchor's row, or there are too many counts.
    """
    config = replace(config, normaliser="groups")
    prompts = len(classes.prob_PC)
    counts_NC, last_N = _canonical(_likely_counts(constructor, classes, group_size), last_slot)
    logprob_PC = classes.prob_PC.log().clamp(min=-1e5)  # an empty class: e^-100000 is 0, and 0 * -100000 is 0
    step = max(1, _CHUNK // (group_size + prompts))
    total = torch.zeros(())
    for counts, last in zip(counts_NC.split(step), last_N.split(step), strict=True):
        sums = sums_of(constructor, config, _rows_of(counts, last, group_size), classes.scores_C, classes.levels)
        features = _features(sums)
        pmf_PN = (logprob_PC @ counts.T.double() + _log_ways(counts, last, group_size)).exp()
        regimes = [pmf_PN[:, sums.regime_N == r] @ features[sums.regime_N == r] for r in range(len(REGIMES))]
        total = total + torch.stack(regimes)
    return _counted(classes, total, _anchor_factor(constructor, config, group_size, classes))


def _class_table(environment: Environment, target_PT: Tensor, structural: bool) -> tuple[Tensor, Tensor]:
    """Class of each leaf, int64 (P, Y), and the score of each class, (C,)."""
    codes_YL, tables = torch.from_numpy(environment.catalog.leaf_codes), []
    for target in target_PT.split(max(1, _CHUNK // codes_YL.numel())):
        sids = codes_YL.expand(len(target), -1, -1)
        score = structural_score(sids, codes_YL[target]).double() if structural else torch.zeros(sids.shape[:2]).double()
        tables.append(score.masked_fill(exact_hit(sids, codes_YL[target]) > 0, -1.0))  # -1 sorts the hits first
    values, class_PY = torch.cat(tables).unique(return_inverse=True)
    if len(values) == 1:  # every leaf is a hit
        values = torch.tensor([-1.0, 0.0]).double()
    return class_PY, torch.where(values < 0, 1.0, values)


def _classes_of(
    policy: TreePolicy, x_PD: Tensor, class_PY: Tensor, anchor_P: Tensor, classes: int, W: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    pi_PY = policy.leaf_logprobs(x_PD).exp()
    prob_PC = pi_PY.new_zeros(len(pi_PY), classes).scatter_add(1, class_PY, pi_PY)
    prob_PC = prob_PC / prob_PC.sum(1, keepdim=True)
    leaf_PY = pi_PY / prob_PC.gather(1, class_PY)
    member_PCY = (class_PY[:, None] == torch.arange(classes)[:, None]) * leaf_PY[:, None]
    anchor_P1Y = torch.zeros_like(leaf_PY).scatter(1, anchor_P[:, None], 1.0)[:, None]
    rows_PKY = torch.cat([member_PCY, anchor_P1Y], dim=1)
    rows_PKYW = (rows_PKY[:, :, None, :, None] * torch.eye(W, dtype=pi_PY.dtype)[:, None]).flatten(
        1, 2
    )  # one a class and column
    inner_PKK = gram(policy, x_PD, rows_PKYW if W > 1 else rows_PKY).sum(0)
    products_PYWW = leaf_products(policy, x_PD, by_level=W > 1)
    second_PCWW = (member_PCY @ products_PYWW.flatten(2)).unflatten(2, (W, W))
    own_PCWW = inner_PKK.unflatten(1, (-1, W)).unflatten(3, (-1, W)).diagonal(dim1=1, dim2=3).permute(0, 3, 1, 2)[:, :-1]
    return leaf_PY, prob_PC, inner_PKK, second_PCWW - own_PCWW


def _features(sums: GroupSums) -> Tensor:
    """Columns whose expectations are wanted: a1, anchor (K), products (K K), a2 (C W W), after (R), learnable, width, 1."""
    first_NK = torch.cat([sums.a1_NCW.flatten(1), sums.anchor_NW], dim=1)
    products = (first_NK[:, :, None] * first_NK[:, None]).flatten(1)
    after = torch.nn.functional.one_hot(sums.after_N, len(REGIMES)).double()
    ends = torch.stack([sums.learnable_N, sums.width_N, torch.ones_like(sums.width_N)], dim=1)
    return torch.cat([first_NK, products, sums.a2_NCWW.flatten(1), after, ends], dim=1)


def _counted(classes: LeafClasses, total_RPF: Tensor, factor_PW: Tensor) -> Counted:
    C, W = classes.prob_PC.shape[1], classes.columns
    K = (C + 1) * W
    widths = [K, K**2, C * W**2, len(REGIMES), 1, 1, 1]
    first, products, second, after, learnable, width, one = total_RPF.split(widths, dim=2)
    scale_PK = torch.cat([factor_PW.new_ones(len(factor_PW), C * W), factor_PW], dim=1)
    first, inner_PKK = first * scale_PK, classes.gram_PKK
    scaled_PKK = inner_PKK * scale_PK[:, :, None] * scale_PK[:, None]
    first_RPCW = first.unflatten(2, (C + 1, W))
    of_leaf_RPY = classes.class_PY.expand(len(REGIMES), -1, -1)
    columns = [first_RPC[:, :, :-1].gather(2, of_leaf_RPY) * classes.leaf_PY for first_RPC in first_RPCW.unbind(3)]
    coefficient = torch.stack(columns, 3) if W > 1 else columns[0][..., None]
    at_anchor = classes.anchor_P[:, None, None].expand(len(REGIMES), -1, 1, W)
    square = (products.unflatten(2, (K, K)) * scaled_PKK).sum((2, 3)) + (second * classes.spread_PCWW.flatten(1)).sum(2)
    mean_PK = first.sum(0)
    return Counted(
        coefficient_RPYW=coefficient.scatter_add(2, at_anchor, first_RPCW[:, :, -1:]),
        square_RP=square,
        mean_square_P=torch.einsum("pk,pkj,pj->p", mean_PK, inner_PKK, mean_PK),
        before_RP=one[..., 0],
        after_RP=after.sum(0).T,
        learnable_P=learnable.sum((0, 2)),
        width_P=width.sum((0, 2)),
    )


def _likely_counts(constructor: str, classes: LeafClasses, group_size: int) -> Tensor:
    """Count vectors but for those with a class in a tail of less than `_TAIL` under every prompt: rounding, and much faster."""
    prompts, C = classes.prob_PC.shape
    counts = math.comb(group_size + C - 1, group_size)
    if counts <= VECTOR_LIMIT:
        counts_NC = count_vectors(group_size, C)
        likely_CK = torch.stack([_likely(p_P, group_size) for p_P in classes.prob_PC.T])
        counts_NC = counts_NC[torch.stack([likely_CK[c, counts_NC[:, c]] for c in range(C)]).all(0)]
        counts = len(counts_NC) * (prompts + group_size)
        if counts <= COUNT_LIMIT:
            return counts_NC
    raise ExactError(
        f"{constructor}: groups of {group_size} on {prompts} prompts exceed the limit of what is counted: {counts}"
    )


def _likely(p_P: Tensor, group_size: int) -> Tensor:
    """Numbers of rows of a class, bool (G + 1,), that are not in a far tail of all the prompts' binomials."""
    k = torch.arange(group_size + 1).double()
    ways = torch.lgamma(torch.tensor(group_size + 1.0).double()) - torch.lgamma(k + 1) - torch.lgamma(group_size - k + 1)
    pmf_PK = (ways + torch.xlogy(k, p_P[:, None]) + torch.xlogy(group_size - k, (1 - p_P).clamp(min=0)[:, None])).exp()
    return torch.minimum(pmf_PK.cumsum(1), pmf_PK.flip(1).cumsum(1).flip(1)).amax(0) >= _TAIL


def _canonical(counts_NC: Tensor, last_slot: bool) -> tuple[Tensor, Tensor]:
    """Count vectors (N, C) and the class of the last row, (N,): -1 where it does not matter, else one group a class."""
    if not last_slot:
        return counts_NC, torch.full((len(counts_NC),), -1)
    row, last = (counts_NC > 0).nonzero(as_tuple=True)
    return counts_NC[row], last


def _rows_of(counts_NC: Tensor, last_N: Tensor, group_size: int) -> Tensor:
    """Class of each row, int64 (N, G): class by class, but for the last row's where one is asked for."""
    shown = last_N >= 0
    rest = counts_NC - torch.nn.functional.one_hot(last_N.clamp(min=0), counts_NC.shape[1]) * shown[:, None]
    place = torch.arange(group_size).expand(len(counts_NC), -1).contiguous()
    class_NG = torch.searchsorted(rest.cumsum(1), place, right=True).clamp(max=counts_NC.shape[1] - 1)
    class_NG[:, -1] = torch.where(shown, last_N, class_NG[:, -1])
    return class_NG


def _log_ways(counts_NC: Tensor, last_N: Tensor, group_size: int) -> Tensor:
    """Log of the number of orders of a group's rows, only those with the given last row where one is asked for."""
    ways = torch.lgamma(torch.tensor(group_size + 1.0).double()) - torch.lgamma(counts_NC.double() + 1).sum(1)
    last = counts_NC.gather(1, last_N.clamp(min=0)[:, None])[:, 0].double()
    return ways + torch.where(last_N >= 0, (last / group_size).log(), 0.0)


def _anchor_factor(constructor: str, config: SignalConfig, group_size: int, classes: LeafClasses) -> Tensor:
    """Factors on the anchor's row of each prompt, against one whose codes have log-probability `AT`, (P, W)."""
    C = len(classes.scores_C)
    class_NG = probe_groups(group_size, C, torch_generator(0, "probes", group_size))

    def sums(class_NG: Tensor, logprob_NL: Tensor) -> GroupSums:
        return sums_of(constructor, config, class_NG, classes.scores_C, classes.levels, logprob_NL)

    at, away = (sums(class_NG, torch.full((len(class_NG), classes.levels), logprob)) for logprob in (AT, 5 * AT))
    anchored_N = (at.anchor_NW != 0).all(1)
    ratio_NW = away.anchor_NW[anchored_N] / at.anchor_NW[anchored_N]
    rest = not bool(away.anchor_NW[~anchored_N].any() or at.anchor_NW[~anchored_N].any())
    same = equal(at.a1_NCW, away.a1_NCW) and equal(at.a2_NCWW, away.a2_NCWW) and rest
    if not same or (len(ratio_NW) and not equal(ratio_NW, ratio_NW[:1].expand_as(ratio_NW))):
        raise ExactError(f"{constructor}: the anchor's log-probability changes more than a factor on its row")
    logprob_PL = classes.anchor_logprob_PL
    if not bool(anchored_N.any()):
        return logprob_PL.new_ones(len(logprob_PL), classes.columns)
    group = int(anchored_N.nonzero()[0])
    return sums(class_NG[[group]].expand(len(logprob_PL), -1), logprob_PL).anchor_NW / at.anchor_NW[group]
