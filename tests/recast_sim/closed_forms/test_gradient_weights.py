"""Expected gradients of the constructors on a policy that can be enumerated, against their closed forms.

The policy is a softmax over six leaves with logits theta, so grad log pi(y) = e_y - pi. For binary rewards and i.i.d.
rollouts E[sum of A_i grad log pi(y_i)] / G = w(p) grad p, with p the probability of the targets. Expectations are taken
in three ways: over the hit count K, over all 6^G groups, and by Monte Carlo with a bound from its own standard error.
"""

import itertools
import math

import pytest
import torch

from recast_sim.signal import SignalConfig, construct, regime_shares

pytestmark = pytest.mark.property

PI = torch.tensor([0.4, -0.8, 1.0, 0.0, -0.3, 0.7], dtype=torch.float64).softmax(0)
LEAVES = len(PI)
SCORE_VECTORS = torch.eye(LEAVES, dtype=torch.float64) - PI  # row y: grad log pi(y)
ONE, TWO = (1,), (1, 4)  # target leaves
ANCHOR = 1
STRUCTURAL = torch.tensor([0.1, 1.0, 0.3, 0.0, 0.2, 0.4], dtype=torch.float64)  # distinct on the misses
FLAT = torch.full((LEAVES,), 0.01, dtype=torch.float64)
TINY = 1e-13  # eps of the two denominators: the closed forms have none


def hit_rate(targets):
    return PI[list(targets)].sum()


def grad_p(targets):
    return (PI[:, None] * SCORE_VECTORS)[list(targets)].sum(0)


def signal_of(name, leaves_PG, targets, scores=STRUCTURAL, **fields):
    config = SignalConfig(**({"std_eps": TINY, "mean_eps": TINY, "pods_width": 2, "pass_k": 2} | fields))
    rewards = torch.isin(leaves_PG, torch.tensor(targets)).double()
    anchors = torch.ones(len(leaves_PG), dtype=torch.bool)
    return construct(name, rewards, scores[leaves_PG], has_anchor_P=anchors, config=config)


def on_leaves(signal, leaves_PG, advantages_PG):
    """Sum of the advantages that fall on each leaf, divided by G: (P, leaves)."""
    G = leaves_PG.shape[1]
    anchor = torch.arange(G) == signal.anchor_slot_P[:, None]
    leaves = leaves_PG.masked_fill(anchor, ANCHOR)
    return torch.zeros(len(leaves), LEAVES, dtype=torch.float64).scatter_add(1, leaves, advantages_PG / G)


def all_groups(G):
    """Every group of G leaves and its probability."""
    leaves = torch.tensor(list(itertools.product(range(LEAVES), repeat=G)))
    return leaves, PI[leaves].prod(1)


def binomial(p, G):
    return torch.tensor([math.comb(G, k) * p**k * (1 - p) ** (G - k) for k in range(G + 1)], dtype=torch.float64)


def beta_ratio(a, b, hits, misses):
    """B(a + hits, b + misses) / B(a, b): the chance of that run of hits and misses under a Beta(a, b) hit rate."""
    log_b = [math.lgamma(x) + math.lgamma(y) - math.lgamma(x + y) for x, y in ((a + hits, b + misses), (a, b))]
    return math.exp(log_b[0] - log_b[1])


def beta_binomial(a, b, G):
    pmf = [math.comb(G, k) * beta_ratio(a, b, k, G - k) for k in range(G + 1)]
    return torch.tensor(pmf, dtype=torch.float64)


def grpo_weight(p, G, ddof=1):
    mean_spread = sum(pmf * math.sqrt(k * (G - k)) for k, pmf in enumerate(binomial(p, G).tolist()))
    return mean_spread / (G * p * (1 - p)) * math.sqrt((G - ddof) / G)


def repair_weight(p, G):
    """What repair_only adds to grpo (ddof 1) where all misses score alike.

    A repaired group (probability (1 - p)^G) holds one anchor, A = (G - 1) / sqrt(G), and G - 1 misses, A = -1 / sqrt(G);
    an anchor is grad p / p and a miss -grad p / (1 - p) on average. Together: (G - 1) / G^1.5 * (1 - p)^G / (p (1 - p)).
    With scores that differ, the removed miss is not an average one, and the negative half tilts towards the others.
    """
    return (G - 1) / G**1.5 * (1 - p) ** G / (p * (1 - p))


