"""`recast-train sizes`."""

from dataclasses import dataclass

from recast_sim.commandline import Printing
from recast_train.step_model.machine import CardName


@dataclass(frozen=True, kw_only=True)
class StepSizes(Printing):
    """A step of Qwen3-0.6B to 14B on 8 to 64 cards, modelled, beside the paper's figures.

    Attributes:
        card: whose public figures are taken, at assumed utilisations.
    """

    card: CardName = "H800"


def sizes(command: StepSizes) -> None:
    from recast_analysis.reports.real.step_sizes import report
    from recast_analysis.terminal import finish
    from recast_train.step_model.machine import card_machine
    from recast_train.step_model.paper_step import paper_checks
    from recast_train.step_model.sizes import sizes_table, thought_rollouts

    machine = card_machine(command.card)
    found = {
        "card": command.card,
        "sizes": sizes_table(machine),
        "thought": thought_rollouts(machine),
        "paper": paper_checks(),
    }
    finish(command, found, report(found), "recast-train run RECIPE --dry-run --card " + command.card)
