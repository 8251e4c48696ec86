"""`recast-train recipes`: what comes with the package."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from recast_sim.commandline import Common
from recast_sim.commandline.recipe_files import copy_recipe, recipe_heads
from recast_train.cli.shared import RECIPES


@dataclass(frozen=True)
class TrainerRecipes(Common):
    """The recipes that come with recast: what each is, its command, minutes, its result.

    Attributes:
        copy: name of a recipe to copy, to be changed: into the folder or the .toml file --out, default here.
    """

    copy: str = ""


def recipes(command: TrainerRecipes) -> None:
    from recast_analysis.reports.recipes import report
    from recast_analysis.terminal import print_report, terminal

    if command.copy:
        file = copy_recipe(RECIPES, command.copy, command.out or Path())
        print(json.dumps({"file": str(file)}) if command.json else file)
        return
    heads = {name: asdict(head) for name, head in recipe_heads(RECIPES).items()}
    if command.json:
        print(json.dumps(heads))
    else:
        print_report(report(heads), terminal(command.wide))
