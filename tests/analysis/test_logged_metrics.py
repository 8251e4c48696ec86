"""The glossary explains every column that a run folder logs, and nothing else."""

import re
from fnmatch import fnmatchcase
from pathlib import Path

import polars as pl

from recast_analysis.glossary import FILE

TABLES = ("steps", "evals", "groups", "learning")


def explained() -> set[str]:
    rows = re.findall(r"^\| (`.+?`) \|", FILE.read_text(encoding="utf-8"), re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`(.+?)`", row)}


def test_every_logged_column_is_in_the_glossary(run_folders: dict[str, Path]) -> None:
    files = [file for kind in ("train", "real") for file in run_folders[kind].rglob("*.parquet")]
    logged = {column for file in files if file.stem.startswith(TABLES) for column in pl.read_parquet_schema(file)}
    patterns = explained()
    assert len(logged) > 60
    assert {name for name in logged if not any(fnmatchcase(name, pattern) for pattern in patterns)} - {"model", "user"} == set()
    assert {pattern for pattern in patterns if not any(fnmatchcase(name, pattern) for name in logged)} == set()
