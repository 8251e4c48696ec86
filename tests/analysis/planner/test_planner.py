"""Figures of a plan against enumeration and simulation, and what it says where a log cannot tell."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from audit_dumps import FIXTURES
from commands import called
from scipy.stats import betabinom, binom

from recast_analysis.audit.actor_corners import actor_corners
from recast_analysis.cli import main
from recast_analysis.planner.acting import Kind, Waiting, acting, kinds
from recast_analysis.planner.group_sizes import best_whole, best_width, signal_to_noise, size_plans
from recast_analysis.planner.hit_rates import Bounded, Estimate, Fitted, clopper_pearson, counted, hit_rates
from recast_analysis.planner.plan_error import PlanError
from recast_analysis.planner.prompt_hits import PromptHits, read_prompt_hits
from recast_analysis.planner.study_size import Scatter, scatter_between, study
from recast_analysis.planner.token_costs import Lengths, lengths_of, token_costs
from recast_sim.closed_forms.hit_counts import Likelihood, fit_hit_counts
from recast_sim.runs import RunError, RunWriter

PAGE = Path(__file__).parents[3] / "docs" / "plan.md"
NEEDS_BOTH = Kind(("grpo",), all_zero=False, all_hit=False, anchors=False, redraws=False, rollouts=True)


def log_of(hits: np.ndarray, rollouts: int | np.ndarray, ids: np.ndarray | None = None) -> PromptHits:
    rows = np.broadcast_to(rollouts, hits.shape).astype(np.int64)
    ids = np.arange(len(hits)) if ids is None else ids
    return PromptHits(ids, hits.astype(np.int64), rows, int(rows.max()), None, None, None, None, "made up", [])


def drawn(prompts: int, rollouts: int, a: float = 0.5, b: float = 4.5, seed: int = 0) -> PromptHits:
    rng = np.random.default_rng(seed)
    return log_of(rng.binomial(rollouts, rng.beta(a, b, prompts)), rollouts)


@pytest.fixture(scope="module")
def log() -> PromptHits:
    return drawn(300, 8)


@pytest.fixture(scope="module")
def fitted(log: PromptHits) -> Fitted:
    found = hit_rates(log)
    assert isinstance(found, Fitted)
    return found


# shares


def test_every_point_of_the_edge_is_as_unlikely_as_a_95_percent_interval_allows(log: PromptHits, fitted: Fitted) -> None:
    likelihood = Likelihood.of(log.hits_P, log.rows_P)
    loss_N = likelihood(fitted.mean_N[0], fitted.theta_N[0]) - likelihood.of_points(fitted.mean_N, fitted.theta_N)
    assert loss_N.max() == pytest.approx(1.9207, abs=1e-4)
    assert loss_N.min() > -1e-6
    assert (loss_N > 1.92).sum() >= 78  # both edges at 39 of 41 thetas; at the two ends they meet
    fit = fit_hit_counts(log.hits_P, log.rows_P)
    assert (fitted.mean.low, fitted.mean.high) == pytest.approx(fit.mean_interval, rel=0.003)
    assert (*fitted.shape, fitted.p_value) == (fit.a, fit.b, fit.p_value)


def test_counted_shares_are_those_of_all_choices_of_rollouts(log: PromptHits) -> None:
    rng = np.random.default_rng(0)
    order = rng.permuted(np.tile(np.arange(8), (4000, 1)), axis=1)[:, :3]
    some = log_of(log.hits_P[:30], 8)
    found = counted(some, 3)
    assert found is not None
    hits = (order[None] < some.hits_P[:, None, None]).sum(2)  # the first hits_P rollouts hit
    assert found[0].value == pytest.approx((hits == 0).mean(), abs=0.01)
    assert found[1].value == pytest.approx(((hits > 0) & (hits < 3)).mean(), abs=0.01)
    assert counted(some, 9) is None
    none = counted(log_of(np.zeros(40), 8), 2)
    assert none is not None
    assert (none[0].low, none[0].high) == clopper_pearson(40, 40)  # all alike, and still not sure


def test_clopper_and_pearson_are_the_rule_of_three_at_no_hit() -> None:
    low, high = clopper_pearson(0, 1000, 0.1)
    assert low == 0
    assert high == pytest.approx(3 / 1000, rel=0.01)
    low, high = clopper_pearson(30, 100)
    assert binom.sf(29, 100, low) == pytest.approx(0.025)
    assert binom.cdf(30, 100, high) == pytest.approx(0.025)
    assert clopper_pearson(29.5, 100) == (clopper_pearson(29, 100)[0], clopper_pearson(30, 100)[1])


@pytest.mark.parametrize(("a", "b"), [(0.05, 1.0), (2.0, 2.0), (30.0, 3.0)])
def test_bounds_hold_for_any_distribution(a: float, b: float) -> None:
    """Of a log so large that its own chance is none, they hold the truth at every G."""
    size, prompts = 8, 10**9
    zero, full = (round(prompts * betabinom.pmf(k, size, a, b)) for k in (0, size))
    ends = [Estimate(None, *clopper_pearson(count, prompts)) for count in (zero, full)]
    bounds = Bounded("", size, *ends, Estimate(a / (a + b), 0, 1))
    for G in (2, 8, 64):
        for share, k in zip(bounds.flat(G)[:2], (0, G), strict=True):
            assert share.low - 1e-4 <= betabinom.pmf(k, G, a, b) <= share.high + 1e-4
        learnable = 1 - betabinom.pmf(0, G, a, b) - betabinom.pmf(G, G, a, b)
        assert bounds.flat(G)[2].low - 1e-4 <= learnable <= bounds.flat(G)[2].high + 1e-4


# the best G


def test_signal_to_noise_is_that_of_drawn_gradients(fitted: Fitted) -> None:
    """RLOO's estimate of d hit rate / d logit, from rewards and scores themselves."""
    rng, mean, theta = np.random.default_rng(2), fitted.mean_N[0], fitted.theta_N[0]
    for G in (2, 5, 16):
        p_N1 = rng.beta(mean / theta, (1 - mean) / theta, 400_000)[:, None]
        r_NG = (rng.random((len(p_N1), G)) < p_N1).astype(float)
        others_NG = (r_NG.sum(1, keepdims=True) - r_NG) / (G - 1)
        gradient_N = ((r_NG - others_NG) * (r_NG - p_N1)).mean(1)
        ratio = gradient_N.mean() / gradient_N.std() * 9
        assert signal_to_noise(np.array([mean]), np.array([theta]), G, 81)[0] == pytest.approx(ratio, rel=0.015)


