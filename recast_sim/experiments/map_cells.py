"""Cells of a comparison or a map: a base setting with other values at dotted keys, each with a name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, TypeVar

from recast_sim.configio import AtLeastOne, Checked, override
from recast_sim.experiments.world_setting import Setting
from recast_sim.training.training_config import TrainingError

T = TypeVar("T")
Point = dict[str, Any]


@dataclass(frozen=True)
class Axis(Checked, error=TrainingError):
    """One axis of a map: points are changes to the base setting by dotted key, with a `label` (default: their values)."""

    name: str
    points: AtLeastOne[Point]


@dataclass(frozen=True)
class Cell:
    """A place on the map: its setting, and its axis and label in x (and in y, for a grid; "" for a slice)."""

    setting: str
    x: str
    x_label: str
    y: str = ""
    y_label: str = ""


@dataclass(frozen=True)
class Cells:
    """Cells and the distinct settings that they stand for; `settings` are in order of first use."""

    settings: dict[str, Setting] = field(default_factory=dict)
    cells: list[Cell] = field(default_factory=list)


def named_settings(base: T, points: Sequence[Point]) -> dict[str, T]:
    """The base with each point's changes, by label; the base alone ("base") where there are no points."""
    named = {label(point): override(base, changes(point)) for point in points}
    if len(named) < len(points):
        raise TrainingError(f"points: labels must differ, got {[label(point) for point in points]}")
    return named or {"base": base}


def map_cells(base: Setting, axes: Sequence[Axis], grids: Sequence[tuple[str, str]]) -> Cells:
    """A slice along each axis through the base, and a grid over each named pair of axes. Equal settings are run once."""
    by_name = {axis.name: axis for axis in axes}
    found = Cells()
    for axis in axes:
        for point in axis.points:
            name = _setting(found.settings, f"{axis.name}={label(point)}", override(base, changes(point)))
            found.cells.append(Cell(name, axis.name, label(point)))
    for x, y in grids:
        if missing := {x, y} - by_name.keys():
            raise TrainingError(f"grids: {sorted(missing)[0]!r} is no axis; known: {', '.join(by_name)}")
        for left, right in product(by_name[x].points, by_name[y].points):
            setting = override(base, changes(left) | changes(right))
            name = _setting(found.settings, f"{x}={label(left)} {y}={label(right)}", setting)
            found.cells.append(Cell(name, x, label(left), y, label(right)))
    return found


def label(point: Mapping[str, Any]) -> str:
    """A point's `label`, or its values."""
    return str(point.get("label") or " ".join(str(value) for value in point.values()) or "base")


def changes(point: Mapping[str, Any]) -> Point:
    """A point without its label."""
    return {key: value for key, value in point.items() if key != "label"}


def _setting(settings: dict[str, Setting], name: str, setting: Setting) -> str:
    for known, other in settings.items():
        if other == setting:
            return known
    settings[name] = setting
    return name
