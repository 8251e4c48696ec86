"""The formulas of golden-v2 against enumeration and numbers by hand; what they are not asked; faults planted in ours."""

import math
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta
from signal_cases import facts

from recast_analysis.conform.added_formulas import ADDED_FORMULAS, PASS_K, PODS_ROWS, TEMPERATURE
from recast_analysis.conform.advantage_formulas import FORMULAS
from recast_analysis.conform.conform_error import ConformError
from recast_analysis.conform.formula import advantages
from recast_analysis.conform.judge import judge
from recast_analysis.conform.judged_target import Target
from recast_sim.signal import SignalConfig, list_constructors
from recast_sim.signal.constructors import papers, recent
from recast_sim.signal.steps import advantage, over_batch, support
from recast_train.adapters import conform_ours

FEW = 4  # random batches
PAGE = Path(__file__).parents[3] / "docs" / "conform.md"
rewards = st.lists(st.sampled_from([-1.0, 0.0, 0.0, 0.25, 0.5, 1.0, 1.0, 3.0]), min_size=4, max_size=8)


def numbers(method: str, *groups: list[float], **choices: str) -> list[float]:
    formula = FORMULAS[method]
    setting = formula.reference() | {name.replace("_", " "): option for name, option in choices.items()}
    ids = [place for place, group in enumerate(groups) for _ in group]
    return advantages(formula, [reward for group in groups for reward in group], ids, setting)


# against enumeration, and by hand


@facts
@given(rewards)
def test_pass_at_k_is_the_mean_over_all_subsets(group: list[float]) -> None:
    subsets = list(combinations(range(len(group)), PASS_K))
    best = np.array([max(group[row] for row in subset) for subset in subsets])
    with_row = [best[[row in subset for subset in subsets]].mean() for row in range(len(group))]
    found = numbers("pass_at_k", group, graded_rewards="the best of a subset")
    assert found == pytest.approx((np.array(with_row) - best.mean()) / (best.std() + 1e-6), abs=1e-7)


def test_pass_at_k_by_hand() -> None:
    """Two hits of five, k = 3: R = 1 - 1/10, s = 0.3; a hit (1 - R) / s, a miss (1 - R - 1/6) / s."""
    hit, miss = 0.1 / 0.3, (0.1 - 1 / 6) / 0.3
    assert numbers("pass_at_k", [1, 0, 0, 1, 0]) == pytest.approx([hit, miss, miss, hit, miss], abs=1e-5)
    assert numbers("pass_at_k", [1, 1, 1, 0, 0]) == pytest.approx([0.0] * 5, abs=1e-8)  # two misses never fill a subset


@facts
@given(rewards, st.sampled_from(["fewest high rows", "most high rows"]))
def test_pods_keeps_rows_that_vary_most(group: list[float], ties: str) -> None:
    best = max(np.var(subset) for subset in combinations(group, PODS_ROWS))
    found = numbers("pods", group, equal_variances=ties)
    kept = [reward for reward, number in zip(group, found, strict=True) if abs(number) > 1e-12]
    if best == 0:
        assert not kept
        return
    if len(kept) == PODS_ROWS - 1:  # a kept row may be the mean of the others
        kept.append(float(np.mean(kept)))
    assert len(kept) == PODS_ROWS
    assert np.var(kept) == pytest.approx(best)
    assert sum(found) == pytest.approx(0.0, abs=1e-9)


def test_pods_by_hand() -> None:
    """Of 0, 1, 2, 10 the rows 0, 1 and 10 vary most: mean 11/3, variance 91/3 at ddof 1."""
    std = math.sqrt(91 / 3) + 1e-6
    assert numbers("pods", [2, 10, 0, 1]) == pytest.approx([0.0, 19 / 3 / std, -11 / 3 / std, -8 / 3 / std])
    one, two = numbers("pods", [1, 1, 0, 0]), numbers("pods", [1, 1, 0, 0], equal_variances="most high rows")
    assert sorted(one) == pytest.approx(sorted(-number for number in two))
    assert min(one) == pytest.approx(-1 / math.sqrt(3), abs=1e-5)  # one hit, two misses


