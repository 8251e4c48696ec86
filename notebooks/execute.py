"""Run notebooks from top to bottom and save their outputs: `python notebooks/execute.py [NOTEBOOK ...]`, default all of them.

Each runs in a fresh kernel and a temporary folder. What Jupyter stores of the machine is dropped, so that diffs stay small.
"""

import os
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

HERE = Path(__file__).resolve().parent
NOTEBOOKS = sorted(HERE.glob("*.ipynb"))
_METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
_CELL_SECONDS = 600  # a cell that takes longer hangs


def execute(path: Path, folder: Path, environment: Mapping[str, str] | None = None) -> NotebookNode:
    """A notebook with the outputs of a run in `folder`, its metadata normalised.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    notebook = nbformat.read(path, as_version=4)
    settings = os.environ | {"TMPDIR": str(folder)} | dict(environment or {})
    options = {
        "timeout": _CELL_SECONDS,
        "startup_timeout": _CELL_SECONDS,
        "record_timing": False,
        "resources": {"metadata": {"path": str(folder)}},
    }
    return normalised(NotebookClient(notebook, kernel_name="python3", **options).execute(env=settings))


def normalised(notebook: NotebookNode) -> NotebookNode:
    """The notebook with the same metadata everywhere; of a cell's own only its tags are kept."""
    notebook.metadata = nbformat.from_dict(_METADATA)
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({"tags": cell.metadata["tags"]} if cell.metadata.get("tags") else {})
    return notebook


def main(paths: list[Path]) -> None:
    for path in paths or NOTEBOOKS:
        begun = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            nbformat.write(execute(path, Path(folder)), path)
        print(f"{path.name}: {time.perf_counter() - begun:.0f} s, {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
