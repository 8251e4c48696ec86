"""`recast-train recipes`: what comes with the package."""

from dataclasses import dataclass

from recast_analysis.recipe_list import Recipes, list_or_copy
from recast_train.cli.shared import RECIPES


@dataclass(frozen=True)
class TrainerRecipes(Recipes):
    """The recipes that come with recast: what each is, its command, minutes, its result."""


def recipes(command: TrainerRecipes) -> None:
    list_or_copy(command, RECIPES)