def test_bnpo_by_hand() -> None:
    """Hit rates 1/4 and 3/4: a = b = 1/2 by moments, so that the density is Beta(7/6, 7/6)'s."""
    height = beta(7 / 6, 7 / 6).pdf(0.25)
    found = numbers("bnpo", [1, 0, 0, 0], [1, 1, 1, 0])
    assert found == pytest.approx([number / height for number in [0.75, -0.25, -0.25, -0.25, 0.25, 0.25, 0.25, -0.75]])
    assert numbers("bnpo", [1, 0], [0, 1]) == [0.5, -0.5, -0.5, 0.5]  # equal hit rates: nothing to fit
    assert numbers("bnpo", [1, 0, 0, 0])[0] == 0.75
    assert numbers("bnpo", [0, 0], [1, 1], [1, 0]) == [0.0, 0.0, 0.0, 0.0, 0.5, -0.5]  # so far apart that both are 1


def test_shares_and_exponentials_by_hand() -> None:
    assert numbers("reward_share", [0.1, 0.3], [0, 0]) == pytest.approx([0.5, 1.5, 0, 0], rel=1e-5)
    assert numbers("reward_share", [0.1, 0.3], shares_sum_to="1") == pytest.approx([0.25, 0.75], rel=1e-5)
    assert numbers("exp_reward_sft", [0, 1]) == pytest.approx([1, math.exp(2)])
    assert numbers("exp_reward_sft", [0, 1], scale="exp((r - 1) / T)") == pytest.approx([math.exp(-2), 1])


def test_two_grpo_is_plus_and_minus_one_over_the_root_of_two() -> None:
    found = numbers("two_grpo", [1, 0], [0, 0], [-2, 3])
    assert found == pytest.approx(np.array([1, -1, 0, 0, -1, 1]) / math.sqrt(2), abs=2e-6)


# what is asked


def by_formula(method: str, **choices: str) -> Target:
    setting = FORMULAS[method].reference() | choices

    def function(given: np.ndarray, ids: list[object]) -> np.ndarray:
        table = [None if math.isnan(one) else float(one) for one in given]
        return np.array(advantages(FORMULAS[method], table, ids, setting), dtype=np.float32)

    return Target("planted", function, method=method)


@pytest.mark.parametrize("method", [name for name, formula in ADDED_FORMULAS.items() if formula.only])
def test_a_formula_is_asked_its_own_batches_alone(method: str) -> None:
    only, asked = ADDED_FORMULAS[method].only, []
    assert only is not None

    def strict(given: np.ndarray, ids: list[object]) -> np.ndarray:
        asked.append(only[1]([None if math.isnan(one) else float(one) for one in given], ids))
        return by_formula(method).function(given, ids)

    verdict = judge(Target("strict", strict, method=method), batches=FEW)
    assert (verdict.faults, verdict.explained) == ([], verdict.asked)
    assert all(asked)
    assert len(asked) > verdict.asked + FEW  # random ones and properties too
    assert ("other batches", f"{method} is for {only[0]}") in [(f.what, f.says) for f in verdict.findings]


def test_a_method_of_few_batches_is_found_where_none_of_all_fits() -> None:
    for name in ("bnpo", "grpo"):  # grpo is not taken for two_grpo
        assert judge(Target("mine", by_formula(name).function), batches=FEW).method == name


@pytest.mark.parametrize(
    ("method", "name"),
    [
        (method, name)
        for method, formula in ADDED_FORMULAS.items()
        for name in formula.choices
        if method != "two_grpo" and name != "equal rewards"  # grpo's
    ],
)
def test_a_choice_of_theirs_is_named(method: str, name: str) -> None:
    option = FORMULAS[method].choices[name][1]
    verdict = judge(by_formula(method, **{name: option}), batches=FEW)
    assert not verdict.faults
    assert verdict.setting == FORMULAS[method].reference() | {name: option}


def test_which_of_equal_rewards_is_kept_is_left_open() -> None:
    """The last of them in place of the first, as another sort has it; but a row less is a fault."""

    def last(given: np.ndarray, ids: list[object]) -> np.ndarray:
        return by_formula("pods").function(given[::-1], ids[::-1])[::-1].copy()

    def one_less(given: np.ndarray, ids: list[object]) -> np.ndarray:
        found = last(given, ids)
        found[np.flatnonzero(found)[:1]] = 0.0
        return found

    assert not judge(Target("last", last, method="pods"), batches=FEW).faults
    assert judge(Target("one less", one_less, method="pods"), batches=FEW).faults


