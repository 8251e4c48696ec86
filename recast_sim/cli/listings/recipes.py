"""`recast-sim recipes`: what comes with the package."""

from dataclasses import dataclass

from recast_analysis.recipe_list import Recipes, list_or_copy
from recast_sim.cli.shared import RECIPES


@dataclass(frozen=True)
class SimulatorRecipes(Recipes):
    """The recipes that come with recast: what each is, its command, minutes, its result."""


def recipes(command: SimulatorRecipes) -> None:
    list_or_copy(command, RECIPES)
