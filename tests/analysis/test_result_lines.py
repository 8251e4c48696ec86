"""A run in three lines, by kind, and what makes a smoke run."""

from pathlib import Path
from typing import Any

import pytest
from study_tables import user_table, write_study

from recast_analysis.reports.run_kinds import REPORTS, find_report, run_report
from recast_analysis.result_lines import result_lines, smoke_words


def test_a_study_with_intervals_and_without(tmp_path: Path) -> None:
    def changing(method: str, seed: int, user: int) -> float:
        return {"start": 0.2, "grpo": 0.3, "recast": 0.5, "sft": 0.1}[method] * (1 + seed) * (1 + 0.1 * user)

    write_study(tmp_path, user_table(changing, seeds=3, users=5))
    assert result_lines("real-study", REPORTS["real-study"](tmp_path).summary) == [
        "3 methods, 3 seeds, 1 starting point.",
        "one, ndcg@10: recast ends highest, +150.0 % [+150.0, +150.0] of the start's.",
        "Told from the start (95 % over seeds and users): above grpo, recast; below sft.",
    ]
    write_study(tmp_path / "one", user_table(lambda m, s, u: changing(m, s, u) / 7, seeds=1, users=1))
    assert result_lines("real-study", REPORTS["real-study"](tmp_path / "one").summary)[2] == "One seed, no interval."


def test_gradients_name_both_ends(run_folders: dict[str, Path]) -> None:
    summary = run_report(run_folders["gradients"]).summary
    what, found, sure = result_lines("gradients", summary)
    assert what == "2 constructors at one base policy, G = 8, 16 train prompts."
    cosines = {row["constructor"]: row["cosine"] for row in summary["reports"] if row["group_size"] == 8}
    high, low = sorted(cosines, key=cosines.__getitem__, reverse=True)
    assert found.endswith(f"highest {high} {cosines[high]:+.3f}, lowest {low} {cosines[low]:+.3f}.")
    assert sure == "One world, no interval."


SEARCHED = [{"candidate": "a", "failed": None, "ndcg@10": 0.25}, {"candidate": "b", "failed": "no room"}]
FINDINGS = [{"what": "width", "holds": True}, {"what": "anchors", "holds": False}, {"what": "told", "holds": None}]
CLAIMS = [{"claim": 2, "verdict": "holds"}, {"claim": 1, "verdict": "undecided"}, {"claim": 2, "verdict": "holds"}]


@pytest.mark.parametrize(
    ("kind", "summary", "lines"),
    [
        (
            "real-search",
            {"candidates": SEARCHED},
            ["1 supervised starts compared on validation prompts, 1 failed.", "Best ndcg@10: a, 0.2500."],
        ),
        (
            "check",
            {"constructor": "mine", "findings": FINDINGS, "cost": {"mine": 3.0, "grpo": 2.0}},
            ["mine: 1 of 2 declarations hold.", "Broken: anchors.", "It takes 1.50 of grpo's time."],
        ),
        ("claims", {"claims": CLAIMS}, ["3 measurements of claims 1, 2.", "Verdicts: 2 holds, 1 undecided."]),
        (
            "theory",
            {"weights": {"a": 1, "b": 2}, "group_size": 32, "hit_rate": 0.005},
            ["2 constructors in closed form, G = 32, mean hit rate 0.005."],
        ),
        ("real-sft", {"status": "complete", "step": 1200, "ndcg@10": 0.1}, ["One stage of a real run, complete, 1,200 steps."]),
        ("nobody's", {}, []),
    ],
)
def test_lines_of_the_other_kinds(kind: str, summary: dict[str, Any], lines: list[str]) -> None:
    found = result_lines(kind, summary)
    assert found[: len(lines)] == lines
    assert len(found) <= 3


@pytest.mark.parametrize(
    ("kind", "config", "small"),
    [
        ("real", {"rl": {"steps": 4}, "evaluation": {"prompts": 300}}, "4 RL steps, 300 test prompts"),
        ("real", {"rl": {"steps": 50}, "evaluation": {"prompts": 499}}, "499 test prompts"),
        ("real", {"rl": {"steps": 50}, "evaluation": {"prompts": 0}}, ""),  # all of them
        ("budget", {"setting": {"training": {"steps": 24}}, "protocol": {"seeds": 20}}, "24 steps"),
        ("budget", {"setting": {"training": {"steps": 100}}, "protocol": {"seeds": 5}}, ""),
        ("theory", {"steps": 1}, ""),
        ("real", {"rl": "damaged"}, ""),
    ],
)
def test_what_is_a_smoke_run(kind: str, config: dict[str, Any], small: str) -> None:
    words = smoke_words(kind, config)
    assert words == (small and f"Smoke run ({small}): it shows that everything runs, and no figure of it is a result.")


def test_the_tables_of_a_smoke_run_begin_with_it(run_folders: dict[str, Path]) -> None:
    for kind in ("train", "real"):
        assert str(run_report(run_folders[kind]).parts[0]).startswith("Smoke run (")
    assert not str(run_report(run_folders["map"]).parts[0]).startswith("Smoke")
    assert isinstance(find_report(run_folders["killed"] / "nowhere"), str)