# ours: a fault planted in a copy of each is found


def drawn_with_replacement(M: torch.Tensor, n: torch.Tensor, k: int) -> torch.Tensor:
    return (M.clamp(min=0) / n.clamp(min=1)) ** k


def half_from_the_top(sorted_PG: torch.Tensor, n_P: torch.Tensor, width: int) -> torch.Tensor:
    """What is best of binary rewards alone."""
    return torch.full_like(n_P, width // 2)


def the_fitted_density_itself(mean_P1: torch.Tensor) -> torch.Tensor:
    mean = mean_P1.double()
    center, spread = mean.mean(), mean.var() if len(mean) > 1 else torch.zeros(())
    if not spread:
        return torch.ones_like(mean_P1)
    size = center * (1 - center) / spread - 1
    fitted = torch.distributions.Beta((size * center).clamp(min=1), (size * (1 - center)).clamp(min=1))
    return fitted.log_prob(mean).exp().to(mean_P1.dtype)


def the_batchs_mean(state: Any, mean: torch.Tensor) -> torch.Tensor:
    return torch.where(mean == 0, torch.inf, mean.mean())


def the_first_row_alone(state: Any) -> Any:
    return replace(state, active_PG=state.active_PG & (state.active_PG.cumsum(1) <= 1))


EXPONENTIAL = recent.exponential_rewards


def less_its_mean(state: Any) -> Any:
    found = EXPONENTIAL(state)
    return replace(found, advantages_PG=found.advantages_PG - found.advantages_PG.mean(1, keepdim=True))


PLANTED = [
    ("pass_at_k", advantage, "_subset_share", drawn_with_replacement),
    ("pods", support, "_best_split", half_from_the_top),
    ("two_grpo", papers, "keep_first_two", the_first_row_alone),
    ("bnpo", over_batch, "_beta_density", the_fitted_density_itself),
    ("reward_share", advantage, "_mean_divisor", the_batchs_mean),
    ("exp_reward_sft", recent, "exponential_rewards", less_its_mean),
]


@pytest.mark.parametrize(("name", "module", "part", "wrong"), PLANTED, ids=[name for name, *_ in PLANTED])
def test_a_fault_planted_in_ours_is_found(
    name: str, module: Any, part: str, wrong: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, part, wrong)
    faults = judge(conform_ours.target(Target, ConformError, name), batches=FEW).faults
    smallest = min((fault.minimal for fault in faults if fault.minimal), key=lambda minimal: len(minimal["rewards"]))
    assert len(smallest["rewards"]) <= 6
    assert smallest["got"] != smallest["expected"]


def test_every_formula_has_a_planted_fault() -> None:
    assert {name for name, *_ in PLANTED} == set(ADDED_FORMULAS)


# the page


def test_ours_is_asked_at_the_kits_numbers() -> None:
    assert (conform_ours.CONFIG.pass_k, conform_ours.CONFIG.pods_width) == (PASS_K, PODS_ROWS)
    assert SignalConfig().reward_temperature == TEMPERATURE
    page = " ".join(PAGE.read_text().split())
    assert f"k = {PASS_K} of pass_at_k, m = {PODS_ROWS} of pods, T = {TEMPERATURE} of exp_reward_sft" in page


def test_the_page_names_all_formulas_and_all_constructors_without_one() -> None:
    page = " ".join(PAGE.read_text().split())
    without = [constructor for constructor in list_constructors() if constructor.name not in FORMULAS]
    own = [constructor.name for constructor in without if constructor.source in ("recast", "control")]
    more = [constructor.name for constructor in without if constructor.name not in own]
    assert all(constructor.inputs for constructor in without)  # what reads rewards alone has vectors
    assert f"Methods: {', '.join(FORMULAS)}." in page
    assert f"read more than rewards and ids: {', '.join(more)}." in page
    assert f"no public reference: {', '.join(own)}." in page
