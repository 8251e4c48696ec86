"""Files of the product are there whole or not at all: what writes one takes its path from an atomic writer around it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("recast_sim", "recast_train", "analysis")
ATOMIC = ("atomic_file", "atomic_directory", "checkpoint")  # what follows `with`
METHODS = ("savefig", "save_pretrained", "tofile")
PREFIXES = ("write_", "sink_")  # methods of paths and tables; as plain functions these are our own atomic ones
FUNCTIONS = (
    "save_file",
    "save_tensors",
    "write_tensors",
    "save_state",
    "torch.save",
    "np.save",
    "np.savez",
    "json.dump",
    "pickle.dump",
)
ALLOWED = {
    "recast_sim/runs/writer.py RunWriter._append": "a row at the end of a file; resuming drops a line that was cut",
    "recast_sim/runs/model_state.py save_state": "the folder of a checkpoint",
    "recast_sim/runs/model_state.py write_tensors": "the folder of a checkpoint",
    "recast_sim/runs/model_state.py save_tensors": "the caller's path",
    "recast_sim/training/constructor_inputs.py ConstructorInputs.save": "the folder of a checkpoint",
    "recast_train/supervised/train.py _checkpoint.best": "the folder of a checkpoint",
    "recast_train/data/cache.py _fill": "a scratch folder, renamed when whole",
    "recast_train/data/ml100k.py _download": "a scratch folder",
    "analysis/recast_analysis/drawing/style.py as_svg": "memory",
    "analysis/recast_analysis/notebook.py show": "memory",
}


def bare_writes(tree: ast.AST, place: str = "", safe: frozenset[str] = frozenset()) -> Iterator[str]:
    """Dotted name of the function around each call that writes a file without a path from an atomic writer."""
    for node in ast.iter_child_nodes(tree):
        inner, paths = place, safe
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            inner = f"{place}.{node.name}".lstrip(".")
        elif isinstance(node, ast.With):
            paths = safe.union(*(names_in(item.optional_vars) for item in node.items if is_atomic(item.context_expr)))
        elif isinstance(node, ast.Call) and is_write(node) and not safe & names_in(node):
            yield place
        yield from bare_writes(node, inner, paths)


def names_in(node: ast.AST | None) -> set[str]:
    return set() if node is None else {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


def is_atomic(expression: ast.expr) -> bool:
    return isinstance(expression, ast.Call) and ast.unparse(expression.func).split(".")[-1] in ATOMIC


def is_write(call: ast.Call) -> bool:
    whole, name = ast.unparse(call.func), ast.unparse(call.func).split(".")[-1]
    if name == "open":
        given = [*call.args, *(keyword.value for keyword in call.keywords)]
        modes = [part.value for part in given if isinstance(part, ast.Constant) and isinstance(part.value, str)]
        return any(set(mode) <= set("rwaxbt+") and set(mode) & set("wax+") for mode in modes)
    if isinstance(call.func, ast.Attribute) and (name in METHODS or name.startswith(PREFIXES)):
        return True
    return whole in FUNCTIONS


def test_every_file_is_written_whole() -> None:
    found = {
        f"{file.relative_to(ROOT)} {place}"
        for package in PACKAGES
        for file in (ROOT / package).rglob("*.py")
        for place in bare_writes(ast.parse(file.read_text(encoding="utf-8")))
    }
    assert found == set(ALLOWED)


@pytest.mark.parametrize(
    ("code", "bare"),
    [
        ("table.write_parquet(root / 'x.parquet')", True),
        ("path.write_text('x')", True),
        ("open(path, mode='wb')", True),
        ("path.open('a')", True),
        ("torch.save(state, path)", True),
        ("with atomic_file(path) as temporary: table.write_parquet(path)", True),
        ("with atomic_file(path) as temporary: table.write_parquet(temporary)", False),
        ("with writer.checkpoint(3) as folder: save_tensors(folder / 'x', tensors)", False),
        ("write_json(path, value)", False),
        ("open(path)", False),
        ("path.read_text()", False),
    ],
)
def test_bare_writes_are_told_from_whole_ones(code: str, bare: bool) -> None:
    assert bool(list(bare_writes(ast.parse(code)))) == bare
