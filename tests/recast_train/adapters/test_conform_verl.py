"""The installed verl under the conformance kit: its choices, its faults, and one planted in it."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from docs.site.conform_table import held, row
from recast_analysis.conform.conform_error import ConformError
from recast_analysis.conform.judge import judge
from recast_analysis.conform.judged_target import load_target

pytestmark = pytest.mark.verl
pytest.importorskip("verl")
PAGE = Path(__file__).parents[3] / "docs" / "conform.md"


@pytest.mark.parametrize(("target", "method"), held("verl"))
def test_verls_row_of_the_page(target: str, method: str | None) -> None:
    assert row(target, method) in PAGE.read_text().splitlines(), "python -m docs.site.conform_table verl prints it again"


def test_the_page_has_the_installed_verl_and_no_other_row() -> None:
    text = PAGE.read_text()
    assert f"verl {version('verl')} " in text
    assert len([line for line in text.splitlines() if line.startswith("| verl:")]) == len(held("verl"))


def test_names_that_are_not_there() -> None:
    for name in ("verl:ppo", "verl:loss:x"):
        with pytest.raises(ConformError, match=f"{name} is not known; choose from"):
            load_target(name)


def test_a_floor_under_the_variance_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in verl#6348: the vectorised grpo shrank advantages where rewards hardly differ."""
    from verl.trainer.ppo import core_algos  # pyright: ignore[reportMissingImports]

    exact = core_algos.group_mean_std

    def floored(scores: Any, index: Any, eps: float = 1e-6, device: Any = None) -> Any:
        return exact(scores, index, eps=1e-4, device=device)

    monkeypatch.setattr(core_algos, "group_mean_std", floored)
    found = {f.what: f.minimal for f in judge(load_target("verl:grpo_vectorized"), batches=4).faults}
    assert len(found["small spread"]["rewards"]) == 2