def by_hit_count(p, G, numbers):
    """E[K a_hit / p - (G - K) a_miss / (1 - p)] / G for (a_hit, a_miss) = numbers(K)."""
    total = 0.0
    for K, chance in enumerate(binomial(p, G).tolist()):
        hit, miss = numbers(K)
        total += chance * (K * hit / p - (G - K) * miss / (1 - p)) / G
    return total


def ngrpo_weight(p, G):
    """Mean (K + 1)/(G + 1) and std (ddof 1) sqrt((K + 1)(G - K) / (G (G + 1))) with the virtual hit."""
    return by_hit_count(
        p,
        G,
        lambda K: (
            (0.0, 0.0)
            if K == G
            else (
                math.sqrt(G / (G + 1)) * math.sqrt((G - K) / (K + 1)),
                -math.sqrt(G / (G + 1)) * math.sqrt((K + 1) / (G - K)),
            )
        ),
    )


def passk_weight(p, G, k=2):
    def numbers(K):
        fail = math.comb(G - K, k) / math.comb(G, k)
        if fail in (0.0, 1.0):
            return 0.0, 0.0
        missed = math.comb(G - K - 1, k - 1) / math.comb(G - 1, k - 1)
        return fail / math.sqrt(fail * (1 - fail)), (fail - missed) / math.sqrt(fail * (1 - fail))

    return by_hit_count(p, G, numbers)


def anchor_alone_weight(p, G, w_anchor=0.3):
    """What the anchor alone adds, one target: w_anchor grad p / p in the all-zero groups; G divides as everywhere here."""
    return w_anchor * (1 - p) ** G / (p * G)


WEIGHTS = {  # dapo's is per drawn group: the dropped ones count as zero gradients
    "grpo": grpo_weight,
    "dapo": grpo_weight,
    "dr_grpo": lambda p, G: (G - 1) / G,
    "rloo": lambda p, G: 1.0,
    "max_rl": lambda p, G: (1 - (1 - p) ** G) / p - (1 - p) ** (G - 1),
    "reward_share": lambda p, G: (1 - (1 - p) ** G) / p,
    "repair_only": lambda p, G: grpo_weight(p, G) + repair_weight(p, G),
    "w_reinforce": lambda p, G: 1.1,  # lambda from the hits, 1 from the misses
    "psr": lambda p, G: 1.0,
    "nsr": lambda p, G: 1.0,
    "ngrpo": ngrpo_weight,
    "pass_at_k": passk_weight,
    "two_grpo": lambda p, G: math.sqrt(0.5) * 2 / G,  # two of G rows are read
    "grpo_anchor": lambda p, G: grpo_weight(p, G) + anchor_alone_weight(p, G),
    "rloo_anchor": lambda p, G: 1.0 + anchor_alone_weight(p, G),
}
ONE_TARGET = ("repair_only", "grpo_anchor", "rloo_anchor")  # their anchor is one leaf and not a mixture of the targets


def hardest_miss(G, without_hit=False):
    """Chance of each leaf to be the sampled miss of the highest score among G rollouts, one target.

    With F_j the probability of the misses up to score j it is (p + F_j)^G - (p + F_(j-1))^G. `without_hit` counts only the
    groups that hold no hit at all, which is the same with p = 0.
    """
    chance, below = torch.zeros(LEAVES, dtype=torch.float64), 0.0 if without_hit else hit_rate(ONE)
    for leaf in STRUCTURAL.argsort().tolist()[:-1]:
        chance[leaf] = (below + PI[leaf]) ** G - below**G
        below = below + PI[leaf]
    return chance


# Over the hit count


@pytest.mark.parametrize(
    "name",
    ["grpo", "dapo", "dr_grpo", "rloo", "max_rl", "w_reinforce", "psr", "nsr", "ngrpo", "pass_at_k", "reward_share"],
)
@pytest.mark.parametrize("G", [2, 3, 8, 32])
@pytest.mark.parametrize("p", [0.0054, 0.1, 0.5, 0.97])
def test_weight_by_enumeration_over_the_hit_count(name, G, p):
    """A hit is grad p / p and a miss -grad p / (1 - p) on average, so K decides the weight."""
    K = torch.arange(G + 1)
    rewards = (torch.arange(G) < K[:, None]).double()
    advantages = construct(name, rewards, config=SignalConfig(std_eps=TINY, mean_eps=TINY, pass_k=2)).advantages_PG
    on_hits, on_misses = (advantages * rewards).sum(1), (advantages * (1 - rewards)).sum(1)
    weight = (binomial(p, G) * (on_hits / p - on_misses / (1 - p))).sum() / G
    assert weight.item() == pytest.approx(WEIGHTS[name](p, G), rel=1e-9)


