"""Methods as lines of text, and settings as changes at dotted keys."""

import pytest

from recast_sim.configio import ConfigError
from recast_sim.experiments.map_cells import Axis, map_cells, named_settings
from recast_sim.experiments.protocol import Protocol
from recast_sim.experiments.world_setting import Setting
from recast_sim.signal import SignalError
from recast_sim.training.training_config import TrainingConfig, TrainingError


def test_a_method_may_have_a_name_of_its_own() -> None:
    named, plain = Protocol(methods=("light: recast w_minus=0.3", "recast w_minus=0.3")).parsed()
    assert (named.name, plain.name) == ("light", "recast w_minus=0.3")
    assert named.changes == plain.changes
    with pytest.raises(TrainingError, match="names of methods and choices must differ"):
        Protocol(methods=("light: recast", "light: grpo"))


def test_a_line_sets_signal_objective_and_training() -> None:
    line = "recast  w_minus=0.3 tie_rule=random kl=0.1 sampler=beam norm_like=grpo rate_of=grpo"
    (method,) = Protocol(methods=("grpo", line)).parsed()[1:]
    config = method.applied(TrainingConfig(steps=7), learning_rate=0.5)
    assert method.name == line.replace("  ", " ")
    assert method.rate_of == "grpo"
    assert (config.constructor, config.learning_rate, config.steps) == ("recast", 0.5, 7)
    assert (config.signal.w_minus, config.signal.tie_rule, config.objective.kl) == (0.3, "random", 0.1)
    assert (config.sampler, config.norm_like) == ("beam", "grpo")


@pytest.mark.parametrize(
    ("line", "error", "words"),
    [
        ("", ConfigError, "method: empty"),
        ("magic", SignalError, "'magic' is not registered"),
        ("recast w=1", ConfigError, "'w=1' must be key=value"),
        ("recast fast", ConfigError, "'fast' must be key=value"),
        ("recast w_minus=-1", ConfigError, "w_minus: -1"),
        ("recast w_minus=abc", ConfigError, "w_minus"),
        ("recast norm_like=magic", ConfigError, "'magic' is not registered"),
        ("recast learning_rate=1", ConfigError, "learning_rate=1"),
    ],
)
def test_bad_lines_fail_before_anything_runs(line: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Protocol(methods=(line,))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"methods": ()}, r"methods: \(\) must hold at least 1"),
        ({"learning_rates": ()}, r"learning_rates: \(\) must hold at least 1"),
        ({"seeds": 0}, "seeds: 0"),
        ({"metrics": ("luck",)}, "'luck' must be one of"),
        ({"methods": ("recast rate_of=grpo",)}, "takes the rate of 'grpo', which is not compared"),
    ],
)
def test_bad_protocols_name_the_field(fields: dict, words: str) -> None:
    with pytest.raises(TrainingError, match=words):
        Protocol(**fields)


def test_settings_by_dotted_keys() -> None:
    base = Setting()
    named = named_settings(base, [{"label": "soft", "training.signal.w_minus": 0.3}, {"convergence": 0.5}])
    assert list(named) == ["soft", "0.5"]
    assert named["soft"].training.signal.w_minus == 0.3
    assert named["0.5"].convergence == 0.5
    assert named_settings(base, []) == {"base": base}
    with pytest.raises(ConfigError, match=r"key 'training.signal.w': Setting has none"):
        named_settings(base, [{"training.signal.w": 1}])
    with pytest.raises(ConfigError, match=r"environment\.rho"):
        named_settings(base, [{"environment.rho": "much"}])
    with pytest.raises(TrainingError, match="labels must differ"):
        named_settings(base, [{"convergence": 1.0}, {"environment.rho": 1.0}])
    with pytest.raises(ConfigError, match="exclude each other"):
        named_settings(base, [{"hit_rate": 0.1}])


def test_a_map_runs_equal_settings_once() -> None:
    axes = [
        Axis("c", ({"convergence": 0.5}, {"convergence": 1.0})),
        Axis("w", ({"training.signal.w_minus": 0.3}, {"training.signal.w_minus": 1.0})),
    ]
    found = map_cells(Setting(), axes, [("c", "w")])
    assert len(found.cells) == 2 + 2 + 4
    assert len(found.settings) == 4  # the base is a point of both slices and of the grid
    crossed = next(c for c in found.cells if (c.x_label, c.y_label) == ("0.5", "0.3"))
    assert found.settings[crossed.setting].convergence == 0.5
    assert found.settings[crossed.setting].training.signal.w_minus == 0.3
    with pytest.raises(TrainingError, match="'z' is no axis"):
        map_cells(Setting(), axes, [("c", "z")])
    with pytest.raises(TrainingError, match=r"Axis.points: \(\) must hold at least 1"):
        Axis("empty", ())