def test_the_best_width_is_where_the_budgets_ratio_is_highest(fitted: Fitted) -> None:
    width = best_width(fitted, 100_000)
    assert width is not None
    assert width.value is not None
    assert 1 + 2**0.5 <= width.low < width.value < width.high
    of_one = {G: signal_to_noise(fitted.mean_N[:1], fitted.theta_N[:1], G, 1)[0] / G**0.5 for G in range(2, 200)}
    assert best_whole(width.value, fitted, 100_000) == max(of_one, key=lambda G: of_one[G])
    alike = Fitted(np.array([0.2]), np.array([0.0]), None)
    assert best_width(alike, 640) == Estimate(640, 640, 640)


def test_learnable_groups_of_a_budget(log: PromptHits, fitted: Fitted) -> None:
    of = {plan.group_size: plan for plan in size_plans(log, fitted, 1000)}
    assert list(of) == [2, 4, 8, 16, 32, 64, 128, 256, 512]
    assert of[16].groups == 62
    expected = 62 * (1 - betabinom.pmf(0, 16, *fitted.shape) - betabinom.pmf(16, 16, *fitted.shape))
    assert of[16].learnable_groups.value == pytest.approx(expected)
    assert of[16].counted is None


# signals


def test_kinds_are_what_constructors_do() -> None:
    listed, partial = kinds()
    of = {name: kind for kind in listed for name in kind.names}
    assert "two_grpo" in partial
    assert (of["grpo"].all_zero, of["grpo"].all_hit, of["grpo"].redraws) == (False, False, False)
    assert of["dapo"].redraws
    assert (of["recast"].all_zero, of["recast"].anchors, of["recast"].all_hit) == (True, True, False)
    assert (of["nsr"].all_zero, of["nsr"].anchors) == (True, False)
    assert (of["psr"].all_zero, of["psr"].all_hit) == (False, True)
    assert not of["sft"].rollouts
    assert of["visurf"] is of["recast"]
    assert len({kind.words for kind in listed}) == len(listed)


