"""What can be held against the golden vectors: a user's function, or a library's own under a name.

The named ones need torch and their library; the modules that know them are loaded by name, and only when they are asked for.
"""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from recast_analysis.conform.conform_error import ConformError

ADAPTERS = {  # first word of a name: module with a function `target(rest)`, and the extra that it needs
    "recast": ("recast_train.adapters.conform_ours", ""),
    "trl": ("recast_train.adapters.trl.conform_trl", "trl"),
    "verl": ("recast_train.adapters.verl.conform_verl", "verl"),
}
GIVEN = "; give module:function, file.py:function, recast:NAME, trl[:NAME] or verl:NAME"


@dataclass(frozen=True)
class Target:
    """A function that is judged.

    Attributes:
        function: `f(rewards, group_ids)` to (N,) advantages; of a loss
            `f(new_NS, old_NS, reference_NS, advantages_N, mask_NS)` to a number, with a clip of 0.2 and 0.28 and KL weight 0.1.
        kind: "advantages" or "loss".
        method: the formula that it claims to be; None lets the kit find out.
        functions: it takes (N, F) rewards of F reward functions too.
        notes: what an adapter does on the way, and the library's version.
    """

    name: str
    function: Callable[..., Any]
    kind: str = "advantages"
    method: str | None = None
    functions: bool = False
    notes: Sequence[str] = field(default_factory=tuple)


def load_target(name: str, loss: bool = False, functions: bool = False) -> Target:
    """The target of a name, see `GIVEN`.

    Raises:
        ConformError: no such module, file, function or name, or a library that is not installed.
    """
    first, _, rest = name.partition(":")
    if first in ADAPTERS:
        return _named(name, first, rest)
    place, colon, path = name.rpartition(":")
    if not colon or not place or not path:
        raise ConformError(f"target: {name!r} names no function{GIVEN}")
    found: Any = _module(name, place)
    for part in path.split("."):
        if not hasattr(found, part):
            raise ConformError(f"target: {place} has no {path!r}; name a function of it")
        found = getattr(found, part)
    if not callable(found):
        raise ConformError(f"target: {name} is a {type(found).__name__}; name a function f(rewards, group_ids)")
    return Target(name, found, "loss" if loss else "advantages", None, functions)


def call(target: Target, arguments: Sequence[Any], answers: int) -> list[float]:
    """What the target gives, one number an answer, as plain floats. Raises whatever it raises, ValueError for another shape."""
    found = target.function(*arguments)
    if hasattr(found, "detach"):  # torch, without importing it
        found = found.detach().cpu().double().numpy()
    table = np.asarray(found, dtype=np.float64)
    if table.shape != (answers,) and not (answers == 1 and target.kind == "loss" and table.size == 1):
        raise ValueError(f"returned shape {table.shape}, expected ({answers},)")
    return table.reshape(-1).tolist()


def library_targets(library: str) -> list[str]:
    """Every name of a library: "trl:grpo", "trl:loss:dapo", ...

    Raises:
        ConformError: an unknown library, or one that is not installed.
    """
    if library not in ADAPTERS:
        raise ConformError(f"target: {library!r} is no library here; choose from {', '.join(ADAPTERS)}")
    return [f"{library}:{name}" for name in _adapter(library, library).TARGETS]


def _named(name: str, first: str, rest: str) -> Target:
    return _adapter(name, first).target(Target, ConformError, rest)


def _adapter(name: str, first: str) -> Any:
    module, extra = ADAPTERS[first]
    try:
        return importlib.import_module(module)
    except ImportError as error:
        if extra and (error.name or "").partition(".")[0] != "recast_train":
            raise ConformError(f"target: {name} needs {error.name or extra}; pip install 'recast-rl[{extra}]'") from error
        raise


def _module(name: str, place: str) -> ModuleType:
    here = str(Path(place).absolute().parent if place.endswith(".py") else Path.cwd())
    sys.path.insert(0, here)  # it may import what lies beside it
    try:
        return _from_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
    except Exception as error:
        said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise ConformError(f"target: {name}: {place} cannot be loaded ({said}); mend it{GIVEN}") from error
    finally:
        if here in sys.path:
            sys.path.remove(here)


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise FileNotFoundError("no such file")
    spec = importlib.util.spec_from_file_location(f"recast_conform_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
