"""Rows and checkpoints of a run with any number of ranks: rank 0 alone writes, and what was written by many is read by one."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from recast_sim.runs import RunWriter, atomic_directory
from recast_sim.runs.model_state import damaged, latest_checkpoint, read_tensors, write_tensors
from recast_train.engine.engine import Engine
from recast_train.engine.full_state import State
from recast_train.engine.sinks import Sink
from recast_train.model import TrainError


class Recorder:
    """A run folder as all ranks see it; `writer` is None on all but rank 0, where the calls do nothing."""

    def __init__(self, engine: Engine, path: Path, writer: RunWriter | None, sink: Sink | None = None) -> None:
        self.engine, self.path, self._writer, self._sink = engine, path, writer, sink

    @classmethod
    def open(
        cls,
        engine: Engine,
        path: Path,
        start: Callable[[], RunWriter | None],
        sink: Callable[[RunWriter], Sink | None] = lambda writer: None,
    ) -> "Recorder | None":
        """The folder that `start` opens, on rank 0, and its sink; None on all ranks where it says that the run is complete."""
        writer, opened = None, None

        def begin() -> bool:
            nonlocal writer, opened
            writer = start()
            opened = sink(writer) if writer else None
            return writer is not None

        return cls(engine, path, writer, opened) if engine.on_main(begin) else None

    def step(self, row: Mapping[str, Any]) -> None:
        """A row of the steps."""
        if self._writer:
            self._writer.step(row)
        if self._sink:
            self._sink.row("steps", row)

    def evaluation(self, row: Mapping[str, Any]) -> None:
        """A row of the evaluations."""
        if self._writer:
            self._writer.evaluation(row)
        if self._sink:
            self._sink.row("evals", row)

    def groups(self, columns: Mapping[str, Any]) -> None:
        """A row a group."""
        if self._writer:
            self._writer.groups(columns)

    def save(
        self,
        step: int,
        model: nn.Module,
        optimiser: torch.optim.Optimizer,
        extra: Callable[[Path], None] = lambda folder: None,
        **meta: object,
    ) -> None:
        """A checkpoint of whole tensors; `extra` adds files to it. All ranks call it."""
        state = self.engine.state(model, optimiser)

        def write() -> None:
            assert self._writer is not None
            with self._writer.checkpoint(step) as folder:
                write_tensors(folder, state.model, state.optimiser, **meta)
                extra(folder)

        self.engine.on_main(write)

    def restore(
        self,
        model: nn.Module,
        optimiser: torch.optim.Optimizer,
        keys: tuple[str, ...],
        extra: Callable[[Path], None] = lambda folder: None,
    ) -> tuple[int, dict[str, Any]]:
        """Go on from the last checkpoint, written by any number of ranks: its step (0: there is none) and its meta values.

        Raises:
            RunError, on other ranks TrainError: a damaged checkpoint, one whose meta values lack one of `keys`, or one of
                another model.
        """
        state = State()

        def read() -> dict[str, Any]:
            nonlocal state
            folder = latest_checkpoint(self.path)
            if folder is None:
                return {"step": 0, "meta": {}}
            tensors, slots, meta = read_tensors(folder)
            for key in keys:
                if key not in meta:
                    raise damaged(folder / "meta.json", folder, f"it lacks {key!r}")
            state = State(tensors, slots)
            extra(folder)
            return {"step": int(folder.name.split("-")[1]), "meta": meta}

        found = self.engine.on_main(read)
        if found["step"]:
            self.engine.load(state, model, optimiser)
        return found["step"], found["meta"]

    @contextmanager
    def guard(self, step: int) -> Iterator[None]:
        """Where training breaks off: say at which step, and which checkpoint is kept."""
        try:
            yield
        except TrainError as error:
            last = latest_checkpoint(self.path)
            kept = f"the last good checkpoint is {last}" if last else "there is no checkpoint yet"
            raise TrainError(f"step {step}: {error}; {kept}") from error

    def close(self, state: State, summary: Mapping[str, Any]) -> None:
        """Leave the model below `model/`, then say that the run is complete."""

        def write() -> None:
            assert self._writer is not None
            with atomic_directory(self.path / "model") as temporary:
                write_tensors(temporary, state.model)
            if self._sink:
                self._sink.close()
            self._writer.close(summary=summary)

        self.engine.on_main(write)
