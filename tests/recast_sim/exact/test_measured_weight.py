"""The measured weight is the closed one, for every constructor that has one."""

import numpy as np
import pytest

from recast_sim.closed_forms.gradient_weights import WEIGHTS, weight
from recast_sim.exact.measured_weight import measured_weight
from recast_sim.signal import SignalConfig, get_constructor

HIT_RATES, G = np.array([0.01, 0.1, 0.3]), 8
ROWS = {"two_grpo": 2, "pods": 4, "visurf": G + 1}  # of a group, where its loss is a mean over other than G
SAMPLED = {"two_grpo": 0.25, "add_gt": 0.01, "luffy": 0.02}  # which rollout a slot holds is drawn


@pytest.mark.parametrize("name", [name for name in WEIGHTS if name != "dapo_kept"])
def test_the_measured_weight_is_the_closed_form(name: str) -> None:
    numbers = {"pods_width": 4} if name == "pods" else {}
    found = measured_weight(get_constructor(name), HIT_RATES, G, SignalConfig(**numbers))
    rows = 1 if WEIGHTS[name].per == "group" else ROWS.get(name, G)
    assert found == pytest.approx(rows * weight(name, HIT_RATES, G, **numbers), rel=SAMPLED.get(name, 1e-5))


def test_one_hit_rate_gives_one_number() -> None:
    assert measured_weight(get_constructor("rloo"), 0.2, 4).shape == ()
