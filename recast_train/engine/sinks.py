"""Where rows go beside the run folder: wandb or trackio, imported only where a recipe asks for one.

Each stage (the supervised start, a method) is one run of the sink, which a resumed stage goes on with. It gets the rows of
steps and evaluations with their step, from rank 0; nothing is read back, so it changes no number.
"""

import importlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from recast_train.model import TrainError

SinkName = Literal["none", "wandb", "trackio"]
PROJECT = "recast"


class Sink:
    """One run of the library `name`, open for rows."""

    def __init__(self, name: SinkName, title: str, manifest: Mapping[str, Any], step: int) -> None:
        """Start or go on with the sink's run of a stage.

        Args:
            title: of the stage; with the manifest's starting time it identifies the run.
            step: of the checkpoint from which the stage goes on, 0 for a new one.

        Raises:
            TrainError: the library is not installed, or it fails.
        """
        library, self._name = _library(name), name
        identity = re.sub(r"[^A-Za-z0-9_-]+", "-", f"{title}-{manifest['started']}")
        names = {"id": identity, "name": title} if name == "wandb" else {"name": identity}  # trackio knows runs by name
        config = {**manifest["config"], "seed": manifest["seed"], "resumed_from_step": step}
        self._run = self._calling(lambda: library.init(project=PROJECT, config=config, resume="allow", **names))

    def row(self, table: str, row: Mapping[str, Any]) -> None:
        """A row of the steps or evaluations; figures that are None are left out. Raises TrainError where the library fails."""
        known = {f"{table}/{key}": value for key, value in row.items() if value is not None and key != "step"}
        self._calling(lambda: self._run.log(known, step=int(row["step"])))

    def close(self) -> None:
        """The stage is complete. Raises TrainError where the library fails."""
        self._calling(lambda: self._run.finish())

    def _calling(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except Exception as error:  # a library of others: whatever it raises stops the run
            reason = (str(error).splitlines() or [""])[0]
            mend = "mend it or set sink to 'none', then go on with --resume"
            raise TrainError(f"RealConfig.sink: {self._name} failed: {type(error).__name__}: {reason}; {mend}") from error


def check_sink(name: SinkName) -> None:
    """Raises TrainError where the library that is asked for is not installed."""
    if name != "none":
        _library(name)


def open_sink(name: SinkName, root: Path, folder: Path, manifest: Mapping[str, Any], step: int) -> Sink | None:
    """The sink of the stage in `folder` of the run in `root`, None for "none"."""
    title = f"{root.name}/{folder.relative_to(root)}"
    return None if name == "none" else Sink(name, title, manifest, step)


def _library(name: SinkName) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise TrainError(f"RealConfig.sink: {name} is not installed; pip install {name}, or set sink to 'none'") from error
