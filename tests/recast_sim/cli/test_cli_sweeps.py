"""budget, map and claims as a newcomer runs them, at a tiny size."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from commands import called

from recast_sim.cli import main
from recast_sim.cli.budget import BudgetConfig
from recast_sim.cli.claims import ClaimsConfig
from recast_sim.cli.map import MapConfig
from recast_sim.cli.shared import RECIPES
from recast_sim.cli.thoughts import ThoughtsConfig
from recast_sim.configio import load_config
from recast_sim.experiments.map_cells import map_cells, named_settings

SIM = [sys.executable, "-c", "from recast_sim.cli import main; main()"]
TINY = """
[setting]
regime = []
convergence = 0.8
[setting.environment]
items = 40
sizes = [4, 4, 4]
dim = 6
train_prompts = 256
heldout_prompts = 64
[setting.training]
group_size = 8
prompts_per_step = 8
steps = 6
evaluate_every = 2
[protocol]
methods = ["grpo", "repair_only", "recast", "sft", "sft_hard_negative"]
learning_rates = [0.01, 0.1]
seeds = 2
tuning_seeds = 1
metrics = ["pass_at_1_greedy", "pass_at_1_sampled"]
"""
FEW = TINY.replace(', "sft_hard_negative"', "").replace("[0.01, 0.1]", "[0.1]")


def call(tmp_path: Path, command: str, text: str, *options: str) -> subprocess.CompletedProcess[str]:
    config = tmp_path / f"{command}.toml"
    config.write_text(text)
    arguments = [*SIM, command, str(config), "--out", str(tmp_path / command), *options]
    return subprocess.run(arguments, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_budget_prints_ratios_with_intervals_and_the_parts_of_the_gain(tmp_path: Path) -> None:
    done = call(tmp_path, "budget", "control_rates = [1.0, 10.0]\n" + TINY, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    row = result["metrics"]["pass_at_1_sampled"]["recast"]
    assert set(row["budget"]) == {"grpo", "sft", "sft_hard_negative"}
    assert set(row["budget"]["grpo"]) == {"rollouts", "actor_tokens", "optimiser_steps", "seconds"}
    assert set(row["budget"]["grpo"]["rollouts"]) == {
        "value",
        "low",
        "high",
        "median",
        "horizon",
        "seeds",
        "censored",
        "trivial",
    }
    assert result["metrics"]["pass_at_1_sampled"]["grpo"]["versus_grpo"]["value"] == 0
    assert set(result["parts"]["pass_at_1_greedy"]) == {"groups", "weight", "direction", "all of recast"}
    assert all(Path(figure).stat().st_size > 20_000 for figure in result["figures"])
    shown = call(tmp_path, "budget", "control_rates = [1.0, 10.0]\n" + TINY)
    assert shown.returncode == 2
    assert "holds a run already" in shown.stderr


@pytest.mark.slow
def test_map_prints_a_table_and_draws_heat_maps(tmp_path: Path) -> None:
    axes = """
[[axes]]
name = "c"
points = [{ convergence = 0.5 }, { convergence = 0.8 }]
[[axes]]
name = "w-"
points = [{ "training.signal.w_minus" = 0.3 }]
"""
    done = call(tmp_path, "map", 'grids = [["c", "w-"]]\n' + FEW + axes)
    assert done.returncode == 0, done.stderr
    assert "c 0.5, w- 0.3" in done.stdout
    assert "recast vs sft" in done.stdout
    assert "own level numbers" in done.stdout
    assert (tmp_path / "map" / "slices.png").stat().st_size > 10_000
    assert (tmp_path / "map" / "grid-c-w-.png").stat().st_size > 10_000


@pytest.mark.slow
def test_claims_are_a_list_of_objects_with_verdicts(tmp_path: Path) -> None:
    ladder = '[[ladder]]\nkind = "low_rank"\nwidth = 2\n[[ladder]]\nkind = "linear"\n'
    done = call(tmp_path, "claims", "passes = [1, 2]\npasses_prompts = 256\n" + FEW + ladder, "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert {row["claim"] for row in rows} == {1, 2, 3, 4, 9, 10, 11, 12}
    for row in rows:
        assert set(row) == {"claim", "paper", "ours", "low", "high", "seeds", "setting", "metric", "verdict"}
        sampled = row["metric"] == "pass_at_1_sampled"
        assert row["verdict"] == ("not the paper's metric" if sampled else "undecided")  # two seeds decide nothing
        assert row["low"] is None or row["ours"] is None or row["low"] <= row["ours"]


def test_constructors_are_listed_from_the_code() -> None:
    rows = {row["name"]: row for row in json.loads(called(main, "constructors", "--json").stdout)}
    assert rows["recast"] | {"update_width": "2", "all_zero": "repaired", "policy": "off"} == rows["recast"]
    assert rows["grpo"] | {"update_width": "G", "all_zero": "0", "policy": "on"} == rows["grpo"]


@pytest.mark.parametrize(
    ("command", "text", "words"),
    [
        ("budget", TINY.replace("seeds = 2", "seeds = 0"), "key 'protocol.seeds': 0 must be at least 1"),
        ("budget", TINY.replace('"grpo", ', '"magic", '), "'magic' is not registered"),
        ("budget", "points = [{ convergance = 1 }]\n" + TINY, "key 'convergance': Setting has none"),
        ("map", 'grids = [["a", "b"]]\n' + TINY, "is no axis"),
        ("map", 'pairs = [["dapo", "sft"]]\n' + TINY, "'dapo' is not among protocol.methods"),
        ("claims", "ladders = 1\n" + TINY, "unknown key 'ladders'"),
    ],
)
def test_bad_files_are_one_line_and_leave_nothing(tmp_path: Path, command: str, text: str, words: str) -> None:
    config = tmp_path / f"{command}.toml"
    config.write_text(text)
    done = called(main, command, config, "--out", tmp_path / command)
    assert done.returncode == 2
    assert words in done.stderr
    assert not (tmp_path / command).exists()


def test_bad_options_leave_nothing(tmp_path: Path) -> None:
    done = called(main, "budget", "--workers", 0, "--out", tmp_path / "run")
    assert done.returncode == 2
    assert "workers: 0 must be at least 1" in done.stderr
    assert not (tmp_path / "run").exists()


def test_shipped_recipes_are_valid() -> None:
    kinds = {"map": MapConfig, "prize": MapConfig, "claims": ClaimsConfig, "thoughts": ThoughtsConfig}
    files = sorted(RECIPES.glob("*.toml"))
    assert {file.stem for file in files} >= {"budget", "map", "claims"}
    for file in files:
        config = load_config(kinds.get(file.stem.split("-")[0], BudgetConfig), file)
        if isinstance(config, MapConfig):
            assert map_cells(config.setting, config.axes, config.grids).settings
        if isinstance(config, BudgetConfig):
            assert named_settings(config.setting, config.points)
