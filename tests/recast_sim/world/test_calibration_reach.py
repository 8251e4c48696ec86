"""Regimes that calibration reaches only with a smaller catalog, and those that nothing reaches."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recast_sim.closed_forms.iid_groups import regime_given_hit_rates
from recast_sim.world import calibration
from recast_sim.world.calibration import Calibration, CalibrationError, calibrate, most_single_hits
from recast_sim.world.environment import EnvironmentConfig
from recast_sim.world.policy import PolicyConfig

SMALL = EnvironmentConfig(items=240, sizes=(8, 8, 8))


@pytest.mark.property
@given(st.lists(st.floats(1e-4, 0.5), min_size=1, max_size=20), st.integers(2, 64))
def test_no_mixture_of_hit_rates_has_more_single_hits(rates: list[float], group_size: int) -> None:
    zero, single, *_ = regime_given_hit_rates(np.array(rates), group_size)
    assert single <= most_single_hits(float(zero), group_size) + 1e-9
    alike = regime_given_hit_rates(np.array(rates[:1]), group_size)
    assert alike[1] == pytest.approx(most_single_hits(float(alike[0]), group_size), abs=1e-9)


def test_what_no_rollouts_can_show_is_said_before_the_search() -> None:
    with pytest.raises(CalibrationError, match=r"beside 0.6 all-zero groups of 32 rollouts at most 0.309 of all groups"):
        calibrate((0.6, 0.35, 0.05), 32, SMALL, PolicyConfig(), 1.0, 0)


@pytest.mark.parametrize(("single", "items"), [(0.25, 80), (0.2, 240)])
def test_a_smaller_catalog_is_tried_where_hit_rates_differ_too_much(
    single: float, items: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here the share of single hits depends on the number of items alone: .20 of 240, .225 of 120, .25 of 80."""

    def solved(all_zero: float, group_size: int, config: EnvironmentConfig, *rest: object) -> Calibration:
        share = {240: 0.2, 120: 0.225, 80: 0.25}[config.items]
        return Calibration(config, (all_zero, share, 1 - all_zero - share), 0.01, None)

    monkeypatch.setattr(calibration, "_solve_beta", solved)
    wanted = ((0.6, single, 0.4 - single), 32, SMALL, PolicyConfig(), 1.0, 0)
    assert calibrate(*wanted, cut_items=True).config.items == items
    if items < SMALL.items:  # a comparison's setting keeps the items that it says
        with pytest.raises(CalibrationError, match=r"nearest 0.600 / 0.200 / 0.200; change items"):
            calibrate(*wanted)


def test_the_nearest_regime_can_be_asked_for_as_it_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounded one by one these three add up to 1.001."""

    def solved(all_zero: float, group_size: int, config: EnvironmentConfig, *rest: object) -> Calibration:
        return Calibration(config, (0.5077, 0.1707, 0.3216), 0.01, None)

    monkeypatch.setattr(calibration, "_solve_beta", solved)
    with pytest.raises(CalibrationError, match=r"nearest 0.508 / 0.171 / 0.321; change items"):
        calibrate((0.506, 0.142, 0.352), 32, SMALL, PolicyConfig(), 1.0, 0)
