"""The installed TRL under the conformance kit: its choices, and faults planted in it."""

from typing import Any

import pytest
import torch

pytest.importorskip("trl")

from recast_analysis.conform.conform_error import ConformError
from recast_analysis.conform.judge import judge
from recast_analysis.conform.judged_target import load_target

pytestmark = [pytest.mark.adapters, pytest.mark.filterwarnings("ignore")]
FOUR = "std + 1e-4"


@pytest.mark.parametrize(
    ("name", "choices"),
    [
        ("grpo", {"denominator": FOUR}),
        ("dr_grpo", {}),
        ("batch", {"denominator": FOUR, "std of": "the batch"}),
        ("gdpo", {"denominator": FOUR, "each function's": FOUR}),
        ("rloo", {}),
        ("loss:dapo", {}),
        ("loss:grpo", {"denominator": "rows, each by its tokens"}),
        ("loss:bnpo", {}),
        ("loss:dr_grpo", {"denominator": "rows x width"}),
    ],
)
def test_trls_choices(name: str, choices: dict[str, str]) -> None:
    verdict = judge(load_target(f"trl:{name}"), batches=4)
    assert {fault.what for fault in verdict.faults} == ({"zero variance"} if name == "gdpo" else set())
    found = {f.what: f.says.partition(" (reference")[0] for f in verdict.findings if f.verdict == "choice"}
    assert found | {"equal rewards": ""} == choices | {"equal rewards": ""}
    assert verdict.explained + len(verdict.faults) == verdict.asked


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