def test_first_signals_are_those_of_drawn_prompts(fitted: Fitted) -> None:
    rng, G = np.random.default_rng(4), 4
    p_P = rng.beta(*fitted.shape, 200_000)
    chance_P = 1 - p_P**G - (1 - p_P) ** G
    wait_P = rng.geometric(np.maximum(chance_P, 1e-12)) * G
    found = acting(NEEDS_BOTH, fitted, G, rollouts=40, prompts=1)
    assert found.groups.value == pytest.approx(chance_P.mean(), abs=0.003)
    assert found.first.value == pytest.approx(G / chance_P.mean(), rel=0.02)
    assert found.prompts is not None
    assert found.prompts.value == pytest.approx((wait_P <= 40).mean(), abs=0.005)
    for estimate, share in ((found.half, 0.5), (found.most, 0.9)):
        assert estimate is not None
        assert estimate.value == pytest.approx(np.quantile(wait_P, share), rel=0.05)
        assert estimate.low <= estimate.value <= estimate.high
    spread = acting(NEEDS_BOTH, fitted, G, rollouts=2, prompts=1)  # half of the prompts are visited
    assert spread.prompts is not None
    assert spread.prompts.value == pytest.approx(chance_P.mean() / 2, abs=0.003)


def test_a_prompt_that_hardly_hits_has_no_false_number() -> None:
    rare = Fitted(np.array([1e-9]), np.array([1e-9]), None)
    assert Waiting(NEEDS_BOTH, rare, 4).rollouts_until(0.5).value == np.inf


def test_every_group_is_known_without_a_fit() -> None:
    rates = hit_rates(log_of(np.zeros(30), 8))
    assert isinstance(rates, Bounded)
    always = Kind(("spo",), all_zero=True, all_hit=True, anchors=False, redraws=False, rollouts=True)
    assert acting(always, rates, 8, 120, 30).prompts == Estimate(0.5, 0.5, 0.5)
    assert acting(NEEDS_BOTH, rates, 8, 120, 30).prompts is None
    assert acting(NEEDS_BOTH, rates, 8, 120, 30).first.high == np.inf


# logs


def write(folder: Path, rows: list[tuple[int, int, float]]) -> Path:
    table = pl.DataFrame(rows, schema=["step", "prompt_id", "reward"], orient="row")
    table.write_parquet(folder / "log.parquet")
    return folder / "log.parquet"


def test_groups_of_a_prompt_are_added_up_and_windows_cut_steps(tmp_path: Path) -> None:
    rows = [
        (step, prompt, float(step > 4 and row <= prompt % 2)) for step in range(1, 9) for prompt in range(3) for row in range(4)
    ]
    path = write(tmp_path, rows)
    found = read_prompt_hits([path], 0.5)
    assert (found.prompts, found.rollouts, found.group_size) == (3, 96, 4)
    assert sorted(found.hits_P.tolist()) == [4, 4, 8]
    assert ["hit rates moved from 0 " in words for words in found.notes] == [True]
    assert read_prompt_hits([path], 0.5, window="first").hits_P.tolist() == [0, 0, 0]
    last = read_prompt_hits([path], 0.5, window="last")
    assert (sorted(last.hits_P.tolist()), last.rollouts) == ([2, 2, 4], 24)
    assert "the last 2 of 8 steps" in last.source


