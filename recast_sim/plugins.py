"""Constructors from outside: files, modules, installed packages and notebook cells that register them.

What is loaded here is known to the whole process: run folders keep the source, and the workers of a sweep load the same.
"""

import importlib
import importlib.util
import inspect
import linecache
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from recast_sim.errors import RecastError

GROUP = "recast.constructors"  # of entry points: each names a module


class PluginError(RecastError):
    """A plug-in that cannot be loaded; the message names it, what is wrong and the fix."""


@dataclass(frozen=True)
class Plugin:
    """Where some constructors come from.

    Attributes:
        name: the path of a file, or the name of a module.
        source: its text, as it was loaded.
        constructors: the names that it registered.
    """

    kind: Literal["file", "module", "cell"]
    name: str
    source: str
    constructors: tuple[str, ...]

    def record(self) -> dict[str, Any]:
        """What a manifest keeps."""
        return {"name": self.name, "sha256": sha256(self.source.encode()).hexdigest(), "source": self.source}


_LOADED: dict[str, Plugin] = {}  # by name, in the order of loading
_REGISTERED: dict[str, Callable[..., Any]] = {}  # every constructor of the process by name


def registered(name: str, apply: Callable[..., Any]) -> None:
    """Heard from the registry: a constructor is there."""
    _REGISTERED[name] = apply


def unregistered(name: str) -> None:
    """Heard from the registry: a constructor is gone."""
    _REGISTERED.pop(name, None)


def load_plugin(name: str) -> Plugin:
    """Load a `.py` file, or an importable module, that registers constructors; once a process.

    Raises:
        PluginError: no such file or module, one that raises, or registers nothing.
    """
    path = Path(name)
    is_file = path.suffix == ".py" or path.exists()
    known = str(path.absolute()) if is_file else name
    if known in _LOADED:
        if is_file and _text(known) != _LOADED[known].source:
            raise PluginError(f"{name}: has changed since it was loaded; start a new process (a new kernel) to load it anew")
        return _LOADED[known]
    before = set(_REGISTERED)
    module = _run(name, lambda: _from_file(path)) if is_file else _run(name, lambda: importlib.import_module(name))
    own = tuple(word for word, apply in _REGISTERED.items() if word not in before or _is_of(apply, module))
    if not own:
        raise PluginError(f"{name}: registers no constructor; decorate a function with @recast_sim.signal.register(...)")
    plugin = Plugin("file" if is_file else "module", known, _text(known) if is_file else _source(module), own)
    _LOADED[known] = plugin
    return plugin


def load_installed() -> None:
    """Load what installed packages offer as entry points of the group "recast.constructors"."""
    for point in entry_points(group=GROUP):
        load_plugin(point.value.partition(":")[0])


def loaded() -> tuple[Plugin, ...]:
    """All plug-ins of this process."""
    return tuple(_LOADED.values())


def for_workers(folder: Path, write: Callable[[Path, str], None]) -> tuple[Plugin, ...]:
    """What the workers of a sweep have to load: `loaded`, and cells that registered constructors, which `write` leaves there.

    Raises:
        PluginError: a constructor of `__main__` whose source is nowhere, so that no worker could have it.
    """
    cells: dict[str, list[str]] = {}
    for name, apply in _REGISTERED.items():
        if apply.__module__ == "__main__" and not Path(_file(apply)).exists():  # a script is run again by its workers
            cells.setdefault(_file(apply), []).append(name)
    found = []
    for number, (file, names) in enumerate(cells.items(), start=1):
        if not (source := "".join(linecache.getlines(file))):
            mend = "put it in a file and load that: --plugin FILE, or recast_sim.plugins.load_plugin"
            raise PluginError(f"constructor {names[0]!r}: typed in, so that the workers of a sweep cannot have it; {mend}")
        path = folder / f"constructors-{number}.py"
        write(path, source)
        found.append(Plugin("cell", str(path.absolute()), source, tuple(names)))
    return (*loaded(), *found)


def load_in_worker(plugins: Sequence[Plugin]) -> None:
    """Load what another process has, unless it is here already.

    Raises:
        PluginError: see `load_plugin`; or a file that is another here.
    """
    for plugin in plugins:
        if set(plugin.constructors) <= set(_REGISTERED):
            continue
        try:
            here = load_plugin(plugin.name)
        except PluginError as error:
            if plugin.kind != "cell":
                raise
            mend = "a cell is loaded alone: put its imports and helpers into it, or all of it into a file"
            raise PluginError(f"constructor {plugin.constructors[0]!r} of a notebook: {error}; {mend}") from error
        if here.source != plugin.source:
            raise PluginError(f"{plugin.name}: is another file here than where the sweep was started; copy it")


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise FileNotFoundError("no such file")
    name = f"recast_plugin_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError("not a Python file; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.absolute().parent))  # it may import what lies beside it
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.absolute().parent))
    return module


def _run(name: str, load: Callable[[], ModuleType]) -> ModuleType:
    try:
        return load()
    except Exception as error:
        said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise PluginError(f"{name}: cannot be loaded ({said}); mend it, or give a .py file or a module's name") from error


def _is_of(apply: Callable[..., Any], module: ModuleType) -> bool:
    return apply.__module__ == module.__name__


def _source(module: ModuleType) -> str:
    try:
        return inspect.getsource(module)
    except (OSError, TypeError):  # compiled
        return ""


def _text(file: str) -> str:
    linecache.checkcache(file)
    return "".join(linecache.getlines(file))


def _file(apply: Callable[..., Any]) -> str:
    """Where a function was written; of a cell a name that stands for it."""
    code = getattr(inspect.unwrap(apply), "__code__", None)
    return "" if code is None else code.co_filename
