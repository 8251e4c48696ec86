"""The conformance kit in pytest: a fixture, and an option that adds a test for a function.

    def test_advantages(conforms):
        conforms("mine.advantages:grpo", "grpo", ddof="1")

    pytest --recast-conform mine.advantages:grpo

Nothing but pytest is imported before one of them is used.
"""

import re
from collections.abc import Callable
from typing import Any

import pytest


class ConformanceTest(pytest.Item):
    """One target of `--recast-conform`; it fails where a fault is found."""

    def runtest(self) -> None:
        hold(self.name)

    def repr_failure(self, excinfo: Any, style: Any = None) -> str:
        return str(excinfo.value)

    def reportinfo(self) -> tuple[Any, None, str]:
        return self.path, None, f"recast-conform {self.name}"


def pytest_addoption(parser: Any) -> None:
    group = parser.getgroup("recast")
    words = "also hold this function to its golden vectors: module:function, file.py:function, trl:grpo; may be given again"
    group.addoption("--recast-conform", action="append", default=[], metavar="TARGET", help=words)


def pytest_collection_modifyitems(session: Any, config: Any, items: list[Any]) -> None:
    items += [ConformanceTest.from_parent(session, name=name) for name in config.getoption("--recast-conform")]


@pytest.fixture
def conforms() -> Callable[..., Any]:
    """`conforms(target, method=None, loss=False, functions=False, **choices)`: see `hold`."""
    return hold


def hold(target: Any, method: str | None = None, loss: bool = False, functions: bool = False, **choices: str) -> Any:
    """Judge a target (a name, or a function itself), and return the verdict.

    Args:
        choices: options that must be the ones found, by the choice's name with _ for what is no letter: `ddof="1"`,
            `denominator="std + 1e-4"`, `one_row="0"`.

    Raises:
        AssertionError: a fault, with its smallest batch, or another choice.
        ConformError: a target, method or choice that does not exist.
    """
    from recast_analysis.conform.conform_error import ConformError
    from recast_analysis.conform.conform_report import report
    from recast_analysis.conform.judge import judge
    from recast_analysis.conform.judged_target import Target, load_target

    if callable(target):
        found = Target(getattr(target, "__name__", "function"), target, "loss" if loss else "advantages", None, functions)
    else:
        found = load_target(target, loss, functions)
    verdict = judge(found, method)
    if verdict.faults:
        raise AssertionError("\n".join(part for part in report(verdict).parts if isinstance(part, str)))
    setting = {re.sub(r"\W", "_", name): option for name, option in verdict.setting.items()}
    for name, wanted in choices.items():
        if name not in setting:
            raise ConformError(f"{name}: no choice of {verdict.method} has that name; choose from {', '.join(setting)}")
        if setting[name] != wanted:
            raise AssertionError(f"{found.name} as {verdict.method}: {name} is {setting[name]!r}, expected {wanted!r}")
    return verdict