def test_verls_uids_are_new_in_every_step_and_its_prompts_are_not(tmp_path: Path) -> None:
    rows = [
        {"input": f"p{prompt}", "output": f"{step}{row}", "gts": "t", "score": float(row == 0), "step": step,
         "uid": f"00000000-0000-0000-000{step}-00000000000{prompt}_{row}_0"}
        for step in (1, 2) for prompt in (1, 2) for row in range(4)
    ]  # fmt: skip
    for step in (1, 2):
        lines = "".join(json.dumps(row) + "\n" for row in rows if row["step"] == step)
        (tmp_path / f"{step}.jsonl").write_text(lines)
    found = read_prompt_hits([tmp_path], 0.5)
    assert (found.prompts, found.rows_P.tolist(), found.hits_P.tolist()) == (2, [8, 8], [2, 2])


def test_a_run_folder_of_ours_is_read_by_its_groups(tmp_path: Path) -> None:
    writer = RunWriter.create(tmp_path / "run", "training", {}, 0)
    for step in (1, 2):
        writer.groups({"step": [step] * 3, "prompt": [7, 8, 9], "hits": [step, 0, 0], "valid": [4, 4, 0]})
    writer.close()
    found = read_prompt_hits([tmp_path / "run"], 0.5)
    assert (found.id_P.tolist(), found.hits_P.tolist(), found.rows_P.tolist()) == ([7, 8], [3, 0], [8, 8])
    RunWriter.create(tmp_path / "empty", "training", {}, 0).close()
    with pytest.raises(PlanError, match=r"no groups-\*\.parquet; give the folder of one training"):
        read_prompt_hits([tmp_path / "empty"], 0.5)
    other = RunWriter.create(tmp_path / "other", "training", {}, 0)
    other.groups({"step": [1], "hits": [1]})
    other.close()
    with pytest.raises(RunError, match="does not hold what a run of its kind holds"):
        read_prompt_hits([tmp_path / "other"], 0.5)


def test_lengths_are_given_or_the_logs(log: PromptHits) -> None:
    assert lengths_of(log, 10, 2) == Lengths(10, 2, "tokens")
    assert lengths_of(log, 10, None) is None
    fixture = read_prompt_hits([FIXTURES / "verl-0.9.1"], 0.5)
    own = lengths_of(fixture, None, None)
    assert own is not None
    assert own.unit == "words"
    assert lengths_of(fixture, 10, None) is None  # tokens beside words


def test_costs_are_the_audits_corners(log: PromptHits, fitted: Fitted) -> None:
    (cost,) = (c for c in token_costs(size_plans(log, fitted, 800), Lengths(500, 4, "tokens")) if c.group_size == 8)
    kept = 1 - betabinom.pmf(8, 8, *fitted.shape)
    alike = pl.DataFrame({"rows": [8], "hits": [0], "prompt_length": [8 * 500], "response_length": [8 * 4]})
    corners = actor_corners(pl.concat([alike] * 100))
    assert corners is not None
    lengths = corners["lengths"]
    assert (cost.all_repeated, cost.all_shared) == (lengths["all_rows_repeated"], lengths["all_rows_shared"])
    assert cost.pair_repeated.value == pytest.approx(kept * lengths["pair_repeated"])
    assert cost.pair_shared.value == pytest.approx(kept * lengths["pair_shared"])
    assert cost.rollouts == 100 * (500 + 8 * 4)


# seeds


def test_the_scatter_of_seeds_is_told_from_the_chance_of_rollouts() -> None:
    """Relative scatter .2 of one recipe's hit rate: 2^.5 times that between two."""
    rng = np.random.default_rng(5)
    rate_P = rng.beta(0.5, 4.5, 2000)
    hits_RP = [rng.binomial(8, np.clip(rate_P * (1 + 0.2 * z), 0, 1)) for z in rng.standard_normal(40)]
    same = scatter_between([log_of(hits, 8) for hits in hits_RP]).estimate
    other = scatter_between([log_of(hits, 8, np.arange(2000) + 2000 * place) for place, hits in enumerate(hits_RP)]).estimate
    for found in (same, other):
        assert found.value == pytest.approx(0.2 * 2**0.5, rel=0.25)  # two standard errors of 40 seeds
        assert found.low < 0.2 * 2**0.5 < found.high
    none = scatter_between([log_of(rng.binomial(8, rate_P), 8) for _ in range(10)]).estimate
    assert none.value == pytest.approx(0, abs=0.04)
    with pytest.raises(PlanError, match="a log without hits has no scatter"):
        scatter_between([log_of(np.zeros(3), 8), log_of(np.ones(3), 8)])
    with pytest.raises(PlanError, match=r"all 2 logs have the same mean hit rate 0\.125; are they of one seed"):
        scatter_between([log_of(np.ones(3), 8), log_of(np.ones(3), 8)])


