"""Everything that a log says of the next run."""

from collections.abc import Sequence
from dataclasses import dataclass

from recast_analysis.planner.acting import Acting, Kind, acting
from recast_analysis.planner.group_sizes import SIZES, SizePlan, best_whole, best_width, size_plans
from recast_analysis.planner.hit_rates import Estimate, Fitted, HitRates, hit_rates
from recast_analysis.planner.prompt_hits import PromptHits
from recast_analysis.planner.study_size import Scatter, StudyPlan, study
from recast_analysis.planner.token_costs import Lengths, TokenCost, token_costs


@dataclass(frozen=True)
class Question:
    """What is planned for.

    Attributes:
        rollouts: the budget.
        effect: relative difference of the hit metric that a comparison is to find.
        base: hit rate of that metric, where it is not the log's.
        scatter: of the seeds, where it is known.
        lengths: of prompts and responses, where they are known.
    """

    rollouts: int
    effect: float = 0.1
    base: float | None = None
    scatter: Scatter | None = None
    lengths: Lengths | None = None


@dataclass(frozen=True)
class NextRun:
    """The plan: rows by G, the width of most signal to noise (real, whole), what acts at the log's G, the comparison, tokens.

    `study` is a sentence where no comparison can be planned.
    """

    log: PromptHits
    rates: HitRates
    question: Question
    sizes: list[SizePlan]
    width: Estimate | None
    whole: int | None
    acting: list[Acting]
    study: StudyPlan | str
    costs: list[TokenCost]

    @property
    def acting_size(self) -> int:
        """The G that signals are compared at."""
        return max(2, self.log.group_size)


def next_run(log: PromptHits, question: Question, kinds: Sequence[Kind]) -> NextRun:
    """The plan of a log."""
    rates = hit_rates(log)
    width = best_width(rates, question.rollouts)
    whole = None
    if width is not None and width.value is not None and isinstance(rates, Fitted):
        whole = best_whole(width.value, rates, question.rollouts)
    sizes = size_plans(log, rates, question.rollouts, [whole] if whole is not None and whole <= SIZES[-1] else [])
    group_size = max(2, log.group_size)
    rows = [acting(kind, rates, group_size, question.rollouts, log.prompts) for kind in kinds]
    costs = [] if question.lengths is None else token_costs(sizes, question.lengths)
    planned = study(rates, question.effect, question.base, question.scatter)
    return NextRun(log, rates, question, sizes, width, whole, rows, planned, costs)
