"""The protocol on tiny worlds: rates from worlds that are not reported, paired worlds, resumed to the same numbers."""

import dataclasses
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recast_analysis.measures.comparison import Comparison
from recast_sim.experiments.choosing import Choice
from recast_sim.experiments.protocol import METRICS, EvaluationLog, Protocol, final_score, run_protocol, tuning_score
from recast_sim.experiments.world_setting import Setting
from recast_sim.runs import RunError
from recast_sim.runs.sweep import open_sweep
from recast_sim.training.training_config import TrainingConfig
from recast_sim.world.calibration import CalibrationError
from recast_sim.world.environment import EnvironmentConfig

TINY = Setting(
    EnvironmentConfig(items=40, sizes=(4, 4, 4), dim=6, beta=1.5, train_prompts=256, heldout_prompts=64),
    convergence=0.8,
    regime=(),
    training=TrainingConfig(group_size=8, prompts_per_step=8, steps=6, evaluate_every=2),
)
PROTOCOL = Protocol(
    ("grpo", "recast", "sft", "recast norm_like=grpo rate_of=grpo"), (0.01, 0.1), seeds=2, tuning_seeds=1, metrics=METRICS
)


def compare(root: Path, workers: int, settings: dict[str, Setting], protocol: Protocol = PROTOCOL, **options) -> Comparison:
    with open_sweep(root / "jobs", "local", workers) as submit:
        run_protocol(settings, protocol, 0, root / "methods", submit, **options)
    return Comparison.read(root / "methods")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Comparison]:
    root = tmp_path_factory.mktemp("protocol")
    return root, compare(root, 2, {"tiny": TINY})


def test_rates_come_from_the_tuning_worlds(done: tuple[Path, Comparison]) -> None:
    _, found = done
    assert found.settings == ["tiny"]
    assert found.methods == list(PROTOCOL.methods)
    assert set(found.runs["seed"]) == {0, 1}  # the tuning world 10000 is not reported
    assert set(found.worlds["seed"]) == {0, 1, 10_000}
    assert found.reported_worlds["seed"].to_list() == [0, 1]
    assert found.rates.height == len(PROTOCOL.methods) * len(METRICS)
    for metric in found.metrics:
        assert found.rate("tiny", "recast norm_like=grpo rate_of=grpo", metric) == found.rate("tiny", "grpo", metric)
    tuning = pl.read_parquet(done[0] / "methods" / "tuning.parquet")
    assert set(tuning["seed"]) == {10_000}
    for row in found.rates.filter(pl.col("method").is_in(["grpo", "recast", "sft"])).iter_rows(named=True):
        own = tuning.filter(method=row["method"], metric=row["metric"]).sort("learning_rate")
        assert row["learning_rate"] in own.filter(score=own["score"].max())["learning_rate"]
        tried = own["learning_rate"].to_list()
        assert row["at_edge"] == (row["learning_rate"] in (tried[0], tried[-1]))
    assert found.draws("grpo")
    assert not found.draws("sft")


def test_methods_meet_the_same_worlds_and_start_alike(done: tuple[Path, Comparison]) -> None:
    _, found = done
    starts = {method: found.curves("tiny", method, METRICS[0]).starts_S.tolist() for method in found.methods}
    assert all(start == starts["grpo"] for start in starts.values())
    curves = found.curves("tiny", "recast", METRICS[0])
    assert curves.seeds == (0, 1)
    assert curves.scores_SE.shape == (2, 4)
    assert curves.spent["rollouts"][0].tolist() == [0, 128, 256, 384]
    assert (curves.spent["actor_tokens"] <= 3 * 2 * curves.spent["rollouts"] / 8).all()
    assert (curves.spent["seconds"][:, 1:] > 0).all()
    assert found.runs.filter(step=0)["repaired"].is_null().all()
    assert found.runs.filter(pl.col("step") > 0, method="recast")["repaired"].mean() > 0


def test_worker_count_and_a_resumed_sweep_change_nothing_but_the_clock(done: tuple[Path, Comparison], tmp_path: Path) -> None:
    root, whole = done
    (tmp_path / "jobs").mkdir()
    for file in sorted((root / "jobs").iterdir())[::2]:  # as if a kill had left every other job
        (tmp_path / "jobs" / file.name).write_text(file.read_text())
    (tmp_path / "methods").mkdir()
    (root / "methods" / "worlds").rename(tmp_path / "methods" / "worlds")
    again = compare(tmp_path, 1, {"tiny": TINY})
    assert again.rates.equals(whole.rates)
    assert again.runs.drop("seconds").equals(whole.runs.drop("seconds"))
    assert again.worlds.equals(whole.worlds)


