"""Inner products of policy gradients by the trie's structure: no gradient of a single group is ever materialised.

The gradient of sum_y q_y log pi(y) with respect to the logit of a child is its *flow*, Q_child - Q_parent pi(child | parent), Q
the sums of q over subtrees. So the head's part of an inner product is (||h||^2 + 1) times the flows' inner product, level by
level, and the encoder's part is u' J J' u, u = sum of flow times child vector, J = dh / d(encoder parameters). Where the levels
of a leaf have coefficients of their own, sum_y,l q_yl log pi_l(y), the flow at level l is made of the q of level l alone.

Axes: P prompts, K rows of leaf coefficients, R sampled rows, Y leaves, N nodes of a level, H dimension of h, D parameters,
S parts (the levels' heads, then the encoder where the policy has one), W columns of coefficients: 1 for all levels, or one each
of the L levels.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

from recast_sim.world.policy import TreePolicy

_CHUNK = 1_000_000  # numbers in the largest intermediate table: larger ones are new pages of memory each time


@torch.no_grad()
def gram(policy: TreePolicy, x_PD: Tensor, rows_PKYW: Tensor) -> Tensor:
    """<grad of row k, grad of row j> of each prompt by part, (S, P, K, K); a row is the sum of coefficients times log pi."""
    size = rows_PKYW[0].numel()
    chunks = zip(x_PD.split(_rows(size)), rows_PKYW.split(_rows(size)), strict=True)
    return torch.cat([_gram(policy, x, _leaf_flows(policy, x, rows)) for x, rows in chunks], dim=1)


@torch.no_grad()
def square_norms(policy: TreePolicy, x_PD: Tensor, leaf_PR: Tensor, coefficient_PRW: Tensor) -> Tensor:
    """||sum over rows and levels of coefficient * grad log pi_l(leaf)||^2 of each prompt's rows, (P,)."""
    step = _rows(max(policy.leaves, leaf_PR.shape[1] * policy.child_nodes(policy.levels - 1).shape[1]))
    chunks = zip(x_PD.split(step), leaf_PR.split(step), coefficient_PRW.split(step), strict=True)
    return torch.cat([_gram(policy, x, _row_flows(policy, x, *rows)).sum(0)[:, 0, 0] for x, *rows in chunks])


@torch.no_grad()
def leaf_products(policy: TreePolicy, x_PD: Tensor, by_level: bool = True) -> Tensor:
    """<grad log pi_l(y), grad log pi_m(y)> of every leaf, (P, Y, L, L), or their sum ||grad log pi(y)||^2, (P, Y, 1, 1)."""
    step = _rows(policy.leaves * policy.levels * (policy.levels if _is_linear(policy) else policy.vectors[0].shape[1]))
    return torch.cat([_leaf_products(policy, x, by_level) for x in x_PD.split(step)])


def step_probabilities(policy: TreePolicy, h_PH: Tensor, level: int) -> tuple[Tensor, Tensor]:
    """pi(child | parent) of every node of level + 1, (P, N), and the nodes' parents, (N,)."""
    child_NB = policy.child_nodes(level)
    everyone = torch.arange(len(child_NB)).expand(len(h_PH), -1)
    real = child_NB >= 0  # children lie parent by parent
    parent_N = torch.arange(len(child_NB)).repeat_interleave(real.sum(1))
    return policy.child_logprobs(h_PH, level, everyone)[:, real].exp(), parent_N


def encoder_kernel(policy: TreePolicy, x_PD: Tensor) -> Tensor:
    """J J' of each prompt, J = dh / d(encoder parameters), (P, H, H)."""
    parameters = {name: value.detach() for name, value in policy.encoder.named_parameters()}

    def encode(values: dict[str, Tensor], x_D: Tensor) -> Tensor:
        return functional_call(policy.encoder, values, (x_D,))

    jacobian = vmap(jacrev(encode), in_dims=(None, 0))
    step = _rows(sum(value.numel() for value in parameters.values()) * policy.vectors[0].shape[1])
    parts = [(j.flatten(2) for j in jacobian(parameters, x).values()) for x in x_PD.split(step)]
    return torch.cat([torch.stack([j @ j.mT for j in part]).sum(0) for part in parts])


