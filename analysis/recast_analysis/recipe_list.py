"""The recipes that come with a command line: listed or copied."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from recast_analysis.reports.report import Report, Table
from recast_analysis.terminal import finish
from recast_sim.commandline import Printing
from recast_sim.commandline.recipe_files import copy_recipe, recipe_heads

_HEADER = ("", "what", "command", "time on two cores", "result")


@dataclass(frozen=True)
class Recipes(Printing):
    """Options of a command that lists recipes.

    Attributes:
        copy: name of a recipe to copy, to be changed.
        out: folder or .toml file for the copy.
    """

    copy: str = ""
    out: Path = Path()


def list_or_copy(command: Recipes, folder: Path) -> None:
    if command.copy:
        file = copy_recipe(folder, command.copy, command.out)
        print(json.dumps({"file": str(file)}) if command.json else file)
        return
    heads = {name: asdict(head) for name, head in recipe_heads(folder).items()}
    rows = [(name, *(head[key] for key in ("about", "command", "time", "result"))) for name, head in heads.items()]
    program, first = next(iter(heads.values()))["command"].split()[0], next(iter(heads))
    then = f"{program} recipes --copy {first} --out mine.toml"  # a copy of one's own
    finish(command, heads, Report(heads, [Table("", _HEADER, rows, words=_HEADER)]), then)
