"""The glossary explains every column that a run folder logs, and nothing else."""

import re
from fnmatch import fnmatchcase
from pathlib import Path

import polars as pl
from pipeline_world import run_spread, write_thinking_recipe

from recast_analysis.glossary import FILE

TABLES = ("steps", "evals", "groups", "learning")


def explained() -> set[str]:
    rows = re.findall(r"^\| (`.+?`) \|", FILE.read_text(encoding="utf-8"), re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`(.+?)`", row)}


def test_every_logged_column_is_in_the_glossary(run_folders: dict[str, Path], tmp_path: Path) -> None:
    lines = ("soft: rloo answer=psr", "hard: grpo kind=hard")
    run_spread(write_thinking_recipe(tmp_path, lines), "single", tmp_path / "thoughts")
    folders = (run_folders["train"], run_folders["real"], tmp_path / "thoughts")
    files = [file for folder in folders for file in folder.rglob("*.parquet")]
    logged = {column for file in files if file.stem.startswith(TABLES) for column in pl.read_parquet_schema(file)}
    patterns = explained()
    assert len(logged) > 60
    assert {name for name in logged if not any(fnmatchcase(name, pattern) for pattern in patterns)} - {"model", "user"} == set()
    assert {pattern for pattern in patterns if not any(fnmatchcase(name, pattern) for name in logged)} == set()