def pass_at_1_gradient(policy: TreePolicy, x_PD: Tensor, target_PT: Tensor) -> Tensor:
    """Gradient of sampled Pass@1, the mean over prompts of the targets' total probability, as one flat vector (D,)."""
    return flat_gradient(policy, policy.path_logprobs(x_PD, target_PT).sum(2).exp().sum(1).mean())


def flat_gradient(policy: TreePolicy, value: Tensor, retain_graph: bool = False) -> Tensor:
    """Gradient of a number with respect to all parameters as one flat vector, (D,)."""
    parameters = list(policy.parameters())
    return _flat(policy, torch.autograd.grad(value, parameters, allow_unused=True, retain_graph=retain_graph))


def expected_estimate(policy: TreePolicy, x_PD: Tensor, coefficient_PY: Tensor) -> Tensor:
    """Flat vector sum over prompts and leaves of coefficient * grad log pi(leaf), (D,)."""
    return expected_estimates(policy, x_PD, coefficient_PY[None, ..., None])[0]


def expected_estimates(policy: TreePolicy, x_PD: Tensor, coefficient_KPYW: Tensor) -> Tensor:
    """Flat vectors of K tables: sum over prompts, leaves and levels of coefficient * grad log pi_l(leaf), (K, D)."""
    parameters, total = list(policy.parameters()), torch.zeros(())
    step = _rows(policy.leaves)
    for x, coefficients in zip(x_PD.split(step), coefficient_KPYW.split(step, dim=1), strict=True):
        steps_VP = policy.step_logprobs_of(policy.encode(x))
        total = total + torch.stack(
            [_flat(policy, _pulled_back(policy, steps_VP, parameters, table)) for table in coefficients]
        )
    return total


def part_names(policy: TreePolicy) -> list[str]:
    """Names of the S parts: "level 1" .. "level L", then "encoder" where the policy has one."""
    encoder = [] if _is_linear(policy) else ["encoder"]
    return [f"level {level + 1}" for level in range(policy.levels)] + encoder


def part_of_parameter(policy: TreePolicy) -> Tensor:
    """Index into `part_names` of each entry of a flat vector, int64 (D,)."""

    def part(name: str) -> int:
        kind, *rest = name.split(".")
        return int(rest[0]) if kind in ("vectors", "biases") else policy.levels

    return torch.cat([torch.full((value.numel(),), part(name)) for name, value in policy.named_parameters()])


def _is_linear(policy: TreePolicy) -> bool:
    return isinstance(policy.encoder, nn.Identity)


