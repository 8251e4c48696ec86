"""How much of an update cools the policy, and what the rest of it does for several objectives.

Cooling multiplies all logits by 1 + epsilon and moves log pi(y | x) by epsilon s, s being the sum over levels of
z_l(y_l) - E z_l. An update v moves it by u, centred too. <u, s> = E_x E_{y ~ pi} u s, the Fisher metric, says how alike the
two are to the policy, whatever its parameters are; changes at different levels are orthogonal, so it is a sum over levels.
Logits are linear in the heads' parameters, so the heads themselves, with 0 for the encoder, are a direction that cools.

Axes: K directions, B batches, R regimes, P prompts, Y leaves, N nodes of a level, L levels, D parameters.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.func import functional_call, jvp

from recast_sim.exact.batch_means import cosine, ratio, squares
from recast_sim.exact.gram import expected_estimates, part_of_parameter, step_probabilities
from recast_sim.signal import REGIMES
from recast_sim.world.policy import TreePolicy

_CHUNK = 1_000_000  # numbers in the largest intermediate table: larger ones are new pages of memory each time


@dataclass(frozen=True)
class Gain:
    """What an update E does for one objective with gradient g.

    Attributes:
        cosine: of E and g, in the parameters.
        rest: the same in the Fisher metric, after their parts along the temperature direction are taken out of both.
        sharpened, learned: first-order gain of the objective through E's part along the temperature direction, and through the
            rest, for a change |E| of the policy (Fisher), in units of what g itself gains for such a change. They add up to
            E's gain; for E = g to 1.
        learned_by_regime: the parts of `learned` from the groups of each regime as sampled.
    """

    cosine: float | None
    rest: float | None
    sharpened: float
    learned: float
    learned_by_regime: dict[str, float]


@dataclass(frozen=True)
class Parts:
    """An expected update E held against the temperature direction s.

    Attributes:
        cooling: <E, s> / (|E| |s|) in the Fisher metric, in [-1, 1]: at 1 E only cools, at -1 it only heats. Its square is the
            share of E that is sharpening.
        cooling_by_level, cooling_by_regime: parts that add up to it.
        gains: by objective.
    """

    cooling: float
    cooling_by_level: list[float]
    cooling_by_regime: dict[str, float]
    gains: dict[str, Gain]


@dataclass(frozen=True)
class Compass:
    """The temperature direction s and exact gradients by name, at one policy; the metric is a mean over the prompts `x_PD`."""

    policy: TreePolicy
    x_PD: Tensor
    gradients: Mapping[str, Tensor]

    @cached_property
    def temperature_D(self) -> Tensor:
        """`temperature_direction` of the policy."""
        return temperature_direction(self.policy)

    @cached_property
    def fisher_LD(self) -> Tensor:
        """The Fisher matrix times s's part at each level: v . fisher_LD[l] is <v, s_l>, and their sum is <v, s>."""
        part_D = part_of_parameter(self.policy)
        levels_LD = torch.stack([self.temperature_D * (part_D == level) for level in range(self.policy.levels)])
        return fisher_times(self.policy, self.x_PD, levels_LD)

    @cached_property
    def fisher_D(self) -> Tensor:
        """The Fisher matrix times s."""
        return self.fisher_LD.sum(0)

    @cached_property
    def fisher_gradients(self) -> dict[str, Tensor]:
        """The Fisher matrix times each gradient."""
        images_KD = fisher_times(self.policy, self.x_PD, torch.stack(list(self.gradients.values())))
        return dict(zip(self.gradients, images_KD, strict=True))

    def parts(self, vectors_BRD: Tensor) -> Parts | None:
        """What an expected update is made of, from means of B independent batches (1 where exact), by regime as sampled.

        None where the update, or the temperature direction, does not move the policy as far as the sample tells.
        """
        total_BD = vectors_BRD.sum(1)
        square, cools = self._square(total_BD), float(self.temperature_D @ self.fisher_D)
        if square <= 0 or cools <= 0:
            return None
        size = (square * cools) ** 0.5
        mean_RD = vectors_BRD.mean(0)
        along_L, along_R = (self.fisher_LD @ mean_RD.sum(0)) / size, (mean_RD @ self.fisher_D) / size
        return Parts(
            cooling=float(along_L.sum()),
            cooling_by_level=along_L.tolist(),
            cooling_by_regime=dict(zip(REGIMES, along_R.tolist(), strict=True)),
            gains={name: self._gain(name, total_BD, mean_RD, square, cools) for name in self.gradients},
        )

    def _gain(self, name: str, total_BD: Tensor, mean_RD: Tensor, square: float, cools: float) -> Gain:
        g_D, image_D, mean_D = self.gradients[name], self.fisher_gradients[name], mean_RD.sum(0)
        whole, own = float(g_D @ g_D), float(g_D @ image_D)
        unit = square**0.5 * whole / own**0.5 if own > 0 else 0.0  # g gains whole / sqrt(own) for a unit of change
        share_R = mean_RD @ self.fisher_D / cools
        sharp_R = share_R * float(g_D @ self.temperature_D)
        learned_R = mean_RD @ g_D - sharp_R
        g_share, share = float(g_D @ self.fisher_D) / cools, float(share_R.sum())
        rests = float(mean_D @ image_D) - share * g_share * cools, square - share**2 * cools, own - g_share**2 * cools
        return Gain(
            cosine=cosine(float(mean_D @ g_D), float(squares(total_BD).sum()), whole),
            rest=cosine(*rests),
            sharpened=ratio(float(sharp_R.sum()), unit) or 0.0,
            learned=ratio(float(learned_R.sum()), unit) or 0.0,
            learned_by_regime={name: ratio(part, unit) or 0.0 for name, part in zip(REGIMES, learned_R.tolist(), strict=True)},
        )

    def _square(self, total_BD: Tensor) -> float:
        """|E|^2 in the Fisher metric, without the noise of the batches."""
        product_BB = fisher_products(self.policy, self.x_PD, total_BD).sum(0)
        if len(product_BB) == 1:
            return float(product_BB)
        off = float(product_BB.sum() - product_BB.diagonal().sum())
        return off / (len(product_BB) * (len(product_BB) - 1))