@pytest.mark.parametrize("name", ["grpo", "two_grpo"])
@pytest.mark.parametrize(("ddof", "weight"), [(0, 1.0), (1, math.sqrt(0.5))])
@pytest.mark.parametrize("p", [0.0054, 0.3, 0.9])
def test_grpo_of_two_weighs_the_same_at_every_hit_rate(name, ddof, weight, p):
    """Two-GRPO's fact: the weight is exactly 1 with ddof 0 (and sqrt(1/2) with ddof 1), whatever p."""
    config = SignalConfig(std_eps=TINY, std_ddof=ddof)
    hit, miss = construct(name, [[1.0, 0.0]], config=config).advantages_PG[0].double().tolist()
    assert 2 * p * (1 - p) * (hit / p - miss / (1 - p)) / 2 == pytest.approx(weight, rel=1e-6)
    assert grpo_weight(p, 2, ddof) == pytest.approx(weight, rel=1e-12)


def test_grpo_tends_to_the_root_of_g_minus_one_where_hits_are_rare():
    assert grpo_weight(1e-7, 32, ddof=0) == pytest.approx(math.sqrt(31), rel=1e-4)


def test_the_papers_numbers_for_repair_without_contrast():
    """At G = 32 and p = .0054 repair adds 27 (ddof 0) to grpo's 5.3."""
    assert repair_weight(0.0054, 32) / math.sqrt(31 / 32) == pytest.approx(27, abs=0.5)
    assert grpo_weight(0.0054, 32, ddof=0) == pytest.approx(5.3, abs=0.1)


# Over all groups