def _rows(size: int) -> int:
    return max(1, _CHUNK // size)


def _pulled_back(
    policy: TreePolicy, steps_VP: Tensor, parameters: list[nn.Parameter], coefficient_PYW: Tensor
) -> Sequence[Tensor | None]:
    if not bool(coefficient_PYW.any()):
        return [None] * len(parameters)
    of_node_VP = torch.cat(_node_sums(policy, coefficient_PYW))
    return torch.autograd.grad(steps_VP, parameters, of_node_VP, retain_graph=True, allow_unused=True)


def _node_sums(policy: TreePolicy, coefficient_PYW: Tensor) -> list[Tensor]:
    """For every node the coefficients of its own level of the leaves below it, a table (N, P) a level."""
    columns = [_summed_up(policy, column_PY.T) for column_PY in coefficient_PYW.unbind(2)]
    return [columns[_column(coefficient_PYW, level)][level] for level in range(policy.levels)]


def _summed_up(policy: TreePolicy, leaf_YP: Tensor) -> list[Tensor]:
    """Sums over the leaves below every node, a table (N, P) a level."""
    tables = [leaf_YP]
    for level in reversed(range(1, policy.levels)):
        tables.append(policy.sum_over_children(level, tables[-1]))
    return tables[::-1]


def _gram(policy: TreePolicy, x_PD: Tensor, flows: list[Tensor]) -> Tensor:
    factor_P = policy.encode(x_PD).square().sum(1) + 1
    parts = [factor_P[:, None, None] * (flow @ flow.mT) for flow in flows]
    if not _is_linear(policy):
        u_PKH = _encoder_flows(policy, flows)
        parts.append(u_PKH @ encoder_kernel(policy, x_PD) @ u_PKH.mT)
    return torch.stack(parts)


def _encoder_flows(policy: TreePolicy, flows: list[Tensor]) -> Tensor:
    """Gradient with respect to h, (P, K, H)."""
    return torch.stack([flow @ vectors for flow, vectors in zip(flows, policy.vectors, strict=True)]).sum(0)


def _leaf_flows(policy: TreePolicy, x_PD: Tensor, rows_PKY: Tensor) -> list[Tensor]:
    """Flow into every node, a table (P, K, N) a level, from the leaves up; `rows` may have a last axis of W columns."""
    h, flows = policy.encode(x_PD), []
    steps = [step_probabilities(policy, h, level) for level in range(policy.levels)]

    def summed(total_PKN: Tensor, level: int) -> Tensor:
        above_PKN = total_PKN.new_zeros(*total_PKN.shape[:2], len(policy.child_nodes(level)))
        return above_PKN.index_add(2, steps[level][1], total_PKN)

    total_PKN = rows_PKY if rows_PKY.ndim == 3 else rows_PKY[..., -1]
    for level in reversed(range(policy.levels)):
        if rows_PKY.ndim == 4 and rows_PKY.shape[3] > 1:
            total_PKN = rows_PKY[..., level]
            for deeper in reversed(range(level + 1, policy.levels)):
                total_PKN = summed(total_PKN, deeper)
        probability_PN, parent_N = steps[level]
        above_PKN = summed(total_PKN, level)
        flows.append(total_PKN - above_PKN[..., parent_N] * probability_PN[:, None])
        total_PKN = above_PKN
    return flows[::-1]


def _row_flows(policy: TreePolicy, x_PD: Tensor, leaf_PR: Tensor, coefficient_PR: Tensor) -> list[Tensor]:
    """The same from sampled rows, (P, 1, N) a level: only the children of visited nodes are scored."""
    h, nodes, parent, flows = policy.encode(x_PD), policy.get_buffer("leaf_nodes")[leaf_PR], torch.zeros_like(leaf_PR), []
    coefficient_PRW = coefficient_PR if coefficient_PR.ndim == 3 else coefficient_PR[..., None]
    for level in range(policy.levels):
        node, own_PR = nodes[..., level], coefficient_PRW[..., _column(coefficient_PRW, level)]
        spread = policy.child_logprobs(h, level, parent).exp() * own_PR[..., None]
        child = policy.child_nodes(level)[parent].clamp(min=0).expand(spread.shape)  # a padded child has probability 0
        flow = own_PR.new_zeros(len(leaf_PR), len(policy.biases[level])).scatter_add(1, node, own_PR)
        flows.append(flow.scatter_add(1, child.flatten(1), -spread.flatten(1))[:, None])
        parent = node
    return flows


def _column(table: Tensor, level: int) -> int:
    """Which of the W columns a level reads."""
    return level if table.shape[-1] > 1 else 0


def _leaf_products(policy: TreePolicy, x_PD: Tensor, by_level: bool) -> Tensor:
    h, nodes_YL = policy.encode(x_PD), policy.get_buffer("leaf_nodes")
    L, squares, u_PYH = policy.levels, [], []
    for level in range(L):
        probability_PN, parent_N = step_probabilities(policy, h, level)
        above = h.new_zeros(len(h), len(policy.child_nodes(level)))
        square_PN = above.index_add(1, parent_N, probability_PN.square())[:, parent_N]
        squares.append((1 - 2 * probability_PN + square_PN)[:, nodes_YL[:, level]])
        if not _is_linear(policy):
            weighted_PNH = probability_PN[..., None] * policy.vectors[level]
            mean_PNH = h.new_zeros(len(h), above.shape[1], h.shape[1]).index_add(1, parent_N, weighted_PNH)
            u_PYH.append((policy.vectors[level] - mean_PNH[:, parent_N])[:, nodes_YL[:, level]])
    factor_P = h.square().sum(1) + 1
    if by_level:
        products_PYLL = torch.diag_embed(torch.stack(squares, 2) * factor_P[:, None, None])
    else:
        products_PYLL = (torch.stack(squares, 2).sum(2) * factor_P[:, None])[..., None, None]
    if u_PYH:
        u_PYLH = torch.stack(u_PYH, 2) if by_level else torch.stack(u_PYH, 2).sum(2, keepdim=True)
        products_PYLL = products_PYLL + (u_PYLH @ encoder_kernel(policy, x_PD)[:, None]) @ u_PYLH.mT
    return products_PYLL


def _flat(policy: TreePolicy, gradients: Sequence[Tensor | None]) -> Tensor:
    pairs = zip(gradients, policy.parameters(), strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).reshape(-1) for g, p in pairs])
