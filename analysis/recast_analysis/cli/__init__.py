"""`recast-report`: tables and figures of run folders, one module a command."""

import sys

from recast_sim.commandline import Command, run_command

COMMANDS = {
    "show": Command("recast_analysis.cli.show", "Show", "show"),
    "tables": Command("recast_analysis.cli.tables", "Tables", "tables"),
    "figures": Command("recast_analysis.cli.figures", "Figures", "figures"),
    "html": Command("recast_analysis.cli.html", "Html", "html"),
    "claims": Command("recast_analysis.cli.claims", "ClaimsPage", "claims"),
    "compare": Command("recast_analysis.cli.compare", "Compare", "compare"),
    "agree": Command("recast_analysis.cli.agree", "Agree", "agree"),
    "audit": Command("recast_analysis.cli.audit", "Audit", "audit"),
    "conform": Command("recast_analysis.cli.conform", "Conform", "conform"),
    "plan": Command("recast_analysis.cli.plan", "PlanLogs", "plan"),
    "learned": Command("recast_analysis.cli.learned", "Learned", "learned"),
}


def main() -> None:
    about = "Tables, figures and pages of run folders; audits of rollouts that other tools dumped."
    sys.exit(run_command("recast-report", about, COMMANDS))