def test_settings_that_only_train_otherwise_share_their_worlds() -> None:
    other = dataclasses.replace(TINY, training=dataclasses.replace(TINY.training, steps=7))
    assert TINY.world_name == other.world_name
    assert TINY.world_name != dataclasses.replace(TINY, convergence=0.5).world_name


def test_a_setting_that_cannot_be_calibrated_stops_a_comparison_and_is_left_out_of_a_map(tmp_path: Path) -> None:
    settings = {"tiny": TINY, "no regime": dataclasses.replace(TINY, regime=(0.5, 0.1, 0.1))}
    one = dataclasses.replace(PROTOCOL, methods=("sft",), learning_rates=(0.01,), seeds=1, metrics=METRICS[:1])
    with pytest.raises(CalibrationError, match="three shares"):
        compare(tmp_path / "stops", 1, settings, one)
    assert compare(tmp_path / "map", 1, settings, one, skip_failed=True).settings == ["tiny"]


def test_each_world_can_be_calibrated_by_itself(tmp_path: Path) -> None:
    """Knobs that differ between the worlds, and a regime nearer to what was asked for than with one calibration for all."""
    asked = dataclasses.replace(TINY, regime=(0.8, 0.18, 0.02), regime_group_size=8)
    one = dataclasses.replace(PROTOCOL, methods=("sft",), learning_rates=(0.01,), seeds=2, metrics=METRICS[:1])
    once = compare(tmp_path / "once", 2, {"tiny": asked}, one).reported_worlds
    each = compare(tmp_path / "each", 2, {"tiny": dataclasses.replace(asked, calibrate_each=True)}, one).reported_worlds
    assert once["beta"].n_unique() == 1
    assert each["beta"].n_unique() == 2
    assert (each["all_zero"] - 0.8).abs().max() < 0.011
    assert (each["all_zero"] - 0.8).abs().max() < (once["all_zero"] - 0.8).abs().max()


def test_an_unfinished_comparison_says_so(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="go on with --resume"):
        Comparison.read(tmp_path)


def test_the_log_averages_between_evaluations_and_keeps_no_checkpoint() -> None:
    log = EvaluationLog()
    scores = {"pass_at_1_greedy": 0.25, "recall_at_k": 0.04, "calibrated_log_likelihood": None}
    steps = (
        "before_all_zero",
        "before_single_hit",
        "before_multi_hit",
        "repaired",
        "learnable",
        "update_width",
        "gradient_norm",
    )
    log.evaluation({"step": 0, **scores})
    for repaired in (0.0, 1.0):
        log.step(dict.fromkeys(steps, repaired))
    log.evaluation({"step": 2, **scores})
    assert [row["repaired"] for row in log.rows] == [None, 0.5]
    assert log.rows[1]["greedy_and_recall"] == pytest.approx(0.1)
    assert final_score(log.rows, METRICS[0]) == 0.25
    log.evaluation({"step": 4, **scores, "calibrated_log_likelihood": -4.0})
    assert final_score(log.rows, "calibrated_log_likelihood") == -4.0
    assert tuning_score({"evals": log.rows, "failed": "diverged"}, "calibrated_log_likelihood") == -np.inf
    with pytest.raises(RunError, match="checkpoint_every"):
        log.checkpoint(3)


def test_a_choice_is_run_and_reported_as_its_line(tmp_path: Path) -> None:
    hard = Choice("hard", "recast", ("sft",))  # one of the two, whichever it is
    named = Protocol(("sft: sft every_target=true",), choices=(Choice("hard", "sft", ("recast",)),))
    assert named.candidates()["sft"] == named.parsed()[0]  # the method of that name, not a line of its own
    protocol = Protocol(("sft", "recast"), (0.01, 0.1), seeds=2, tuning_seeds=2, metrics=PROTOCOL.metrics, choices=(hard,))
    found = compare(tmp_path, 1, {"tiny": TINY}, protocol)
    rows = pl.read_parquet(tmp_path / "methods" / "choices.parquet")
    assert rows["line"].to_list() == ["recast", "sft"]
    (line,) = rows.filter("chosen")["line"]
    assert found.methods == ["sft", "recast", "hard"]
    for metric in found.metrics:
        assert found.rate("tiny", "hard", metric) == found.rate("tiny", line, metric)
        assert np.array_equal(found.curves("tiny", "hard", metric).scores_SE, found.curves("tiny", line, metric).scores_SE)
