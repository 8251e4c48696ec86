"""Beams: the best leaves by a search of fixed width, and leaves drawn without replacement by the same search on noisy scores.

Axis letters: P prompts, G rollouts, W kept nodes, B children of a node, C = W B, L levels.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from recast_train.model import SidModel, on
from recast_train.model.shared_prompts import PromptCache
from recast_train.rollout.frontier import Frontier
from recast_train.rollout.rollouts import Part, Rollouts

# score (P, W, B) of the children from the log-probabilities of their paths (-inf: no child) and their parents' scores (P, W)
Score = Callable[[Tensor, Tensor], Tensor]


def sample_beam(model: SidModel, cache: PromptCache, group_size: int, temperature: float) -> Rollouts:
    """The leaves that a search keeping the G likeliest nodes of each level ends with, best first (OpenOneRec's second stage).

    They are the G likeliest leaves where no level is wider than G, and in general not. Not a sample: sums over a beam
    estimate no expectation.
    """
    root_P = torch.zeros(len(cache.last_PD), device=model.device)
    found, steps_PWL, _ = _search(model, cache, root_P, group_size, temperature, lambda path_PWB, _: path_PWB)
    return _group(model, found, steps_PWL, group_size)


def sample_stochastic_beam(
    model: SidModel, cache: PromptCache, group_size: int, generator: torch.Generator, temperature: float, part: Part
) -> Rollouts:
    """G distinct leaves drawn without replacement from the behaviour policy, in the order of the draws.

    Gumbel top-k down the trie (Kool, van Hoof and Welling 2019, arXiv 1903.06059, algorithm 1): a node's score is the largest
    perturbed log-probability of its leaves, so the best nodes hold the best leaves. The root's is a Gumbel number, not the
    algorithm's 0: with 0 the sample is right but the threshold is not, and importance weights are biased. One leaf more than
    G is searched; its score is the threshold.
    """
    root_P = on(_gumbel((len(cache.last_PD),), generator, part), model.device)

    def perturbed(path_PWB: Tensor, parent_PW: Tensor) -> Tensor:
        return conditional_gumbels(path_PWB, parent_PW, on(_gumbel(path_PWB.shape, generator, part), model.device))

    found, steps_PWL, phi_PW = _search(model, cache, root_P, group_size + 1, temperature, perturbed)
    nothing_P = torch.full_like(root_P, -torch.inf)
    kappa_P = phi_PW[:, group_size] if phi_PW.shape[1] > group_size else nothing_P
    return _group(model, found, steps_PWL, group_size, phi_PW, kappa_P)


def conditional_gumbels(logprob_PWB: Tensor, parent_PW: Tensor, gumbel_PWB: Tensor) -> Tensor:
    """Perturbed log-probabilities of children given that their largest is the parent's, float64; -inf where there is no child.

    The shift of arXiv 1903.06059, appendix B.3, stable where a child is at the maximum (it gets the parent's score exactly)
    and where it is far below.
    """
    raw_PWB = logprob_PWB.double() + gumbel_PWB
    below_PWB = raw_PWB - raw_PWB.amax(2, keepdim=True)
    shift_PWB = parent_PW[..., None] - raw_PWB + _log1mexp(below_PWB)
    value_PWB = parent_PW[..., None] - shift_PWB.clamp(min=0) - torch.log1p((-shift_PWB.abs()).exp())
    return value_PWB.masked_fill(logprob_PWB == -torch.inf, -torch.inf)


def _search(
    model: SidModel, cache: PromptCache, root_P: Tensor, width: int, temperature: float, score: Score
) -> tuple[Frontier, Tensor, Tensor]:
    """The last level's frontier, best score first, the log-probability of each step (P, W, L), and the scores (P, W)."""
    frontier, score_PW = Frontier.at_root(cache), root_P[:, None]
    steps_PWL = score_PW[..., None].float()[..., :0]
    for level in range(model.levels):
        children = frontier.children(model, level, temperature)
        score_PC = score(children.logprob_PWB, score_PW).flatten(1)
        score_PW, kept_PW = score_PC.topk(min(width, score_PC.shape[1]), 1)
        frontier = frontier.descend(children, kept_PW)
        before = steps_PWL.gather(1, frontier.parent_PW[..., None].expand(-1, -1, level))
        steps_PWL = torch.cat([before, children.step_PWB.flatten(1).gather(1, kept_PW)[..., None]], 2)
        if level < model.levels - 1:
            frontier = frontier.read(cache, level + 1)
    return frontier, steps_PWL, score_PW


def _group(
    model: SidModel,
    found: Frontier,
    steps_PWL: Tensor,
    group_size: int,
    phi_PW: Tensor | None = None,
    kappa_P: Tensor | None = None,
) -> Rollouts:
    """The first G leaves; where there are fewer, copies of the first."""
    there_PW = torch.isfinite(found.logprob_PW)[:, :group_size]
    valid_PG = torch.nn.functional.pad(there_PW, (0, group_size - there_PW.shape[1]))
    row_PG = torch.where(valid_PG, torch.arange(group_size, device=model.device), 0)
    leaf_PG = found.node_PW.gather(1, row_PG)
    return Rollouts(
        leaf_PG=leaf_PG,
        sids_PGL=model.table("leaf_codes")[leaf_PG],
        logprobs_PGL=steps_PWL.gather(1, row_PG[..., None].expand(-1, -1, model.levels)),
        valid_PG=valid_PG,
        phi_PG=None if phi_PW is None else phi_PW.gather(1, row_PG),
        kappa_P=kappa_P,
    )


def _gumbel(shape: tuple[int, ...], generator: torch.Generator, part: Part) -> Tensor:
    """Standard Gumbel numbers, float64, drawn on the CPU; always finite."""
    uniform = part.uniform(shape, 0, generator, torch.float64)
    return -(-uniform.clamp(min=2.0**-54).log()).log()


def _log1mexp(x: Tensor) -> Tensor:
    """log(1 - exp(x)) for x <= 0; -inf at 0."""
    return torch.where(x > -math.log(2), (-torch.expm1(x)).log(), torch.log1p(-x.exp()))
