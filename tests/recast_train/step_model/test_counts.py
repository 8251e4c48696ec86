"""Counts of a step by hand on a tiny model, and against the trainer's own counters, from which the model must not drift."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sid_world import tiny_catalog, tiny_model, tiny_prompts

from recast_train.model import TrainError
from recast_train.model.shared_prompts import sid_prefixes
from recast_train.rl.cost import attention_flops, packed_pairs, repeated_pairs, training_flops
from recast_train.step_model.machine import CARDS, NODE, Machine, card_machine, this_machine
from recast_train.step_model.net import Net
from recast_train.step_model.setting import StepSetting
from recast_train.step_model.step_memory import step_memory
from recast_train.step_model.step_seconds import step_seconds, work_seconds
from recast_train.step_model.step_work import decode, model_flops, prefill, step_work
from recast_train.step_model.traffic import Traffic, step_traffic
from recast_train.step_model.work import Work, adam, backward, forward, readout

# two layers of width 4, two heads of 2 with one key head, 6 in between, 10 tokens
NET = Net(layers=2, hidden=4, heads=2, kv_heads=1, head_dim=2, feed_forward=6, vocabulary=10, tied=False)
STEP = StepSetting(NET, prompt=5, response=3, group_size=4, kept=4, prompts=6, codes=7)


def test_a_net_by_hand() -> None:
    # query 4 x 4, key and value 4 x 2, output 4 x 4, three of 4 x 6
    assert NET.layer_weights == 16 + 8 + 8 + 16 + 3 * 24
    # norms: two of 4 and two of 2 a layer, one of 4 at the end; two tables of 10 x 4
    assert NET.parameters == 2 * (120 + 12) + 4 + 80
    assert NET.tensors == 2 * 11 + 3
    assert NET.cached == 2 * 2 * 2


def test_passes_by_hand() -> None:
    # a weight: 2 FLOPs a position; a pair: 2 heads, scores and sum, 2 * 2 FLOPs each
    assert forward(NET, 3, 9).flops == 2 * (2 * 120 * 3 + 2 * 2 * 2 * 2 * 9)
    assert backward(NET, 3, 9).flops == 2 * forward(NET, 3, 9).flops
    assert backward(NET, 3, 9, recompute=True).flops == 3 * forward(NET, 3, 9).flops
    assert backward(NET, 3, 9, recompute=True).passes == forward(NET, 3, 9).passes == 1
    assert forward(NET, 0, 0).moved == 2 * 120
    assert forward(NET, 0, 0, cached=5).moved == 2 * 120 + 3 * 5 * 8
    assert readout(NET, 3, 7).flops == 2 * 3 * 4 * 7
    assert readout(NET, 3, 7, gradient=True).flops == 3 * readout(NET, 3, 7).flops
    assert adam(NET).moved == 21 * NET.parameters
    assert adam(NET, 4).moved == adam(NET).moved / 4


def test_positions_pairs_and_states_by_hand() -> None:
    # 6 prompts of 5, four rows each that read 2 tokens
    assert (STEP.positions, replace(STEP, shared=False).positions) == (6 * (5 + 4 * 2), 6 * 4 * (5 + 2))
    assert STEP.attended == 6 * (15 + 4 * (2 * 5 + 3))
    assert replace(STEP, shared=False).attended == 6 * 4 * 28
    assert (STEP.states, replace(STEP, shared=False).states) == (6 * (1 + 4 * 2), 6 * 4 * 3)
    assert replace(STEP, shared=False, every_position=True).states == 6 * 4 * 7
    assert replace(STEP, cards=4).groups == 2  # the card that has most
    assert replace(STEP, thought=10).before == 15


def test_a_pass_is_cut_between_groups_or_rows() -> None:
    limited = replace(STEP, pass_tokens=30)  # two groups of 13
    assert (limited.pass_positions(78), limited.passes(78)) == (26, 3)
    rows = replace(limited, shared=False)  # four rows of 7
    assert (rows.pass_positions(168), rows.passes(168)) == (28, 6)
    assert replace(STEP, pass_tokens=4).pass_positions(78) == 13  # a group is never cut
    assert STEP.passes(78) == 1


def test_rollouts_by_hand() -> None:
    assert prefill(STEP).flops == forward(NET, 30, 6 * 25).flops
    rows, found = 24, decode(STEP)
    by_hand = readout(NET, 6, 7).flops
    for token in (1, 2):
        by_hand += forward(NET, rows, rows * (5 + 4 * token)).flops + readout(NET, rows, 7).flops
    assert (found.flops, found.passes) == (by_hand, 2)
    assert decode(replace(STEP, thought=8)).passes == 2 + 8


def test_phases_by_hand() -> None:
    work = step_work(replace(STEP, updates=2, mini_batches=3))
    assert work["old"] == work["reference"]
    # a causal kernel computes half of the prompt's 5 x 5; a row's two tokens see its prompt and all 4 x 2 behind it
    assert work["old"].flops == forward(NET, 78, 6 * 12.5 + 24 * 2 * (5 + 8)).flops + readout(NET, 54, 7).flops
    rowwise = step_work(replace(STEP, shared=False))["old"]
    assert rowwise.flops == forward(NET, 168, 24 * (12.5 + 2 * (5 + 2))).flops + readout(NET, 72, 7).flops
    assert step_work(replace(STEP, old=False))["old"] == step_work(replace(STEP, reference=False))["reference"] == Work()
    assert work["actor"].passes == 2 * 3 * 2  # forward and backward of each optimiser step
    assert work["actor"].flops == pytest.approx(2 * 3 * work["old"].flops)
    assert work["optimiser"].moved == 6 * 21 * NET.parameters
    seconds = work_seconds(Work(6.0, 8.0, 3.0, 2.0), Machine("m", 2.0, 16.0, 5.0, 7.0, 1.0, 1.0, 1.0), 4)
    assert seconds == 6 / 2 + 4 * 8 / 16 + 3 * 5 + 2 * 7


def test_traffic_by_hand() -> None:
    step = replace(STEP, cards=3, computed=2, mini_batches=2, engine=True)
    work, received = step_work(step), NET.parameters * 2 / 3
    found = step_traffic(step, work)
    assert found["old"] == found["reference"] == Traffic(2 * received, 3)
    # two optimiser steps: weights twice in 2 bytes, gradients once in 4
    assert found["actor"].sent == pytest.approx(2 * received * (2 * 2 + 4))
    assert found["actor"].messages == 2 * 3 * 3
    assert found["rollout"] == Traffic(2 * received, 3)
    own = replace(step, engine=False)
    layers = (NET.parameters - 80) * 2 / 3  # prefill and two tokens; the tables once
    assert step_traffic(own, step_work(own))["rollout"].sent == pytest.approx(2 * (received + 2 * layers))
    ddp = replace(step, sharded=False)
    assert step_traffic(ddp, step_work(ddp))["actor"].sent == pytest.approx(2 * 2 * 4 * received)
    assert set(step_traffic(STEP, step_work(STEP)).values()) == {Traffic()}


def test_memory_by_hand() -> None:
    memory = step_memory(STEP)
    assert memory.states == 5 * 4 * NET.parameters  # with the reference
    assert memory.cache == 4 * 8 * 6 * (5 + 4 * 3)
    assert memory.actor == 4 * 78 * 2 * NET.kept + 4 * 7 * 54
    assert memory.gathered == 0
    cards = step_memory(replace(STEP, cards=3, held=2, computed=2, reference=False, resident=100.0))
    assert cards.states == pytest.approx(4 * 2 * NET.parameters / 3 + 100)
    assert cards.gathered == 2 * (2 * 120 + 80)
    less = step_memory(replace(STEP, recompute=True))
    assert less.actor == 4 * 78 * (4 * 2 + NET.kept) + 4 * 7 * 54
    assert memory.peak == memory.states + max(memory.cache, memory.inference, memory.actor)


@pytest.mark.parametrize("kept", [1, 2, 4])
def test_counts_are_those_of_the_trainers_own_counters(kept: int) -> None:
    """Positions, pairs and FLOPs against `PrefixTree` and `recast_train.rl.cost`, which a run logs."""
    catalog = tiny_catalog(60, (20, 3, 5))
    model, prompts, P = tiny_model(catalog), tiny_prompts(catalog, 6), 3
    whole = prompts.take(torch.full((P,), int(prompts.length_P.argmax())))  # of one length
    first = torch.tensor([int((torch.from_numpy(catalog.leaf_codes[:, 0]) == code).nonzero()[0]) for code in range(4)])
    prompt_N, leaf_N = torch.arange(P).repeat_interleave(kept), first[:kept].repeat(P)  # rows without a common prefix
    tree, length_P = sid_prefixes(model, prompt_N, leaf_N), whole.length_P
    net = Net.of_lm(model.lm)
    step = StepSetting(net, prompt=int(length_P[0]), response=3, group_size=4, kept=kept, prompts=P)
    assert net.parameters == model.parameter_count
    assert step.positions == tree.tokens(length_P)
    assert step.attended == packed_pairs(length_P, tree)
    assert replace(step, shared=False).attended == repeated_pairs(length_P, prompt_N, 2)
    attention = attention_flops(net.layers, net.heads, net.head_dim, packed_pairs(length_P, tree))
    assert model_flops(step) == training_flops(model.parameter_count, tree.tokens(length_P), attention)


def test_what_a_pass_keeps_is_what_the_actor_benchmark_measured() -> None:
    """Peaks of benchmarks/actor.py: a Qwen3 of width 256, two prompts of 512 tokens, responses of 4, a vocabulary of 26,000.

    The process holds more: working tensors, and a gradient of the vocabulary's size, which are most where rows are few.
    """
    stored = json.loads((Path(__file__).parents[3] / "benchmarks/results/cpu.json").read_text())["actor"]["entries"]
    peaks = {entry["name"].rsplit(": ", 1)[1]: entry["value"] for entry in stored if entry["unit"] == "MiB"}
    net = Net(4, 256, 4, 4, 64, 640, 26_002, False)
    ways = {"full": {"shared": False, "every_position": True}, "response": {"shared": False}, "ours": {"codes": 6500}}
    for way, setting in ways.items():
        for kept in (32, 2):
            step = StepSetting(net, prompt=512, response=4, group_size=32, kept=kept, prompts=2, **setting)
            share = step_memory(step).actor / 2**20 / peaks[f"{way} {kept}"]
            assert 0.8 < share < 1.0
            if (way, kept) == ("full", 32):
                assert share > 0.95


def test_a_bad_setting_names_the_field() -> None:
    with pytest.raises(TrainError, match=r"StepSetting\.kept: 5 must lie above 0 and at most at group_size \(4\)"):
        replace(STEP, kept=5)
    with pytest.raises(TrainError, match=r"StepSetting\.cards: 0 must be at least 1"):
        replace(STEP, cards=0)
    with pytest.raises(TrainError, match="card: 'B200' is not known; take one of A100"):
        card_machine("B200")


def test_machines() -> None:
    card = card_machine("A100")
    assert card.flops < CARDS["A100"].flops
    assert card.wire(NODE) > card.wire(NODE + 1)
    here = this_machine()
    assert 1e8 < here.flops < 1e14
    assert 1e7 < here.bandwidth < 1e13
    assert step_seconds(STEP, here).whole > 0
