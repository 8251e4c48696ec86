"""The installed verl under the conformance kit: its choices, its faults, and one planted in it."""

from typing import Any

import pytest

from recast_analysis.conform.judge import judge
from recast_analysis.conform.judged_target import load_target

pytestmark = pytest.mark.verl
pytest.importorskip("verl")
NAN = {"missing reward": "NaN for all that it is compared with"}
RAW = {"one row": "its reward", **NAN}
DUAL = {"clip": "both sides (dual clip, 3)", "KL clamp": "log ratio to 20, estimate to 10"}


@pytest.mark.parametrize(
    ("name", "choices", "faults"),
    [
        ("grpo", RAW, set()),
        ("grpo_vectorized", RAW, {"hashed ids", "digit ids"}),
        ("dr_grpo", RAW, set()),
        ("rloo", RAW, {"float16"}),
        ("rloo_vectorized", NAN, {"float16"}),
        ("opo", RAW, set()),
        ("gpg", RAW, set()),
        ("reinforce_plus_plus", NAN, {"float16"}),
        ("reinforce_plus_plus_baseline", RAW, set()),
        ("gdpo", RAW, {"zero variance"}),
        ("grpo_passk", {"one row": None}, {"missing reward", "group without reward"}),
        ("loss:token-mean", DUAL, set()),
        ("loss:seq-mean-token-sum", {"denominator": "rows", **DUAL}, set()),
        ("loss:seq-mean-token-mean", {"denominator": "rows, each by its tokens", **DUAL}, set()),
        ("loss:seq-mean-token-sum-norm", {"denominator": "rows x width", **DUAL}, set()),
    ],
)
def test_verls_choices_and_faults(name: str, choices: dict[str, str | None], faults: set[str]) -> None:
    verdict = judge(load_target(f"verl:{name}"), batches=4)
    assert {fault.what for fault in verdict.faults} == faults
    found = {f.what: f.says.partition(" (reference")[0] for f in verdict.findings if f.verdict == "choice"}
    said = {what: None if says.startswith("refused") else says for what, says in found.items() if what != "equal rewards"}
    assert said == choices


def test_a_floor_under_the_variance_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in verl#6348: the vectorised grpo shrank advantages where rewards hardly differ."""
    from verl.trainer.ppo import core_algos  # pyright: ignore[reportMissingImports]

    exact = core_algos.group_mean_std

    def floored(scores: Any, index: Any, eps: float = 1e-6, device: Any = None) -> Any:
        return exact(scores, index, eps=1e-4, device=device)

    monkeypatch.setattr(core_algos, "group_mean_std", floored)
    found = {f.what: f.minimal for f in judge(load_target("verl:grpo_vectorized"), batches=4).faults}
    assert len(found["small spread"]["rewards"]) == 2
