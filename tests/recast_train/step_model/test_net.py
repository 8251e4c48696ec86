"""The step model's counts of a layer are what transformers' Qwen3 does: parameters, FLOPs, elements moved and kept, calls."""

from dataclasses import replace

import pytest
import torch
from operation_counts import bare_lm, layer_counts
from torch.utils.flop_counter import FlopCounterMode

from recast_train.model import ModelConfig
from recast_train.pipeline.forecast import kept_for_backward
from recast_train.step_model.net import BACKWARD_CALLS, FORWARD_CALLS, Net
from recast_train.step_model.sizes import SIZES, TEXT
from recast_train.step_model.work import backward, forward

NET = Net(layers=2, hidden=48, heads=4, kv_heads=4, head_dim=20, feed_forward=112, vocabulary=90, tied=False)
NETS = (NET, replace(NET, hidden=96, feed_forward=72), replace(NET, kv_heads=2, head_dim=32))


@pytest.mark.parametrize("net", [NET, replace(NET, tied=True, kv_heads=2, layers=3)])
def test_a_net_is_that_of_its_lm(net: Net) -> None:
    lm = bare_lm(net, device="meta")
    assert Net.of_lm(lm) == net
    assert net.parameters == sum(table.numel() for table in lm.parameters())
    assert net.tensors == len(list(lm.parameters()))


def test_parameters_of_qwen3() -> None:
    # those of the published checkpoints
    known = [596_049_920, 1_720_574_976, 4_022_468_096, 8_190_735_360, 14_768_307_200]
    assert [Net.of_shape(ModelConfig(size=size).shape(), TEXT).parameters for size in SIZES] == known


@pytest.mark.parametrize("net", NETS)
def test_elements_and_operations_of_a_layer(net: Net) -> None:
    rows, length = 2, 37
    (calls, moved), (calls_back, moved_back) = layer_counts(net, rows, length)
    assert calls == FORWARD_CALLS
    assert calls_back == pytest.approx(BACKWARD_CALLS, rel=0.05)
    assert rows * length * net.moved_forward + net.layer_weights == pytest.approx(moved, rel=0.05)
    assert rows * length * net.moved_backward + 2 * net.layer_weights == pytest.approx(moved_back, rel=0.05)


@pytest.mark.parametrize("net", NETS)
def test_flops_are_those_that_torch_counts(net: Net) -> None:
    rows, length = 2, 11
    lm = bare_lm(net)
    lm.set_attn_implementation("eager")  # its products are plain ones
    tokens = torch.zeros(rows, length, dtype=torch.int64)
    with FlopCounterMode(display=False) as counted:
        hidden = lm.model(input_ids=tokens, use_cache=False).last_hidden_state
    rotary = 2 * rows * length * net.head_dim // 2  # angles are a product of positions and frequencies
    once = forward(net, rows * length, rows * length**2).flops
    assert counted.get_total_flops() - once in (0, rotary)
    with FlopCounterMode(display=False) as counted:
        hidden.sum().backward()
    assert counted.get_total_flops() == backward(net, rows * length, rows * length**2).flops == 2 * once


@pytest.mark.parametrize("net", NETS)
def test_what_a_layer_keeps_is_what_the_dry_run_counts(net: Net) -> None:
    length = 37
    few, many = (kept_for_backward(bare_lm(net, layers, "meta").train(), 1, length) for layers in (2, 3))
    assert 4 * length * net.kept == pytest.approx(many - few, rel=0.05)
