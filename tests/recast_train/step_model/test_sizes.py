"""`recast-train sizes`: its table, and the paper's figures against counting, by hand."""

import json

import pytest
from commands import called

from recast_analysis.claims import paper
from recast_train.cli import main
from recast_train.step_model.machine import card_machine
from recast_train.step_model.paper_step import ACTOR, CARDS, MEMORY_SAVED, MFU_GAIN, STEP, TOKENS, paper_checks
from recast_train.step_model.sizes import (
    CARD_COUNTS,
    SIZES,
    WAYS,
    compared,
    net_of,
    openonerec_step,
    own_step,
    thought_rollouts,
)


def test_the_command() -> None:
    done = called(main, "sizes", "--card", "A100", "--json")
    assert not done.returncode, done.stderr
    found = json.loads(done.stdout)
    assert len(found["sizes"]) == len(WAYS) * len(SIZES) * len(CARD_COUNTS)
    shown = called(main, "sizes", "--card", "H100", "--wide").stdout
    assert "OpenOneRec's trainer, H100" in shown
    assert "nothing here was measured on a card" in shown
    assert "16x by rows" in shown


def test_figures_of_the_paper_are_those_that_claims_are_judged_by() -> None:
    assert (ACTOR[0] / ACTOR[1], STEP[0] / STEP[1]) == (paper.ACTOR, paper.STEP)
    assert TOKENS[0] / TOKENS[1] == pytest.approx(paper.ACTOR_TOKENS)
    assert pytest.approx(paper.MEMORY) == 100 * MEMORY_SAVED
    assert pytest.approx(paper.MFU) == 100 * MFU_GAIN


def test_the_papers_tokens_are_those_of_the_step() -> None:
    step = openonerec_step(net_of("qwen3-8b"), CARDS)
    assert CARDS * step.positions == pytest.approx(TOKENS[0], rel=1e-3)
    assert step.unit == 3384


def test_what_counting_gives_and_what_is_needed_by_hand() -> None:
    found = paper_checks()
    assert found["actor"]["by_rows"] == 16
    assert found["actor"]["needed_beyond_rows"] == pytest.approx(16.604 / 16 - 1, abs=1e-4)
    # 160.50 s and 64.29 s beside the actor
    step = found["step"]
    rest, factor = step["needed_rest"], 6.93 / 0.47
    assert rest + step["needed_inference"] == pytest.approx(160.50)
    assert rest + step["needed_inference"] / factor == pytest.approx(64.29)
    # two forward passes against a forward, a recomputed one and a backward of two: 4 of 8, but logits are not recomputed
    assert step["inference_by_flops"] / 211.04 == pytest.approx(0.5, abs=0.03)
    # two gathers of 2 bytes against two and a gradient of 4
    assert step["inference_by_bytes"] / 211.04 == pytest.approx(2 * 2 / (2 * 2 + 4))
    assert found["mfu"]["by_seconds_and_tokens"] == pytest.approx(16.604 / 14.745 - 1, abs=1e-3)
    memory = found["memory"]
    assert memory["needed_total"] * MEMORY_SAVED == pytest.approx(memory["peak_before"] - memory["peak_after"])


def test_a_prompt_in_every_row_makes_the_factor_and_a_shared_one_ends_it() -> None:
    machine, net = card_machine("H800"), net_of("qwen3-8b")
    theirs = compared(openonerec_step(net, 64), machine)
    assert theirs["actor_factor"] == pytest.approx(16, rel=0.01)
    assert theirs["step_factor"] < theirs["actor_factor"]
    assert abs(theirs["mfu_gain"]) < 0.01
    assert compared(own_step(net, 64), machine)["actor_factor"] < 1.05
    seconds = thought_rollouts(machine)
    gathers = (net.parameters - net.tables) * 2 * 63 / 64 / machine.network
    assert seconds["own"] - seconds["engine"] == pytest.approx((1024 + 2) * (gathers + 37 * machine.latency), rel=0.01)
