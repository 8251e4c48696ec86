"""The gradient weight w(p) of any constructor on i.i.d. groups, from what it makes of each number of hits.

Axes: B hit rates, K hits of a group (0 to G).
"""

import numpy as np
import scipy
import torch
from numpy.typing import ArrayLike, NDArray

from recast_sim.signal import Constructor, SignalConfig, construct
from recast_sim.signal.declared import GROUPS, groups_by_hits


def measured_weight(
    constructor: Constructor, hit_rates: ArrayLike, group_size: int, config: SignalConfig | None = None
) -> NDArray[np.float64]:
    """E[sum of A grad log pi] = w(p) grad p of one group: the part along grad p, with A times the row's weight; as `hit_rates`.

    A hit's score vector is grad p / p on average, a miss's -grad p / (1 - p) where it is any miss; where a constructor picks
    one miss of a group (a pair) that is not along grad p and is left out. An anchor stands for a hit. Sums of hits and of
    misses are means over 64 groups of each number of hits, then exact over K ~ Binomial(G, p). Of a level-wise row it is the
    mean over its levels. A constructor whose groups depend on each other has no such weight: here all numbers of hits stand in
    one batch.
    """
    p_B = np.atleast_1d(np.asarray(hit_rates, dtype=np.float64))
    found_B = np.array([_weight(constructor, float(p), group_size, config) for p in p_B])
    return found_B.reshape(np.shape(hit_rates))


def _weight(constructor: Constructor, p: float, group_size: int, config: SignalConfig | None) -> float:
    batch = groups_by_hits(group_size, p)
    signal = construct(constructor, **batch, config=config)
    plan, G = signal.plan, signal.group_size
    number_N = (plan.weights_N[:, None] * plan.advantages_NL).mean(1)
    group_N, slot_N = plan.rows_N // G, plan.rows_N % G
    hit_N = plan.anchor_N | ((batch["rewards_PG"] > 0)[group_N, slot_N.clamp(max=group_size - 1)] & (slot_N < group_size))
    zeros_K = torch.zeros(group_size + 1, dtype=torch.float64)
    up_K, down_K = (zeros_K.index_add(0, group_N[own] // GROUPS, number_N[own].double()) for own in (hit_N, ~hit_N))
    chance_K = scipy.stats.binom.pmf(np.arange(group_size + 1), group_size, p)
    pushed_K = 0.0 if bool((signal.negative_P >= 0).any()) else down_K.numpy() / (1 - p)
    return float(chance_K @ (up_K.numpy() / p - pushed_K) / GROUPS)