@pytest.mark.parametrize(
    ("name", "targets"),
    [(name, targets) for name in WEIGHTS for targets in (ONE, TWO) if name not in ONE_TARGET or targets == ONE],
)
@pytest.mark.parametrize("G", [2, 3, 4])
def test_expected_gradient_over_all_groups(name, targets, G):
    leaves, probability = all_groups(G)
    signal = signal_of(name, leaves, targets, scores=FLAT)
    gradient = probability @ on_leaves(signal, leaves, signal.advantages_PG) @ SCORE_VECTORS
    weight = WEIGHTS[name](hit_rate(targets).item(), G)
    torch.testing.assert_close(gradient, weight * grad_p(targets), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("G", [2, 3, 4])
@pytest.mark.parametrize(("plus", "minus"), [(1.0, 1.0), (0.7, 0.3)])
def test_recasts_halves_over_all_groups(G, plus, minus):
    """With one target the positive half is w+ grad log p in every group that has a miss, independent of G.

    All-hit groups (probability p^G) give nothing, so its expectation is (1 - p^G) w+ grad log p. The negative half falls
    on the sampled miss of the highest score: repair takes the lowest, so it cannot change which that is.
    """
    leaves, probability = all_groups(G)
    signal = signal_of("recast", leaves, ONE, w_plus=plus, w_minus=minus)
    p = hit_rate(ONE)
    has_miss = (leaves != ONE[0]).any(1)
    assert torch.equal(signal.learnable_P, has_miss)
    halves = [probability @ on_leaves(signal, leaves, signal.advantages_PG.clamp(*side)) * G for side in ((0,), (None, 0))]
    grad_log_p = grad_p(ONE) / p
    torch.testing.assert_close(halves[0] @ SCORE_VECTORS, plus * (1 - p**G) * grad_log_p)
    torch.testing.assert_close(halves[1], -minus * hardest_miss(G))


@pytest.mark.parametrize("G", [2, 3, 4])
def test_recasts_positive_half_is_the_anchors_own_gradient_in_each_group_with_a_miss(G):
    leaves, _ = all_groups(G)
    signal = signal_of("recast", leaves, ONE, w_plus=0.7)
    positive = on_leaves(signal, leaves, signal.advantages_PG.clamp(min=0)) * G @ SCORE_VECTORS
    expected = (leaves != ONE[0]).any(1, keepdim=True) * 0.7 * grad_p(ONE) / hit_rate(ONE)
    torch.testing.assert_close(positive, expected)


@pytest.mark.parametrize("power", [1.0, 0.5, 0.0])
def test_tempered_anchor_at_power_1_is_the_exact_gradient_of_pass_at_1(power):
    """pi^power grad log pi = pi^(power - 1) grad pi, in every group, whatever was sampled: no variance, no rollout."""
    leaves, _ = all_groups(2)
    rewards = (leaves == ONE[0]).double()
    logprob = PI[ANCHOR].log().expand(len(leaves))
    plan = construct(
        "tempered_anchor",
        rewards,
        has_anchor_P=torch.ones(len(leaves), dtype=torch.bool),
        anchor_logprob_P=logprob,
        config=SignalConfig(anchor_power=power),
    ).plan
    gradient = (plan.weights_N * plan.advantages_N)[:, None] * SCORE_VECTORS[ANCHOR]
    expected = grad_p(ONE) * hit_rate(ONE) ** (power - 1)
    torch.testing.assert_close(gradient, expected.expand(len(leaves), -1))
    theta = PI.log().clone().requires_grad_()
    (exact,) = torch.autograd.grad(theta.softmax(0)[ONE[0]], theta)
    torch.testing.assert_close(grad_p(ONE), exact)


@pytest.mark.parametrize("G", [2, 3, 4])
def test_hybrids_halves_over_all_groups(G):
    """The pair where a hit and a miss were sampled, the anchor alone at .3 where no hit was."""
    leaves, probability = all_groups(G)
    signal = signal_of("hybrid", leaves, ONE, w_anchor=0.3)
    p = hit_rate(ONE)
    halves = [probability @ on_leaves(signal, leaves, signal.advantages_PG.clamp(*side)) * G for side in ((0,), (None, 0))]
    share = 1 - p**G - (1 - p) ** G + 0.3 * (1 - p) ** G
    torch.testing.assert_close(halves[0] @ SCORE_VECTORS, share * grad_p(ONE) / p)
    torch.testing.assert_close(halves[1], hardest_miss(G, without_hit=True) - hardest_miss(G))


@pytest.mark.parametrize("G", [2, 3, 4])
def test_near_miss_spares_the_close_misses_over_all_groups(G):
    leaves, probability = all_groups(G)
    signal = signal_of("near_miss", leaves, ONE)
    negative = probability @ on_leaves(signal, leaves, signal.advantages_PG.clamp(max=0)) * G
    torch.testing.assert_close(negative, -(1 - STRUCTURAL) * hardest_miss(G))


@pytest.mark.parametrize("name", ["recast", "sft_hard_negative"])
@pytest.mark.parametrize("G", [2, 4])
def test_with_one_target_recast_is_supervision_with_a_hard_negative_where_a_miss_exists(name, G):
    leaves, _ = all_groups(G)
    leaves = leaves[(leaves != ONE[0]).any(1)]
    signal = signal_of(name, leaves, ONE)
    hardest = STRUCTURAL[leaves].masked_fill(leaves == ONE[0], -1.0).argmax(1, keepdim=True)
    leaf = torch.eye(LEAVES, dtype=torch.float64)
    expected = leaf[ANCHOR] - leaf[leaves.gather(1, hardest)[:, 0]]
    torch.testing.assert_close(on_leaves(signal, leaves, signal.advantages_PG) * G, expected)


@pytest.mark.parametrize("G", [2, 3, 4])
def test_boundary_only_learns_from_groups_with_hit_and_miss_alone(G):
    leaves, probability = all_groups(G)
    signal = signal_of("boundary_only", leaves, ONE)
    p = hit_rate(ONE)
    positive = probability @ on_leaves(signal, leaves, signal.advantages_PG.clamp(min=0)) * G @ SCORE_VECTORS
    torch.testing.assert_close(positive, (1 - p**G - (1 - p) ** G) * grad_p(ONE) / p)


@pytest.mark.parametrize("G", [2, 3, 4])
def test_the_variance_of_rloo_over_all_groups(G):
    """4 (G - 2) z1 / (G (G - 1)) + 2 z2 / (G (G - 1)), z1 = Var((r - p) s) / 4, z2 = Var((r1 - r2)(s1 - s2) / 2)."""

    def variance(probability, vectors):
        return probability @ vectors.square().sum(1) - (probability @ vectors).square().sum()

    leaves, probability = all_groups(G)
    signal = signal_of("rloo", leaves, TWO)
    measured = variance(probability, on_leaves(signal, leaves, signal.advantages_PG) @ SCORE_VECTORS)
    reward = torch.isin(torch.arange(LEAVES), torch.tensor(TWO)).double()[:, None]
    pairs, pair_probability = all_groups(2)
    a, b = pairs.T
    z1 = variance(PI, (reward - hit_rate(TWO)) * SCORE_VECTORS) / 4
    z2 = variance(pair_probability, (reward[a] - reward[b]) * (SCORE_VECTORS[a] - SCORE_VECTORS[b]) / 2)
    torch.testing.assert_close(measured, (4 * (G - 2) * z1 + 2 * z2) / (G * (G - 1)))


# By Monte Carlo


def monte_carlo(name, G, targets, scores=STRUCTURAL, groups=20_000):
    """Mean gradient over sampled groups, and its standard error: (leaves,) each."""
    generator = torch.Generator().manual_seed(20260422)
    leaves = torch.multinomial(PI.expand(groups, -1), G, replacement=True, generator=generator)
    signal = signal_of(name, leaves, targets, scores)
    gradients = on_leaves(signal, leaves, signal.advantages_PG) @ SCORE_VECTORS
    return gradients.mean(0), gradients.std(0) / math.sqrt(groups)


@pytest.mark.parametrize(
    ("name", "G"),
    [(name, G) for name in WEIGHTS for G in (2, 8) if (name, G) != ("pass_at_k", 2)],  # the one pair of two rows tells nothing
)
def test_expected_gradient_by_monte_carlo(name, G):
    mean, error = monte_carlo(name, G, ONE, scores=FLAT)
    expected = WEIGHTS[name](hit_rate(ONE).item(), G) * grad_p(ONE)
    assert ((mean - expected).abs() <= 5 * error).all()
    assert (expected.abs() > 20 * error).any()  # the bound is tight enough to see a wrong weight


def test_pair_constructors_by_monte_carlo():
    """At G = 3: the positive half is a share of grad log p, the negative half the hardest miss's score vector."""
    G, p = 3, hit_rate(ONE)
    negative = hardest_miss(G)
    expected = {
        "recast": (1 - p**G, negative),
        "boundary_only": (1 - p**G - (1 - p) ** G, negative - hardest_miss(G, without_hit=True)),
        "sft_hard_negative": (1.0, negative),
        "sft": (1.0, torch.zeros_like(negative)),
    }
    for name, (positive, chance) in expected.items():
        mean, error = (G * value for value in monte_carlo(name, G, ONE))
        gradient = positive * grad_p(ONE) / p - chance @ SCORE_VECTORS
        assert ((mean - gradient).abs() <= 5 * error + 1e-12).all(), name
        assert (gradient.abs() > 20 * error).any(), name


# Learnable share


@pytest.mark.parametrize("G", [2, 8, 32])
@pytest.mark.parametrize("p", [0.0054, 0.3])
def test_learnable_share_of_iid_groups(G, p):
    """1 - (1 - p)^G - p^G without repair; 1 - p^G with it."""
    rewards = (torch.arange(G) < torch.arange(G + 1)[:, None]).double()
    chance = binomial(p, G)
    for name in ("grpo", "dr_grpo", "rloo", "max_rl", "dapo"):
        learnable = chance @ construct(name, rewards).learnable_P.double()
        assert learnable.item() == pytest.approx(1 - (1 - p) ** G - p**G, rel=1e-12)
    scores, anchors = torch.zeros_like(rewards), torch.ones(G + 1, dtype=torch.bool)
    learnable = chance @ construct("recast", rewards, scores, has_anchor_P=anchors).learnable_P.double()
    assert learnable.item() == pytest.approx(1 - p**G, rel=1e-12)


@pytest.mark.parametrize(("a", "b"), [(1.235, 227.5), (0.5, 2.0)])
@pytest.mark.parametrize("G", [2, 8, 32])
def test_learnable_share_over_a_beta_hit_rate(a, b, G):
    rewards = (torch.arange(G) < torch.arange(G + 1)[:, None]).double()
    learnable = beta_binomial(a, b, G) @ construct("grpo", rewards).learnable_P.double()
    assert learnable.item() == pytest.approx(1 - beta_ratio(a, b, 0, G) - beta_ratio(a, b, G, 0), rel=1e-9)


@pytest.mark.parametrize(("G", "all_zero"), [(32, 0.85), (128, 0.576), (512, 0.233)])
def test_the_papers_regimes_follow_from_a_beta_binomial(G, all_zero):
    """Beta(1.235, 227.5) gives 85 / 13 / 2 percent at G = 32, and a slow cure by width."""
    counts = (beta_binomial(1.235, 227.5, G) * 100_000).round().long()
    hits = torch.repeat_interleave(torch.arange(G + 1), counts)
    regime = regime_shares(hits, torch.full_like(hits, G))
    assert regime.all_zero == pytest.approx(all_zero, abs=0.005)
    if G == 32:
        assert [regime.single_hit, regime.multi_hit] == pytest.approx([0.13, 0.02], abs=0.005)
