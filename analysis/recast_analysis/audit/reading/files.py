"""Which files a dump consists of, and what each holds, told by its first bytes and never by its name."""

from collections.abc import Sequence
from pathlib import Path

from recast_analysis.audit.audit_error import AuditError
from recast_sim.runs.table_files import MAGIC

_MAGIC = {
    b"\x1f\x8b": "compressed by gzip; unpack it",
    b"\x28\xb5\x2f\xfd": "compressed by zstd; unpack it",
    b"\xfd7zXZ": "compressed by xz; unpack it",
    b"PK\x03\x04": "a zip archive; unpack it",
}
_WIDE = {  # the longer marks first: UTF-32's begins as UTF-16's does
    b"\xff\xfe\0\0": "UTF-32",
    b"\0\0\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
_TABLES = ("╭", "┏", "┌", "─", "+-")


def find_files(paths: Sequence[Path]) -> list[Path]:
    """The named files, and the files of the named folders and their subfolders but for hidden ones; each once, however named.

    Raises:
        AuditError: no path, a path that does not exist, or a folder without files.
    """
    if not paths:
        raise AuditError("dumps: none given; name at least one file or folder of rollouts")
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if file.is_file() and not _hidden(file.relative_to(path)))
            if not inside:
                raise AuditError(f"{path}: the folder holds no files; name the folder that the rollouts were written to")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise AuditError(f"{path}: no such file or folder; fix the path")
    once: dict[Path, Path] = {}
    for file in found:
        once.setdefault(file.resolve(), file)
    return list(once.values())


def file_format(path: Path) -> str:
    """ "parquet", "jsonl" or "csv".

    Raises:
        AuditError: an empty file, a compressed one, a JSON array or another JSON document, a printed table, or no text.
    """
    try:
        with path.open("rb") as file:
            start = file.read(1 << 16)
    except OSError as error:
        raise AuditError(f"{path}: cannot be read: {error.strerror}; fix the path or its rights") from error
    if not start:
        raise AuditError(f"{path}: the file is empty; fetch it again")
    if start.startswith(MAGIC):
        return "parquet"
    for magic, words in _MAGIC.items():
        if start.startswith(magic):
            raise AuditError(f"{path}: {words}")
    if wide := wide_text(start):
        raise AuditError(f"{path}: text in {wide}; save it as UTF-8")
    if b"\0" in start:
        raise AuditError(
            f"{path}: line {start[: start.index(0)].count(10) + 1}: holds a NUL; no text, no parquet, fetch it again"
        )
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().decode("utf-8", errors="replace")
    if text.startswith("["):
        raise AuditError(f"{path}: line 1: a JSON array; write one JSON object a line (JSON lines)")
    if text.startswith('{"columns"'):
        raise AuditError(f"{path}: line 1: a logged table of another tool; audit the dump that the trainer itself wrote")
    if text.startswith(_TABLES):
        words = "a printed table, which rounds rewards and shows a sample"
        raise AuditError(f"{path}: line 1: {words}; audit the completions_*.parquet that TRL writes to output_dir/completions")
    return "jsonl" if text.startswith("{") else "csv"


def wide_text(start: bytes) -> str | None:
    """The encoding of two or four bytes a character, by its mark or by the zeros of plain letters; None for any other."""
    if marked := next((name for mark, name in _WIDE.items() if start.startswith(mark)), None):
        return marked
    sample = start[:64]
    zeros = [set(sample[place::4]) == {0} for place in range(4)]
    if len(sample) < 8 or sum(zeros) == 4:
        return None
    return {3: "UTF-32", 2: "UTF-16"}.get(sum(zeros)) if zeros[0] == zeros[2] or sum(zeros) == 3 else None


def _hidden(inside: Path) -> bool:
    return any(part.startswith(".") for part in inside.parts)
