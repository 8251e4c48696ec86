"""Recipes that come with the package: found by name, listed, copied.

A recipe begins with two lines of comment: what it is, and `# Run: COMMAND; TIME; RESULT`.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from recast_sim.bounded import MEGABYTE, read_bounded
from recast_sim.configio import ConfigError

_HEAD = re.compile(r"# (?P<about>.+)\n# Run: (?P<command>[^;]+); (?P<time>[^;]+); (?P<result>.+)\n")


@dataclass(frozen=True)
class RecipeHead:
    """The first two lines of a recipe.

    Attributes:
        about: what it is.
        command: how it is run.
        time: how long that takes.
        result: the score to expect, or the page that has it.
    """

    about: str
    command: str
    time: str
    result: str


def recipe_file(folder: Path, given: Path) -> Path:
    """The file that is given, or else the recipe of that name in `folder`. Raises ConfigError where there is neither."""
    shipped = folder / f"{given}.toml"
    if given.exists() or len(given.parts) != 1 or given.suffix:
        return given
    if not shipped.is_file():
        names = ", ".join(sorted(file.stem for file in folder.glob("*.toml")))
        raise ConfigError(f"file: {given} is neither a file here nor a recipe; recipes are {names}")
    return shipped


def recipe_heads(folder: Path) -> dict[str, RecipeHead]:
    """What each recipe in `folder` says of itself, by name."""
    found = {}
    for file in sorted(folder.glob("*.toml"), key=lambda file: file.stem):
        head = _HEAD.match(_text(file))
        assert head is not None, file
        found[file.stem] = RecipeHead(**head.groupdict())
    return found


def copy_recipe(folder: Path, name: str, to: Path) -> Path:
    """A copy of a recipe, to be changed, in the folder or the .toml file `to`.

    Raises:
        ConfigError: there is no such recipe, or a file of that name already.
    """
    from recast_sim.runs import write_text

    found = recipe_file(folder, Path(name))
    if found.parent != folder:
        raise ConfigError(f"--copy: {name!r} is no recipe; recipes are {', '.join(recipe_heads(folder))}")
    target = to if to.suffix == ".toml" else to / found.name
    if target.exists():
        raise ConfigError(f"--out: {target} is there already; name another file")
    target.parent.mkdir(parents=True, exist_ok=True)
    write_text(target, _text(found))
    return target


def _text(file: Path) -> str:
    return read_bounded(file, MEGABYTE, ConfigError).decode("utf-8")
