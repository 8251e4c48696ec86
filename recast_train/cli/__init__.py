"""`recast-train`: the command line of the real trainer, one module a command."""

import sys

from recast_sim.commandline import Command, run_command

COMMANDS = {
    "data": Command("recast_train.cli.data", "Data", "data"),
    "export": Command("recast_train.cli.export", "Export", "export"),
    "fetch": Command("recast_train.cli.fetch", "Fetch", "fetch"),
    "recipes": Command("recast_train.cli.recipes", "TrainerRecipes", "recipes"),
    "run": Command("recast_train.cli.run", "RunRecipe", "run"),
    "search": Command("recast_train.cli.search", "Search", "search"),
    "sizes": Command("recast_train.cli.sizes", "StepSizes", "sizes"),
    "study": Command("recast_train.cli.study", "Study", "study"),
    "tokenize": Command("recast_train.cli.tokenize", "Tokenize", "tokenize"),
}


def main() -> None:
    about = "Generative recommenders on real data, trained with the signal module of the laboratory."
    sys.exit(run_command("recast-train", about, COMMANDS))


if __name__ == "__main__":
    main()
