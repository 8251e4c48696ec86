"""A choice leaves its fallback only for what is told from it."""

import numpy as np
import pytest

from recast_sim.experiments.choosing import LEVEL, Choice, choose
from recast_sim.experiments.protocol import Protocol
from recast_sim.training.training_config import TrainingError

CHOICE = Choice("chosen", "sft", ("recast", "composite hit_share=1", "mixture_anchor"))
LINES = (CHOICE.fallback, *CHOICE.candidates)


def test_a_clear_gain_is_chosen_and_a_broken_run_is_out() -> None:
    base = [0.1, 0.2, 0.3, 0.4]
    better, best = ([b + gain + 0.001 * s for s, b in enumerate(base)] for gain in (0.05, 0.1))
    scores = dict(zip(LINES, (base, better, best, [*best[:3], -np.inf]), strict=True))
    rows = choose(CHOICE, scores)
    assert [row["line"] for row in rows if row["chosen"]] == ["composite hit_share=1"]
    assert rows[3]["difference"] is None
    assert choose(CHOICE, scores | {"composite hit_share=1": base, "recast": base})[0]["chosen"]


def test_on_noise_the_fallback_is_left_no_more_often_than_the_level_says() -> None:
    rng = np.random.default_rng(0)
    left = sum(not choose(CHOICE, {line: rng.normal(size=6).tolist() for line in LINES})[0]["chosen"] for _ in range(2000))
    assert left / 2000 < LEVEL + 0.01


def test_bad_choices_say_what_is_wrong() -> None:
    with pytest.raises(TrainingError, match="tuning_seeds: 1 world"):
        choose(CHOICE, {line: [0.1] for line in LINES})
    with pytest.raises(TrainingError, match="names of methods and choices must differ"):
        Protocol(("sft",), choices=(Choice("sft", "sft", ("recast",)),))
    with pytest.raises(ValueError, match="w_minos"):
        Protocol(("sft",), choices=(Choice("chosen", "sft", ("recast w_minos=1",)),))