def test_what_seeds_can_bear_and_what_is_refused(fitted: Fitted) -> None:
    found = study(fitted, 0.1, None, Scatter(Estimate(0.1, 0.1, 0.1), "given"))
    assert not isinstance(found, str)
    for row in found.rows[1:]:
        assert row.at_most_scatter is not None
        assert np.isfinite(row.prompts.high) == (row.at_most_scatter > 0.1)
        assert row.prompts.low <= (row.prompts.value or 0) <= row.prompts.high
    assert "An effect of 10 % lifts a hit rate of 0.95 above 1" in str(study(fitted, 0.1, 0.95, None))
    assert "No rollout hit" in str(study(hit_rates(log_of(np.zeros(30), 8)), 0.1, None, None))


# the command


def test_the_command_plans_from_verls_and_trls_own_dumps(tmp_path: Path) -> None:
    done = called(main, "plan", FIXTURES / "verl-0.9.1", "--out", tmp_path, "--scatter", 0.03)
    assert done.returncode == 0
    shown = PAGE.read_text().partition("--out plan\n\n```\n")[2].partition("```")[0].splitlines()
    assert shown == [line.rstrip() for line in done.stdout.splitlines() if line.strip()]
    assert {path.name for path in tmp_path.iterdir()} == {"plan.json", "plan.png", "plan.pdf"}
    for words in (
        "groups at any size",
        "which signal acts where",
        "prompts and seeds",
        "words for 288",
    ):
        assert words in done.stdout
    found = json.loads((tmp_path / "plan.json").read_text())
    assert found["log"] == {"source": found["log"]["source"], "prompts": 36, "rollouts": 288, "group_size": 8}
    assert [row["group_size"] for row in found["sizes"]] == [2, 3, 4, 8, 16, 32, 64, 128, 256, 512]
    few = called(main, "plan", FIXTURES / "trl-1.16", "--rollouts", 100)
    assert few.returncode == 0
    assert "no distribution of hit rates: 6 prompts are too few" in few.stdout
    for folder in ("verl-0.5.0", "verl-0.9.1-ray"):  # the same rollouts, by verl's older trainer, rows in any order
        older = called(main, "plan", FIXTURES / folder, "--json")
        assert older.returncode == 0, older.stderr
        for row, same in zip(json.loads(older.stdout)["sizes"], found["sizes"], strict=True):
            assert row["learnable"] == pytest.approx(same["learnable"], rel=1e-6)
    both = called(main, "plan", FIXTURES / "trl-1.16", "--scatter", 0.1, "--replicate", FIXTURES / "trl-1.16")
    assert both.returncode == 2
    assert "scatter: given, and logs to measure it" in both.stderr


def test_no_hit_and_one_rollout_a_prompt_give_bounds(tmp_path: Path) -> None:
    none = called(main, "plan", write(tmp_path, [(1, prompt, 0.0) for prompt in range(40) for _ in range(8)]), "--json")
    found = json.loads(none.stdout)
    assert found["hit_rates"]["refused"].startswith("no group has a hit")
    own = next(row for row in found["sizes"] if row["group_size"] == 8)
    assert own["all_zero"] == {"value": None, "low": pytest.approx(1 - 4.38 / 40, abs=0.01), "high": 1.0}
    assert "No rollout hit" in found["study"]["refused"]
    one = called(main, "plan", write(tmp_path, [(1, prompt, float(prompt < 10)) for prompt in range(100)]), "--json")
    found = json.loads(one.stdout)
    assert found["hit_rates"]["refused"].startswith("all groups have size 1")
    assert found["hit_rates"]["mean"]["value"] == pytest.approx(0.1)
    assert found["study"]["rows"][0]["prompts"]["low"] < found["study"]["rows"][0]["prompts"]["high"]
