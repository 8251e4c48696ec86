"""What simulator and trainer share of a comparison."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recast_sim.comparing import best_rates, comparison_seeds, parse_line, parse_method, rate_rows
from recast_sim.configio import Checked, ConfigError
from recast_sim.signal import ObjectiveConfig, SignalConfig, get_constructor

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


@dataclass(frozen=True)
class Plain(Checked):
    signal: SignalConfig = field(default_factory=SignalConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    steps: int = 1
    learning_rate: float = 0.1


@dataclass(frozen=True)
class Named(Plain):
    constructor: str = "grpo"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.constructor == "grpo" and self.steps > 9:
            raise ConfigError(f"Named.steps: {self.steps} must be at most 9 for grpo")


def test_a_method_holds_its_constructor_and_sets_its_name_where_a_config_has_one() -> None:
    for base in (Plain(steps=3), Named(steps=3)):
        method = parse_method("recast  w_minus=0.3 kl=0.1", base)
        assert method.constructor is get_constructor("recast")
        assert method.folder == "recast-w_minus=0.3-kl=0.1"
        found = method.applied(base, learning_rate=0.5)
        assert (found.steps, found.learning_rate) == (3, 0.5)
        assert (found.signal, found.objective) == (SignalConfig(w_minus=0.3), ObjectiveConfig(kl=0.1))
    assert found.constructor == "recast"
    assert parse_method("recast steps=20", Named()).applied(Named()).steps == 20  # checked with its own constructor
    with pytest.raises(ConfigError, match=r"Named\.steps: 20 must be at most 9 for grpo"):
        parse_method("grpo steps=20", Named())


def test_keys_that_a_comparison_keeps_to_itself() -> None:
    assert parse_method("recast rate_of=grpo", Plain(), may_follow=True).rate_of == "grpo"
    for line, base in (
        ("recast rate_of=grpo", Plain()),
        ("recast learning_rate=1", Plain()),
        ("recast constructor=sft", Named()),
    ):
        with pytest.raises(ConfigError, match="must be key=value"):
            parse_method(line, base, without=("learning_rate",))


def test_the_best_rate_has_the_best_mean_and_of_equals_is_the_first() -> None:
    trials = [("a", 0.1, 1.0), ("a", 0.2, 0.0), ("a", 0.1, 1.0), ("a", 0.2, 3.0), ("b", 0.1, 2.0), ("b", 0.2, 2.0)]
    assert best_rates(trials) == {"a": (0.2, 1.5), "b": (0.1, 2.0)}
    assert best_rates([("a", 0.1, float("-inf")), ("a", 0.2, -9.0)]) == {"a": (0.2, -9.0)}


def test_rows_of_rates_say_edge_and_draws() -> None:
    methods = [parse_method("recast", Plain()), parse_method("sft", Plain())]
    grids = {("base", "recast"): (0.1, 0.2, 0.3), ("base", "sft"): (0.1, 0.2)}
    rows = rate_rows({("base", "recast", "pass"): 0.2, ("base", "sft", "pass"): 0.1}, methods, grids)
    same = {"setting": "base", "metric": "pass"}
    assert rows == [
        {**same, "method": "recast", "learning_rate": 0.2, "at_edge": False, "draws": True},
        {**same, "method": "sft", "learning_rate": 0.1, "at_edge": True, "draws": False},
    ]
    assert "metric" not in rate_rows({("base", "sft"): 0.1}, methods, grids)[0]


def test_tuning_seeds_are_not_reported() -> None:
    reported, tuning = comparison_seeds(7, 5, 3)
    assert (list(reported), list(tuning)) == ([7, 8, 9, 10, 11], [10_007, 10_008, 10_009])
