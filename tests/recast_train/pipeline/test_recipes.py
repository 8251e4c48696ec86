"""Every shipped recipe loads, and the ones of other projects hold the values that are known of them."""

from pathlib import Path

import pytest

import recast_train
from recast_sim.configio import load_config
from recast_train.pipeline.real_study import StudyConfig
from recast_train.pipeline.recipe import RealConfig, Recipe
from recast_train.pipeline.start_search import SearchConfig

RECIPES = Path(recast_train.__file__).parent / "recipes"
FILES = {file.stem: file for file in sorted(RECIPES.glob("*.toml"))}


@pytest.mark.parametrize("name", FILES)
def test_shipped_recipes_are_valid(name: str) -> None:
    if name.startswith("study"):
        settings = load_config(StudyConfig, FILES[name]).settings()
    elif name.endswith("search"):
        settings = load_config(SearchConfig, FILES[name]).recipes()
    else:
        settings = {name: load_config(RealConfig, FILES[name])}
    assert settings
    assert all(isinstance(setting, Recipe) for setting in settings.values())


def test_values_known_of_openonerec() -> None:
    config = load_config(RealConfig, FILES["openonerec"])
    rl = config.rl
    assert (rl.group_size, rl.learning_rate, rl.warm_up) == (32, 2e-6, 10)
    assert (rl.objective.clip_low, rl.objective.clip_high, rl.objective.kl) == (0.2, 0.28, 1e-3)
    assert (rl.signal.std_ddof, rl.signal.std_eps, rl.rollout.method, rl.rollout.temperature) == (1, 1e-6, "beam", 1.0)
    assert rl.rollout.thought.max_tokens > 0
    assert (config.data.format, config.model.vocabulary, config.model.prompt) == ("openonerec", "text", "{chat}")


def test_values_known_of_minionerec() -> None:
    config = load_config(RealConfig, FILES["minionerec"])
    assert (config.rl.signal.std_eps, config.rl.rollout.method) == (1e-4, "beam")
    assert {"add_gt", "rank_reward"} <= set(config.methods)
