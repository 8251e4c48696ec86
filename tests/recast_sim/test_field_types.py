"""Numbers of every config: plain, finite, of a size that can be meant, whatever command, file or Python they come from."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import called

from recast_sim.cli import COMMANDS
from recast_sim.cli.budget import BudgetConfig
from recast_sim.cli.gradients import GradientsConfig
from recast_sim.cli.train import RunConfig
from recast_sim.commandline import run_command
from recast_sim.configio import ConfigError, load_config, override
from recast_sim.experiments.world_setting import Setting
from recast_sim.signal import ObjectiveConfig, SignalConfig, SignalError
from recast_sim.training.training_config import TrainingConfig
from recast_train.pipeline.recipe import RealConfig

BAD = (float("inf"), float("-inf"), float("nan"), 1e300, -1e300, 1e-300, "40", True, None, [1], 2**70)
CONFIGS = (RunConfig, BudgetConfig, GradientsConfig, RealConfig)


def parts(config: Any) -> list[Any]:
    """A config and those in it."""
    values = [getattr(config, field.name) for field in dataclasses.fields(config)]
    return [config, *(inner for value in values if dataclasses.is_dataclass(value) for inner in parts(value))]


@pytest.mark.parametrize("cls", CONFIGS)
def test_no_number_of_any_config_takes_nonsense(cls: type[Any]) -> None:
    tried = 0
    for part in parts(cls()):
        for field in dataclasses.fields(part):
            value = getattr(part, field.name)
            if isinstance(value, int | float) and not isinstance(value, bool):
                for bad in BAD:
                    tried += 1
                    with pytest.raises(ValueError, match="must"):
                        dataclasses.replace(part, **{field.name: bad})
    assert tried > 400


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Setting(convergence=-0.5), "Setting.convergence: -0.5 must be at least 0"),
        (lambda: Setting(convergence=1e300), r"Setting.convergence: 1e\+300 must be at most 100"),
        (lambda: Setting(regime=(1.0,)), r"Setting.regime: \(1.0,\) must be three shares"),
        (lambda: Setting(regime=(0.85, 0.13, 0.02, 0, 0, 0)), "must be three shares"),
        (lambda: Setting(regime=(0.9, 0.9, 0.9)), "must be three shares"),
        (lambda: GradientsConfig(regime=(0.5, 0.5)), "GradientsConfig.regime.2: .* must hold at least one more"),  # type: ignore[arg-type]
        (lambda: GradientsConfig(constructors=("grpo", "grpo")), "GradientsConfig.constructors: .* must not repeat 'grpo'"),
        (lambda: GradientsConfig(group_sizes=(8, 8)), "GradientsConfig.group_sizes: .* must not repeat 8"),
        (lambda: BudgetConfig(control_rates=(0.1, 0.1)), "BudgetConfig.control_rates: .* must not repeat 0.1"),
        (lambda: override(BudgetConfig(), {"protocol.metrics": ["recall_at_k"] * 2}), "must not repeat 'recall_at_k'"),
        (lambda: override(BudgetConfig(), {"protocol.methods": ["grpo", "grpo"]}), "must not repeat 'grpo'"),
        (lambda: override(BudgetConfig(), {"protocol.seeds": 20_000}), "must be at most 10000"),
        (lambda: TrainingConfig(passes=1e9), r"TrainingConfig.passes: 1000000000.0 must be at most 1000"),
        (lambda: TrainingConfig(group_size=10**9), "TrainingConfig.group_size: 1000000000 must be at most 4096"),
        (lambda: override(RunConfig(), {"environment.items": 1}), "RunConfig.environment.items: 1 must be at least 2"),
        (lambda: override(RunConfig(), {"environment.sizes": [0]}), "environment.sizes.0: 0 must be at least 1"),
        (lambda: override(RunConfig(), {"environment.items": 5000}), "items: 5000 must be at most 4096, the leaves of sizes"),
        (lambda: SignalConfig(w_minus=1e300), r"SignalConfig.w_minus: 1e\+300 must be 0 or of a size from 1e-20 to 1e\+07"),
        (lambda: SignalConfig(pass_k=True), "SignalConfig.pass_k: True must be a whole number"),
        (lambda: ObjectiveConfig(kl=float("inf")), "ObjectiveConfig.kl: inf must be finite"),
        (lambda: ObjectiveConfig(clip_low="0.2"), "ObjectiveConfig.clip_low: '0.2' must be a number"),  # type: ignore[arg-type]
    ],
)
def test_what_a_field_refuses_and_how(make: Callable[[], object], said: str) -> None:
    with pytest.raises((ConfigError, SignalError, ValueError), match=said):
        make()


@pytest.mark.parametrize("value", ['"40"', "true", "nan", "-1", "1e9", "40.0"])
def test_a_file_gives_numbers_as_numbers(tmp_path: Path, value: str) -> None:
    (tmp_path / "a.toml").write_text(f"[training]\nsteps = {value}\n")
    with pytest.raises(ConfigError, match=r"a.toml: key 'training.steps': .* must be"):
        load_config(RunConfig, tmp_path / "a.toml")
    (tmp_path / "a.toml").write_text("[training]\nsteps = 40\n")
    assert load_config(RunConfig, tmp_path / "a.toml").training.steps == 40


@pytest.mark.parametrize("words", [("--seed", "-1"), ("--seed", "x"), ("--training.steps", "nan"), ("--convergence", "-.5")])
def test_the_command_line_too(words: tuple[str, str]) -> None:
    def main() -> None:
        raise SystemExit(run_command("recast-sim", "", COMMANDS, ["train", f"{words[0]}={words[1]}"]))

    done = called(main)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"recast-sim: error: {words[0]}: ")
    assert "must be" in line
