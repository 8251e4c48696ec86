"""What rollouts and the actor's four corners cost, in tokens, at any G. The corners are those of `audit.actor_corners`."""

from collections.abc import Sequence
from dataclasses import dataclass

from recast_analysis.audit.actor_corners import LEAST
from recast_analysis.planner.group_sizes import SizePlan
from recast_analysis.planner.hit_rates import Estimate
from recast_analysis.planner.prompt_hits import PromptHits


@dataclass(frozen=True)
class Lengths:
    """Mean lengths of prompt and response, in `unit`."""

    prompt: float
    response: float
    unit: str


@dataclass(frozen=True)
class TokenCost:
    """Tokens that the budget's groups of one G take: drawn, and read by the actor in its four corners.

    A pair is two rows of each group that is not all hits.
    """

    group_size: int
    rollouts: float
    all_repeated: float
    all_shared: float
    pair_repeated: Estimate
    pair_shared: Estimate


def lengths_of(log: PromptHits, prompt: float | None, response: float | None) -> Lengths | None:
    """Those that are given, else the log's own; None where one is not known, or given in tokens beside a log in words."""
    if prompt is not None and response is not None:
        return Lengths(prompt, response, "tokens")
    if log.unit == "words" and (prompt is not None or response is not None):
        return None
    prompt, response = prompt or log.prompt_length, response or log.response_length
    return None if prompt is None or response is None else Lengths(prompt, response, log.unit or "tokens")


def token_costs(plans: Sequence[SizePlan], lengths: Lengths) -> list[TokenCost]:
    """A row for each G that the budget pays a group of; prompts are read once a group where rollouts are drawn."""
    return [_cost(plan, lengths) for plan in plans if plan.groups]


def _cost(plan: SizePlan, lengths: Lengths) -> TokenCost:
    G, groups, prompt, response = plan.group_size, plan.groups, lengths.prompt, lengths.response
    fed = max(0.0, response - 1)
    pairs = plan.all_hit.map(lambda share: (1 - share) * groups)
    return TokenCost(
        G,
        groups * (prompt + G * response),
        groups * G * (prompt + response),
        groups * (prompt + G * fed),
        pairs.map(lambda count: count * LEAST * (prompt + response)),
        pairs.map(lambda count: count * (prompt + LEAST * fed)),
    )
