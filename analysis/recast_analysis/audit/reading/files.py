"""Which files a dump consists of, and what each holds, told by its first bytes and never by its name."""

import os
from collections.abc import Sequence
from pathlib import Path

from recast_analysis.audit.audit_error import AuditError
from recast_sim.runs.table_files import MAGIC, file_start

_TABLES = ("╭", "┏", "┌", "─", "+-")


def find_files(paths: Sequence[Path]) -> list[Path]:
    """The named files, and the files of the named folders and their subfolders but for hidden ones; each once, however named.

    Raises:
        AuditError: no path, a path that does not exist, a folder without files, or one with a link to another folder.
    """
    if not paths:
        raise AuditError("dumps: none given; name at least one file or folder of rollouts")
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = _inside(path)
            if not inside:
                raise AuditError(f"{path}: the folder holds no files; name the folder that the rollouts were written to")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise AuditError(f"{path}: no such file or folder; fix the path")
    once: dict[str, Path] = {}
    for file in found:
        once.setdefault(os.path.realpath(file), file)  # unlike Path.resolve it takes a link that leads to itself
    return list(once.values())


def file_format(path: Path) -> str:
    """ "parquet", "jsonl" or "csv".

    Raises:
        AuditError: no ordinary file, an empty one, a compressed one, a JSON array or another JSON document, a printed table, or
            no text.
    """
    start = file_start(path, AuditError)
    if start.startswith(MAGIC):
        return "parquet"
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().decode("utf-8", errors="replace")
    if text.startswith("["):
        raise AuditError(f"{path}: line 1: a JSON array; write one JSON object a line (JSON lines)")
    if text.startswith('{"columns"'):
        raise AuditError(f"{path}: line 1: a logged table of another tool; audit the dump that the trainer itself wrote")
    if text.startswith(_TABLES):
        words = "a printed table, which rounds rewards and shows a sample"
        raise AuditError(f"{path}: line 1: {words}; audit the completions_*.parquet that TRL writes to output_dir/completions")
    return "jsonl" if text.startswith("{") else "csv"


def _inside(folder: Path) -> list[Path]:
    """All that is no folder, so that a pipe or a link that leads nowhere is an error and no step that is missing unseen."""
    shown = sorted(path for path in folder.rglob("*") if not _hidden(path.relative_to(folder)))
    for path in shown:
        if path.is_dir() and path.is_symlink():
            raise AuditError(f"{path}: is a link to a folder, which is not followed; name that folder itself")
    return [path for path in shown if not path.is_dir()]


def _hidden(inside: Path) -> bool:
    return any(part.startswith(".") for part in inside.parts)
