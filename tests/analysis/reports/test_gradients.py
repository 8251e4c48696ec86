"""The command `recast-sim gradients`, its tables and its figure, on a small world."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from rich.console import Console

from recast_analysis.reports.gradients import report
from recast_analysis.terminal import print_report
from recast_sim.cli.gradients import COMPARED, Gradients, GradientsConfig, compare_gradients
from recast_sim.configio import load_config
from recast_sim.runs import RunError, read_run, write_json
from recast_sim.signal import SignalConfig, SignalError
from recast_sim.training.training_config import TrainingConfig, TrainingError
from recast_sim.world.environment import EnvironmentConfig
from recast_sim.world.policy import PolicyConfig

WORLD = EnvironmentConfig(items=40, sizes=(4, 4, 4), dim=6, train_prompts=256, heldout_prompts=64)
SMALL = GradientsConfig(
    environment=WORLD,
    policy=PolicyConfig("mlp", 8),
    convergence=0.8,
    training=TrainingConfig(group_size=8, signal=SignalConfig(anchor_weighting="annealed")),
    constructors=("grpo", "recast", "sft"),
    group_sizes=(2, 4),
    prompts=24,
    groups_per_prompt=8,
)


def printed(root: Path) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    print_report(report(root), console)
    return console.export_text()


@pytest.mark.slow
def test_the_command_saves_prints_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "run"
    compare_gradients(Gradients(out=root, json=True, config=SMALL, no_calibrate=True))
    result = json.loads(capsys.readouterr().out)
    methods = {(row["constructor"], row["group_size"]): row["method"] for row in result["reports"]}
    assert set(methods) == {(name, size) for name in SMALL.constructors for size in (2, 4, 8)}
    assert {methods["grpo", size] for size in (2, 4, 8)} == {"exact"}
    assert methods["recast", 8] == "monte_carlo"  # an annealed anchor depends on the batch
    assert report(root).summary["reports"] == result["reports"]
    run = read_run(root)
    assert (run.manifest["kind"], run.status) == ("gradients", "complete")
    assert run.manifest["config"]["environment"]["items"] == 40
    frame = pl.read_parquet(root / "gradients.parquet")
    assert len(frame) == 9
    assert {"constructor", "cosine", "by_regime.all_zero.projection", "by_level.encoder.cosine"} <= set(frame.columns)
    assert (root / "figure.png").stat().st_size > 30_000
    text = printed(root)
    assert "+-" in text
    assert "encoder" in text
    assert "no rollouts" in text
    with pytest.raises(RunError, match="holds a run already"):
        compare_gradients(Gradients(out=root, json=True, config=SMALL, no_calibrate=True))


def row(name: str, **changes: Any) -> dict[str, Any]:
    part = {"groups": 0.25, "projection": -0.5, "cosine": None, "square": 0.25}
    level = {"square": 0.5, "exact": 0.5, "projection": 0.5, "cosine": 0.1}
    return {
        "constructor": name,
        "group_size": 8,
        "learnable": 0.5,
        "update_width": 2.0,
        **dict.fromkeys(
            ("cosine", "cosine_se", "residual", "scale", "variance", "variance_se", "within", "snr", "snr_per_rollout")
        ),
        "rollouts_per_group": 8,
        "parts": None,
        "by_regime": {
            "all_zero": part,
            "single_hit": part | {"projection": 1.5},
            "multi_hit": part | {"projection": None},
            "all_hit": part | {"projection": 0.0, "groups": 0.0, "square": 0.0},
        },
        "by_level": {"level 1": level, "level 2": level},
        **changes,
    }


def test_unknown_figures_are_said_to_be_unknown(tmp_path: Path) -> None:
    reports = [row("grpo"), row("recast", cosine=0.5, cosine_se=0.1, variance=7.0, variance_se=0.3, within=-1e-15)]
    write_json(tmp_path / "gradients.json", {"group_size": 8, "sampler": "beam", "prompts": 3, "reports": reports})
    text = printed(tmp_path)
    assert "unknown" in text
    assert "0.5000 +- 0.1" in text
    assert "-0.0" not in text
    assert "150.0 % / unknown / 25.0 %" in text
    (figure,) = report(tmp_path).save_figures(tmp_path)
    assert Path(figure).stat().st_size > 10_000


def test_a_folder_without_gradients_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"gradients\.json is missing"):
        report(tmp_path)


def test_a_training_file_is_a_gradients_file(tmp_path: Path) -> None:
    file = tmp_path / "train.toml"
    file.write_text('convergence = 0.8\n[environment]\nitems = 40\n[training]\nconstructor = "recast"\ngroup_size = 8\n')
    config = load_config(GradientsConfig, file)
    assert (config.convergence, config.environment.items, config.training.group_size) == (0.8, 40, 8)
    assert config.constructors == COMPARED


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"constructors": ()}, TrainingError, r"GradientsConfig\.constructors: \(\) must hold at least 1"),
        ({"constructors": ("magic",)}, SignalError, "'magic' is not registered"),
        ({"constructors": ("grpo", "recast", "magic")}, SignalError, "'magic' is not registered"),
        ({"group_sizes": (1,)}, TrainingError, "group_sizes: 1"),
        ({"prompts": 0}, TrainingError, "prompts: 0"),
        ({"groups_per_prompt": 12}, TrainingError, "groups_per_prompt: 12"),
    ],
)
def test_bad_configs_name_the_key(changes: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        replace(SMALL, **changes)