def temperature_direction(policy: TreePolicy) -> Tensor:
    """The flat direction (D,) in which every logit grows in proportion to itself: the heads' parameters."""
    heads = {id(p) for p in (*policy.vectors, *policy.biases)}
    parts = [p if id(p) in heads else torch.zeros_like(p) for p in policy.parameters()]
    return torch.cat([part.detach().reshape(-1) for part in parts])


def fisher_times(policy: TreePolicy, x_PD: Tensor, directions_KD: Tensor) -> Tensor:
    """The Fisher matrix times flat directions, E_x E_{y ~ pi} u_k(y | x) grad log pi(y | x), (K, D)."""
    total_KD, step = torch.zeros(()), max(1, _CHUNK // (policy.leaves * len(directions_KD)))
    for x in x_PD.split(step):
        with torch.no_grad():
            changes = _logit_changes(policy, x, directions_KD)
            nodes_LY = policy.get_buffer("leaf_nodes").T
            steps = zip(_centred(policy, x, changes), nodes_LY, strict=True)
            change_KPY = torch.stack([centred_KPN[..., nodes_Y] for (centred_KPN, _), nodes_Y in steps]).sum(0)
            coefficient_KPY = policy.leaf_logprobs(x).exp() * change_KPY
        total_KD = total_KD + expected_estimates(policy, x, coefficient_KPY[..., None] / len(x_PD))
    return total_KD


@torch.no_grad()
def fisher_products(policy: TreePolicy, x_PD: Tensor, directions_KD: Tensor) -> Tensor:
    """<u_k, u_j> of the changes that K flat directions make to log pi, mean over prompts, by level, (L, K, K)."""
    total_LKK = x_PD.new_zeros(policy.levels, len(directions_KD), len(directions_KD))
    for x in x_PD.split(max(1, _CHUNK // (policy.nodes * len(directions_KD)))):
        changes = _logit_changes(policy, x, directions_KD)
        for level, (centred_KPN, reach_PN) in enumerate(_centred(policy, x, changes)):
            total_LKK[level] += torch.einsum("kpn,jpn,pn->kj", centred_KPN, centred_KPN, reach_PN)
    return total_LKK / len(x_PD)


def _centred(policy: TreePolicy, x_PD: Tensor, changes: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """Changes of log pi(node | parent) from those of logits, (K, P, N), and the probability to come by each node, (P, N)."""
    h_PH, reach_PN = policy.encode(x_PD), x_PD.new_ones(len(x_PD), 1)
    for level, change_KPN in enumerate(changes):
        probability_PN, parent_N = step_probabilities(policy, h_PH, level)
        mean_KPN = change_KPN.new_zeros(*change_KPN.shape[:2], reach_PN.shape[1])
        mean_KPN.index_add_(2, parent_N, change_KPN * probability_PN)
        reach_PN = reach_PN[:, parent_N] * probability_PN
        yield change_KPN - mean_KPN[..., parent_N], reach_PN


def _logit_changes(policy: TreePolicy, x_PD: Tensor, directions_KD: Tensor) -> list[Tensor]:
    """First-order change of every node's logit along each direction, a table (K, P, N) a level."""
    named, h_PH = dict(policy.named_parameters()), policy.encode(x_PD)
    pieces = [_unflattened(named, direction_D) for direction_D in directions_KD]
    moved = [_moved(policy, x_PD, piece) for piece in pieces]
    return [
        torch.stack(
            [
                h_PH @ piece[f"vectors.{level}"].T + piece[f"biases.{level}"] + moved_PH @ policy.vectors[level].T
                for piece, moved_PH in zip(pieces, moved, strict=True)
            ]
        )
        for level in range(policy.levels)
    ]


def _moved(policy: TreePolicy, x_PD: Tensor, piece: Mapping[str, Tensor]) -> Tensor:
    """First-order change of h(x), (P, H)."""
    values = {name: value.detach() for name, value in policy.encoder.named_parameters()}
    if not values:
        return torch.zeros_like(x_PD)
    tangents = {name: piece[f"encoder.{name}"] for name in values}
    return jvp(lambda given: functional_call(policy.encoder, given, (x_PD,)), (values,), (tangents,))[1]


def _unflattened(named: Mapping[str, Tensor], flat_D: Tensor) -> dict[str, Tensor]:
    pieces = flat_D.split([value.numel() for value in named.values()])
    return {name: piece.view_as(value) for (name, value), piece in zip(named.items(), pieces, strict=True)}
