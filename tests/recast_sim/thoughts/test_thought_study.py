"""One run of the comparison: repeatable, from the start of its world, and told where it breaks off."""

import pytest

from recast_sim.thought_methods import parse_thought_method
from recast_sim.thoughts import thought_study
from recast_sim.thoughts.thought_study import METRICS, ThoughtProtocol, ThoughtSetting, describe_start, run_thoughts
from recast_sim.thoughts.thought_training import ThoughtTraining
from recast_sim.training.plan_update import UpdateError
from recast_sim.world.environment import EnvironmentConfig

WORLD = EnvironmentConfig(40, (4, 4, 4), dim=3, train_prompts=64, heldout_prompts=16, validation_prompts=1)
SETTING = ThoughtSetting(WORLD, base_steps=5, base_prompts=16, training=ThoughtTraining(4, 8, 3))
VERIFREE = parse_thought_method("verifree: soft constructor=rloo answer=psr")


def test_a_run_repeats_itself_and_leaves_the_start_as_it_was() -> None:
    first = run_thoughts(SETTING, VERIFREE, 0.01, 3)
    start = describe_start(SETTING, [VERIFREE], 2, 3)
    assert run_thoughts(SETTING, VERIFREE, 0.01, 3) == first
    assert describe_start(SETTING, [VERIFREE], 2, 3) == start
    assert first["pass_at_1_greedy"] != start["scores"]["pass_at_1_greedy"]
    assert {*METRICS, "learnable"} <= set(first)


def test_a_rate_of_almost_nothing_keeps_the_start() -> None:
    start = describe_start(SETTING, [], 1, 3)["scores"]
    run = run_thoughts(SETTING, VERIFREE, 1e-12, 3)
    assert {name: run[name] for name in start} == pytest.approx(start)


def test_a_run_that_breaks_off_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    real = thought_study.train_thoughts

    def train(policy, environment, method, *rest):
        if method.name == "verifree":
            raise UpdateError("step 2: loss nan")
        return real(policy, environment, method, *rest)

    monkeypatch.setattr(thought_study, "train_thoughts", train)
    assert run_thoughts(SETTING, VERIFREE, 0.01, 3) == {"failed": "step 2: loss nan"}


def test_the_starts_name_is_taken() -> None:
    with pytest.raises(ValueError, match="'base' is the start's name"):
        ThoughtProtocol(methods=("base: supervision",))
