"""The golden vectors: the batches and what the formulas make of them, as versioned files with their hashes.

    python -m recast_analysis.conform.golden FOLDER

writes them anew. `advantages.json` and `loss.json` hold everything, for readers in any language; the parquet files hold the
same, a row of a batch (or a whole loss) a line. SHA256SUMS has their hashes. Values are from the formulas alone, never from a
trainer.
"""

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from recast_analysis.conform.advantage_formulas import EQUAL, FORMULAS, differences
from recast_analysis.conform.cases import Case, LossCase, loss_cases, reward_cases
from recast_analysis.conform.conform_error import ConformError
from recast_analysis.conform.loss_formulas import LOSS
from recast_sim.bounded import MEGABYTE, json_value, read_bounded

FOLDER = Path(__file__).parent / "golden-v1"
VERSION = 1
SUMS = "SHA256SUMS"
Key = tuple[str, str, tuple[tuple[str, str], ...]]


@dataclass(frozen=True)
class Golden:
    """Batches, and the values of some settings by method, batch and setting."""

    cases: Sequence[Any]
    expected: Mapping[Key, Sequence[float]]


def key(method: str, case: Any, setting: Mapping[str, str]) -> Key:
    """Settings that a batch cannot tell apart share one."""
    return method, case.name, tuple(sorted(case.relevant(setting).items()))


@cache
def golden(kind: str, folder: Path = FOLDER) -> Golden:
    """The golden vectors of advantages or of the loss.

    Raises:
        ConformError: a file that is not the one that was written.
    """
    wanted = dict(line.split()[::-1] for line in _read(folder / SUMS).decode().splitlines())
    path = folder / f"{kind}.json"
    content = _read(path)
    if sha256(content).hexdigest() != wanted.get(path.name):
        raise ConformError(f"{path}: differs from its hash in {SUMS}; install recast anew")
    found = json_value(content, path, ConformError)
    names = {field.name for field in fields(Case if kind == "advantages" else LossCase)}
    cases = [
        (Case if kind == "advantages" else LossCase)(**{name: value for name, value in case.items() if name in names})
        for case in found["cases"]
    ]
    by_name = {case.name: case for case in cases}
    stored = {key(row["method"], by_name[row["case"]], row["setting"]): _numbers(row["values"]) for row in found["expected"]}
    return Golden(cases, stored)


def _numbers(values: Sequence[float | None]) -> list[float]:
    return [math.nan if value is None else value for value in values]


def document(kind: str) -> dict[str, Any]:
    """What `KIND.json` holds: for each method the reference, and each choice taken alone where it matters. NaN is null."""
    cases: list[Any] = [*reward_cases()] if kind == "advantages" else [*loss_cases()]
    formulas: dict[str, Any] = FORMULAS if kind == "advantages" else {"loss": LOSS}
    expected: list[dict[str, Any]] = []
    for method, formula in formulas.items():
        reference = formula.reference()
        for setting in formula.settings():
            if differences(setting, reference) > 1 or setting.get(EQUAL, "0") != "0":
                continue
            for case in cases:
                values = case.expected(formula, setting)
                if setting == reference or values != case.expected(formula, reference):
                    shown = [value if math.isfinite(value) else None for value in values]
                    expected.append({"method": method, "setting": setting, "case": case.name, "values": shown})
    sources = {method: formula.source for method, formula in formulas.items()}
    return {
        "format": "recast-conform",
        "version": VERSION,
        "kind": kind,
        "methods": sources,
        "cases": [{name: value for name, value in asdict(case).items() if name != "answers"} for case in cases],
        "expected": expected,
    }


def write_golden(folder: Path) -> None:
    """Write all golden files and their hashes into a folder."""
    import polars as pl

    from recast_sim.runs.atomic import atomic_directory, write_text

    with atomic_directory(folder) as inside:
        for kind in ("advantages", "loss"):
            found = document(kind)
            write_text(inside / f"{kind}.json", _text(found))
            pl.DataFrame(_lines(found), infer_schema_length=None).write_parquet(inside / f"{kind}.parquet")
        names = sorted(path.name for path in inside.iterdir())
        write_text(inside / SUMS, "".join(f"{sha256(_read(inside / name)).hexdigest()}  {name}\n" for name in names))


def _text(found: Mapping[str, Any]) -> str:
    """JSON with a case or an expectation a line."""
    parts = []
    for name, value in found.items():
        listed = isinstance(value, list)
        body = "[\n" + ",\n".join(json.dumps(one, allow_nan=False) for one in value) + "\n]" if listed else json.dumps(value)
        parts.append(f"{json.dumps(name)}: {body}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _lines(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    cases = {case["name"]: case for case in found["cases"]}
    lines = []
    for row in found["expected"]:
        case, told = cases[row["case"]], {"method": row["method"], "setting": json.dumps(row["setting"]), "case": row["case"]}
        for place, value in enumerate(row["values"]):
            if found["kind"] == "loss":
                given = {name: case[name] for name in ("new", "old", "reference", "advantages", "mask")}
            else:
                reward = case["rewards"][place]
                given = {
                    "row": place,
                    "group": str(case["ids"][place]),
                    "group_is": type(case["ids"][place]).__name__,
                    "rewards": reward if isinstance(reward, list) else [reward],
                    "dtype": "float16" if case["half"] else "float32",
                }
            lines.append({"version": found["version"], **told, **given, "expected": value})
    return lines


def _read(path: Path) -> bytes:
    return read_bounded(path, 16 * MEGABYTE, ConformError)


if __name__ == "__main__":
    write_golden(Path(sys.argv[1]))
