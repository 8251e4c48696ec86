"""`recast-sim`: the laboratory's command line, one module a command; those that only list things are in `listings`."""

import sys

from recast_sim.commandline import Command, run_command

COMMANDS = {
    "quickstart": Command("recast_sim.cli.quickstart", "Quickstart", "quickstart"),
    "train": Command("recast_sim.cli.train", "Train", "train_one"),
    "check": Command("recast_sim.cli.check", "Check", "check"),
    "calibrate": Command("recast_sim.cli.calibrate", "Calibrate", "calibrate_world"),
    "constructors": Command("recast_sim.cli.listings.constructors", "Constructors", "constructors"),
    "gradients": Command("recast_sim.cli.gradients", "Gradients", "compare_gradients"),
    "theory": Command("recast_sim.cli.theory", "Theory", "theory"),
    "budget": Command("recast_sim.cli.budget", "Budget", "budget"),
    "map": Command("recast_sim.cli.map", "Map", "draw_the_map"),
    "thoughts": Command("recast_sim.cli.thoughts", "ThoughtStudy", "thoughts"),
    "claims": Command("recast_sim.cli.claims", "Claims", "claims"),
    "recipes": Command("recast_sim.cli.listings.recipes", "SimulatorRecipes", "recipes"),
    "plan": Command("recast_sim.cli.plan", "Plan", "plan"),
}


def main() -> None:
    sys.exit(run_command("recast-sim", "The laboratory for learning-signal mechanics of sparse-hit group-based RL.", COMMANDS))
