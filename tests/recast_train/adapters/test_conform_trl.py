"""The installed TRL under the conformance kit: its choices, and faults planted in it."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch

from docs.site.conform_table import held, row
from recast_analysis.conform.conform_error import ConformError
from recast_analysis.conform.judge import judge
from recast_analysis.conform.judged_target import load_target

pytest.importorskip("trl")
pytestmark = [pytest.mark.adapters, pytest.mark.filterwarnings("ignore")]
PAGE = Path(__file__).parents[3] / "docs" / "conform.md"


@pytest.mark.parametrize(("target", "method"), held("trl"))
def test_trls_row_of_the_page(target: str, method: str | None) -> None:
    assert row(target, method) in PAGE.read_text().splitlines(), "python -m docs.site.conform_table trl prints it again"


def test_the_page_has_the_installed_trl_and_no_other_row() -> None:
    text = PAGE.read_text()
    assert f"TRL {version('trl')}," in text
    assert len([line for line in text.splitlines() if line.startswith("| trl:")]) == len(held("trl"))


def test_a_std_that_forgets_nan_is_a_fault_of_three_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    def plain(table: Any, dim: Any = None, keepdim: bool = False) -> Any:
        return torch.nan_to_num(table).std() if dim is None else torch.nan_to_num(table).std(dim, keepdim=keepdim)

    monkeypatch.setattr("trl.trainer.grpo_trainer.nanstd", plain)
    verdict = judge(load_target("trl:grpo"), batches=4)
    assert "missing reward" in {fault.what for fault in verdict.faults}
    smallest = min(len(fault.minimal["rewards"]) for fault in verdict.faults if fault.minimal)
    assert smallest <= 3  # two rewards and a None; ragged groups are filled with None as well


def test_names_that_are_not_there() -> None:
    for name in ("trl:ppo", "trl:loss:x"):
        with pytest.raises(ConformError, match=f"{name} is not known; choose from"):
            load_target(name)
