"""Methods of a real run as lines of text."""

from dataclasses import asdict, fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recast_sim.comparing import Method
from recast_sim.configio import ConfigError
from recast_sim.signal import ObjectiveConfig, SignalConfig, SignalError
from recast_train.model import TrainError
from recast_train.pipeline.real_study import StudyConfig
from recast_train.pipeline.recipe import RealConfig, parse_methods
from recast_train.rl.rl_config import RlConfig, ThoughtGroups
from recast_train.rollout import RolloutConfig, ThoughtConfig


def parse_one(line: str) -> Method:
    (method,) = parse_methods((line,))
    return method


def test_a_method_changes_what_it_names_and_nothing_else() -> None:
    recipe = RlConfig(signal=SignalConfig(w_plus=2.0, w_minus=0.7), objective=ObjectiveConfig(clip_low=0.1), steps=7, warm_up=3)
    method = parse_one("recast  w_minus=0 tie_rule=random kl=0.1\tsteps=9")
    ours = method.applied(recipe, learning_rate=0.5)
    expected = asdict(recipe) | {"steps": 9, "learning_rate": 0.5}
    expected["signal"] |= {"w_minus": 0.0, "tie_rule": "random"}
    expected["objective"] |= {"kl": 0.1}
    assert asdict(ours) == expected
    assert isinstance(ours.signal.w_minus, float)
    assert (method.name, method.constructor.name) == ("recast w_minus=0 tie_rule=random kl=0.1 steps=9", "recast")
    assert parse_one("sft").applied(recipe) == recipe


def test_a_method_draws_its_groups_as_its_line_says() -> None:
    recipe = RlConfig(rollout=RolloutConfig(temperature=0.5))
    assert parse_one("grpo rollout.method=beam").applied(recipe).rollout == RolloutConfig("beam", temperature=0.5)


def test_every_key_of_a_method_reaches_one_field() -> None:
    for part, config in (("signal", SignalConfig()), ("objective", ObjectiveConfig()), ("", RlConfig())):
        for field in fields(config):
            value = getattr(config, field.name)
            if isinstance(value, float) and field.name not in ("hit_above", "window_low", "window_span"):
                found = parse_one(f"recast {field.name}=0.25").applied(RlConfig())
                assert getattr(getattr(found, part) if part else found, field.name) == 0.25


@pytest.mark.parametrize(
    ("line", "error", "words"),
    [
        ("magic", SignalError, "'magic' is not registered"),
        ("recast signal=3", ConfigError, "'signal=3' must be key=value"),
        ("recast method=beam", ConfigError, "'method=beam' must be key=value"),
        ("recast rollout.method=best", ConfigError, r"RlConfig\.rollout\.method: .*must be one of"),
        ("recast w_minus=-1", ConfigError, r"method 'recast w_minus=-1': .*SignalConfig\.w_minus: -1"),
        ("recast w_minus=NaN", ConfigError, "w_minus: nan must be finite"),
        ("recast w_minus=abc", ConfigError, r"RlConfig\.signal\.w_minus: .* must be a number"),
        ("recast w_minus=null", ConfigError, r"RlConfig\.signal\.w_minus: .* must be a number"),
        ("recast kl=-1", ConfigError, r"ObjectiveConfig\.kl: -1"),
        ("recast tie_rule=last", ConfigError, "tie_rule"),
        ("recast steps=2.5", ConfigError, r"RlConfig\.steps: 2\.5 must be a whole number"),
        ("recast group_size=1", ConfigError, r"RlConfig\.group_size: 1 must be at least 2"),
    ],
)
def test_bad_values_name_line_and_field(line: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        parse_one(line)


@given(st.floats(min_value=1e-20, max_value=1e7), st.sampled_from(["random", "first"]))
def test_a_folder_is_one_plain_name(w_minus: float, rule: str) -> None:
    method = parse_one(f"recast w_minus={w_minus} tie_rule={rule}")
    assert method.folder == f"recast-w_minus={w_minus}-tie_rule={rule}"
    assert set(method.folder) <= set("abcdefghijklmnopqrstuvwxyz_=.+-0123456789")


def test_folders_of_lines() -> None:
    lines = [
        "recast",
        "recast w_minus=0.3",
        "recast w_minus=0.1",
        "recast w_minus=1e-3 tie_rule=random",
        'recast tie_rule="random"',
    ]
    assert [parse_one(line).folder for line in lines] == [
        "recast",
        "recast-w_minus=0.3",
        "recast-w_minus=0.1",
        "recast-w_minus=1e-3-tie_rule=random",
        "recast-tie_rule=-random-",
    ]


def test_a_line_says_how_thoughts_are_trained() -> None:
    recipe = RlConfig(rollout=RolloutConfig(thought=ThoughtConfig(4)))
    rl = parse_one("verifree: rloo kind=soft answer=psr by_target=true").applied(recipe)
    assert rl.thoughts == ThoughtGroups("soft", "psr", True)
    method = rl.thought_method("rloo")
    assert method is not None
    assert (method.kind, method.constructor, method.answer, method.by_target) == ("soft", "rloo", "psr", True)
    assert recipe.thought_method("grpo") is None


@pytest.mark.parametrize(
    ("line", "error", "words"),
    [
        ("rloo kind=soft", TrainError, r"rl\.rollout\.thought\.max_tokens: 0 samples no thought; 'soft' needs 1 or more"),
        ("rloo kind=medium", ConfigError, r"RlConfig\.thoughts\.kind: .*must be one of"),
        ("rloo answer=psr", TrainError, r"rl\.thoughts\.kind: 'none' stands beside answer"),
    ],
)
def test_thoughts_that_do_not_fit_a_recipe_are_refused_before_it_runs(line: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        RealConfig(methods=(line,))
    with pytest.raises(error, match=words):
        StudyConfig(methods=(line,))
