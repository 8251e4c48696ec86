"""The golden vectors: the batches and what the formulas make of them, as versioned files with their hashes.

    python -m recast_analysis.conform.golden VERSION FOLDER

writes those of a version. A version never changes once it is there: the next one adds batches and methods to it, in a folder of
its own. `advantages.json` and `loss.json` are for readers in any language; the parquet files hold the same, a row of a batch
(or a whole loss) a line. SHA256SUMS has their hashes. Values are from the formulas alone, never from a trainer.
"""

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from recast_analysis.conform.advantage_formulas import FORMULAS
from recast_analysis.conform.cases import Case, LossCase
from recast_analysis.conform.conform_error import ConformError
from recast_analysis.conform.formula import EQUAL, NAN_ALONE, differences
from recast_analysis.conform.golden_batches import loss_cases, reward_cases
from recast_analysis.conform.loss_formulas import LOSS, SUM
from recast_sim.bounded import MEGABYTE, json_value, read_bounded

FOLDER = Path(__file__).parent  # of a folder a version
VERSIONS = {"advantages": (1, 2), "loss": (1, 2)}
LATER = {NAN_ALONE: 2, SUM: 2}  # options that a version brought to formulas of an earlier one
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
    """The golden vectors of advantages or of the loss, of all versions.

    Raises:
        ConformError: a file that is not the one that was written.
    """
    cases: dict[str, Any] = {}
    stored: dict[Key, Sequence[float]] = {}
    for version in VERSIONS[kind]:
        found = _verified(folder / f"golden-v{version}", kind)
        cases |= {case["name"]: _case(kind, case) for case in found["cases"]}
        for row in found["expected"]:
            stored[key(row["method"], cases[row["case"]], row["setting"])] = _numbers(row["values"])
    return Golden(list(cases.values()), stored)


def _verified(folder: Path, kind: str) -> Any:
    wanted = dict(line.split()[::-1] for line in _read(folder / SUMS).decode().splitlines())
    path = folder / f"{kind}.json"
    content = _read(path)
    if sha256(content).hexdigest() != wanted.get(path.name):
        raise ConformError(f"{path}: differs from its hash in {SUMS}; install recast anew")
    return json_value(content, path, ConformError)


def _case(kind: str, written: Mapping[str, Any]) -> Any:
    made = Case if kind == "advantages" else LossCase
    names = {field.name for field in fields(made)}
    return made(**{name: value for name, value in written.items() if name in names})


def _numbers(values: Sequence[float | None]) -> list[float]:
    return [math.nan if value is None else value for value in values]


def document(kind: str, version: int) -> dict[str, Any]:
    """What a version's `KIND.json` holds: the batches and methods that it brought.

    For each method the reference, and each choice taken alone where it matters: new methods and options on all batches that a
    method says something of, old ones on new batches. NaN is null.
    """
    formulas: dict[str, Any] = FORMULAS if kind == "advantages" else {"loss": LOSS}
    cases: Sequence[tuple[int, Any]] = [(brought, case) for brought in range(1, version + 1) for case in batches(kind, brought)]
    return {
        "format": "recast-conform",
        "version": version,
        **({"adds to": version - 1} if version > 1 else {}),
        "kind": kind,
        "methods": {method: formula.source for method, formula in formulas.items() if formula.since == version},
        "cases": [
            {name: value for name, value in asdict(case).items() if name != "answers"} for case in batches(kind, version)
        ],
        "expected": [row for method, formula in formulas.items() for row in _expectations(method, formula, cases, version)],
    }


def batches(kind: str, version: int | None = None) -> Sequence[Any]:
    """Those that a version brought, or all."""
    if kind == "advantages":
        return reward_cases(version)
    return loss_cases() if version in (None, 1) else []


def _expectations(method: str, formula: Any, cases: Sequence[tuple[int, Any]], version: int) -> Iterator[dict[str, Any]]:
    """Of those that this version brought: by their batch, their method or an option."""
    reference = formula.reference()
    for setting in formula.settings():
        if differences(setting, reference) > 1 or setting.get(EQUAL, "0") != "0":
            continue
        since = max(formula.since, *(LATER.get(option, 1) for option in setting.values()))
        for case in (case for brought, case in cases if max(brought, since) == version and formula.covers(case)):
            values = case.expected(formula, setting)
            if setting == reference or values != case.expected(formula, reference):
                shown = [value if math.isfinite(value) else None for value in values]
                yield {"method": method, "setting": setting, "case": case.name, "values": shown}


def write_golden(version: int, folder: Path) -> None:
    """Write the golden files of a version, and their hashes, into a folder."""
    import polars as pl

    from recast_sim.runs.atomic import atomic_directory, write_text

    with atomic_directory(folder) as inside:
        for kind in (kind for kind, versions in VERSIONS.items() if version in versions):
            found = document(kind, version)
            write_text(inside / f"{kind}.json", _text(found))
            lines = _lines(found, {case.name: asdict(case) for case in batches(kind)})
            pl.DataFrame(lines, infer_schema_length=None).write_parquet(inside / f"{kind}.parquet")
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


def _lines(found: Mapping[str, Any], cases: Mapping[str, Any]) -> list[dict[str, Any]]:
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
    write_golden(int(sys.argv[1]), Path(sys.argv[2]))
