"""`recast-sim thoughts`: a small comparison from end to end, its tables again, and what is refused."""

import json
from pathlib import Path

import polars as pl
import pytest
from commands import called

from recast_analysis.reports.run_kinds import run_report
from recast_sim.cli import main
from recast_sim.runs import RunError

RECIPE = """
pairs = [["verifree", "supervision"], ["shares", "supervision"]]
[setting]
base_steps = 10
[setting.environment]
items = 40
sizes = [4, 4, 4]
dim = 4
train_prompts = 128
heldout_prompts = 32
validation_prompts = 1
[setting.training]
steps = 4
prompts_per_step = 8
group_size = 4
[protocol]
methods = [
  "alone: supervision thoughts=1",
  "supervision",
  "grpo: hard constructor=grpo",
  "verifree: soft constructor=rloo answer=psr",
  "shares: soft constructor=max_rl answer=reward_share by_target=true",
]
learning_rates = [0.01]
seeds = 2
tuning_seeds = 1
gradient_prompts = 4
[[points]]
label = "one"
[[points]]
label = "lists"
"environment.targets" = 3
"""
METHODS = ["alone", "supervision", "grpo", "verifree", "shares"]


@pytest.mark.slow
def test_a_comparison_from_end_to_end(tmp_path: Path) -> None:
    file, out = tmp_path / "small.toml", tmp_path / "out"
    file.write_text(RECIPE)
    done = called(main, "thoughts", file, "--out", out, "--workers", 1, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert Path(result["figure"]).stat().st_size > 10_000
    gains = {(row["setting"], row["method"]): row for row in result["gains"]}
    assert list(gains) == [("one", name) for name in ["base", *METHODS[:4]]] + [("lists", name) for name in ["base", *METHODS]]
    assert gains["one", "base"]["pass_at_1_greedy_gain"]["value"] == 0
    assert gains["one", "alone"]["pass_at_1_greedy_told"] == pytest.approx(0, abs=1e-5)
    assert gains["one", "alone"]["pass_at_1_one_thought"] == pytest.approx(gains["one", "alone"]["pass_at_1_greedy"], rel=0.2)
    pairs = [(row["pair"], row["setting"]) for row in result["pairs"] if row["metric"] == "pass_at_1_greedy"]
    assert pairs == [
        ("verifree vs supervision", "one"),
        ("verifree vs supervision", "lists"),
        ("shares vs supervision", "lists"),
    ]
    updates = {(row["setting"], row["method"]): row for row in result["gradients"]}
    assert ("one", "alone") not in updates  # its policy has other parameters
    assert updates["one", "verifree"]["cosine_hit"] == pytest.approx(1)
    assert updates["one", "verifree"]["learnable"] > updates["one", "grpo"]["learnable"]
    _changes_are_those_of_the_runs(out, gains["one", "verifree"])
    assert run_report(out).summary["gains"] == result["gains"]
    _a_run_that_broke_off_has_lost_everything(out, gains["one", "verifree"])
    (out / "rates.parquet").unlink()
    with pytest.raises(RunError, match=r"rates\.parquet is missing"):
        run_report(out)


def _changes_are_those_of_the_runs(out: Path, row: dict) -> None:
    runs = pl.read_parquet(out / "runs.parquet").filter(pl.col("setting") == "one").sort("seed")
    ours, base = (runs.filter(pl.col("method") == name)["pass_at_1_greedy"].to_numpy() for name in ("verifree", "base"))
    assert row["pass_at_1_greedy"] == pytest.approx(ours.mean())
    assert row["pass_at_1_greedy_gain"]["value"] == pytest.approx((ours / base - 1).mean())
    assert row["pass_at_1_greedy_gain"]["n"] == 2


def _a_run_that_broke_off_has_lost_everything(out: Path, row: dict) -> None:
    runs = pl.read_parquet(out / "runs.parquet")
    broken = (pl.col("setting") == "one") & (pl.col("method") == "verifree") & (pl.col("seed") == 0)
    metrics = pl.when(~broken).then(pl.col("pass_at_1_greedy", "learnable", "recall_at_k", "thought_information"))
    runs.with_columns(metrics).write_parquet(out / "runs.parquet")
    found = next(one for one in run_report(out).summary["gains"] if (one["setting"], one["method"]) == ("one", "verifree"))
    assert found["pass_at_1_greedy_gain"]["value"] < row["pass_at_1_greedy_gain"]["value"]
    assert found["learnable"] is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (('supervision"]]', 'magic"]]'), "ThoughtsConfig.pairs: 'magic' is not among protocol.methods"),
        (("constructor=grpo", "constructor=recast"), "constructor 'recast' reads structural_PG, has_anchor_P"),
        (("alone:", "base:"), "'base' is the start's name"),
        (("group_size = 4", "group_size = 1"), "group_size"),
        (("dim = 4", "dim = 4\nreward_knows = 0.5"), "reward_knows: 0.5 must be 0"),
    ],
)
def test_bad_input_is_one_line(tmp_path: Path, change: tuple[str, str], words: str) -> None:
    file = tmp_path / "small.toml"
    file.write_text(RECIPE.replace(*change))
    done = called(main, "thoughts", file, "--out", tmp_path / "out", "--workers", 1)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
