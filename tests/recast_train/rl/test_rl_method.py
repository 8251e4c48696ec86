"""Methods of a real run as lines of text."""

from dataclasses import asdict, fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recast_sim.comparing import parse_line
from recast_sim.configio import ConfigError
from recast_sim.signal import ObjectiveConfig, SignalConfig, SignalError
from recast_train.rl.rl_loop import RlConfig
from recast_train.rl.rl_method import parse_method

KEYS = ("rate", "kind", "on")


@given(
    word=st.from_regex(r"[a-z_]+", fullmatch=True),
    changes=st.dictionaries(
        st.sampled_from(KEYS),
        st.floats(allow_nan=False) | st.integers() | st.booleans() | st.from_regex(r"[a-z]{6,9}", fullmatch=True),
    ),
    gap=st.sampled_from([" ", "  ", "\t", " \n "]),
)
def test_a_line_gives_back_what_was_written(word: str, changes: dict, gap: str) -> None:
    values = {key: str(value).lower() if isinstance(value, bool) else str(value) for key, value in changes.items()}
    values = {key: value.replace("inf", "Infinity") if value in ("inf", "-inf") else value for key, value in values.items()}
    line = gap.join([word, *(f"{key}={value}" for key, value in values.items())])
    assert parse_line(gap + line + gap, KEYS) == (word, changes)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "empty; write a constructor's name"),
        (" \t ", "empty"),
        ("recast fast", "'fast' must be key=value"),
        ("recast rate =3", "'rate' must be key=value"),
        ("recast speed=3", "'speed=3' must be key=value with a key of"),
        ("recast rate=1 kind=a rate=1", "'rate' is given twice"),
    ],
)
def test_lines_that_are_none(line: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_line(line, KEYS)


def test_a_method_changes_what_it_names_and_nothing_else() -> None:
    recipe = RlConfig(signal=SignalConfig(w_plus=2.0, w_minus=0.7), objective=ObjectiveConfig(clip_low=0.1), steps=7, warm_up=3)
    method = parse_method("recast  w_minus=0 tie_rule=random kl=0.1\tsteps=9")
    ours = method.rl(recipe, learning_rate=0.5)
    expected = asdict(recipe) | {"steps": 9, "learning_rate": 0.5}
    expected["signal"] |= {"w_minus": 0.0, "tie_rule": "random"}
    expected["objective"] |= {"kl": 0.1}
    assert asdict(ours) == expected
    assert isinstance(ours.signal.w_minus, float)
    assert (method.name, method.constructor.name) == ("recast w_minus=0 tie_rule=random kl=0.1 steps=9", "recast")
    assert parse_method("sft").rl(recipe) == recipe


def test_every_key_of_a_method_reaches_one_field() -> None:
    for part, config in (("signal", SignalConfig()), ("objective", ObjectiveConfig()), ("", RlConfig())):
        for field in fields(config):
            value = getattr(config, field.name)
            if isinstance(value, float) and field.name not in ("hit_above", "window_low", "window_span"):
                found = parse_method(f"recast {field.name}=0.25").rl(RlConfig())
                assert getattr(getattr(found, part) if part else found, field.name) == 0.25


@pytest.mark.parametrize(
    ("line", "error", "words"),
    [
        ("magic", SignalError, "'magic' is not registered"),
        ("recast signal=3", ConfigError, "'signal=3' must be key=value"),
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
        parse_method(line)


@given(st.floats(min_value=0, max_value=1e9), st.sampled_from(["random", "first"]))
def test_a_folder_is_one_plain_name(w_minus: float, rule: str) -> None:
    method = parse_method(f"recast w_minus={w_minus} tie_rule={rule}")
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
    assert [parse_method(line).folder for line in lines] == [
        "recast",
        "recast-w_minus=0.3",
        "recast-w_minus=0.1",
        "recast-w_minus=1e-3-tie_rule=random",
        "recast-tie_rule=-random-",
    ]
