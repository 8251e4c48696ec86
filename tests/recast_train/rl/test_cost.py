"""FLOPs, MFU and memory by hand, attended pairs against the masks that the passes use."""

import sys
from types import SimpleNamespace

import pytest
import torch
from sid_world import tiny_catalog, tiny_model, tiny_prompts

from recast_train.model import TrainError
from recast_train.model.attention import whole_mask
from recast_train.model.shared_prefixes import prefix_tree
from recast_train.model.shared_prompts import packed_logprobs, repeated_logprobs, sid_prefixes
from recast_train.rl import cost as throughput
from recast_train.rl.cost import (
    attention_flops,
    causal_pairs,
    mfu,
    packed_pairs,
    peak_flops,
    peak_memory_gib,
    repeated_pairs,
    training_flops,
)

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


def test_flops_by_hand() -> None:
    assert training_flops(parameters=10, tokens=7, attention=5) == 6 * 10 * 7 + 5
    # scores of 3 pairs: 2 * 8 FLOPs each, as many for the sum, thrice for forward and backward; 2 layers of 4 heads
    assert attention_flops(layers=2, heads=4, head_dim=8, pairs=3) == 2 * 4 * 3 * (2 * 8 + 2 * 8) * 3
    # an 8B model's figures pass 2^63
    assert training_flops(8 * 10**9, 10**9, attention_flops(36, 32, 128, 10**16)) == 48 * 10**18 + 1769472 * 10**16


def test_pairs_by_hand() -> None:
    assert causal_pairs(torch.tensor([1, 3, 4])) == 1 + 6 + 10
    lengths, rows = torch.tensor([3, 50, 2]), torch.tensor([0, 0, 0, 2])
    tree = prefix_tree(rows, torch.tensor([[7, 8], [7, 9], [5, 8], [7, 8]]))
    # prompts 6 and 3; a row's first token sees prompt and itself, its second one more; two rows share their first
    assert packed_pairs(lengths, tree) == 6 + (4 + 5 + 5) + (4 + 5) + 3 + (3 + 4)
    assert repeated_pairs(lengths, rows, 2) == 15 + 15 + 15 + 10
    assert repeated_pairs(lengths, rows[:0], 2) == 0
    assert tree.tokens(lengths) == 3 + 2 + (3 + 2) + 2


def test_one_row_a_prompt_costs_the_same_packed_or_repeated() -> None:
    lengths, rows = torch.tensor([3, 9, 4]), torch.arange(3)
    assert packed_pairs(lengths, prefix_tree(rows, torch.ones(3, 3).long())) == repeated_pairs(lengths, rows, 3)


@pytest.mark.parametrize("sizes", [(4, 3, 5), (20,), (2, 3, 2, 3)])
def test_pairs_are_those_that_the_masks_let_through(sizes: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = tiny_catalog(18, sizes)
    model, prompts = tiny_model(catalog), tiny_prompts(catalog, 5)
    rows, leaves, depth = torch.tensor([0, 0, 1, 1, 3, 3]), torch.tensor([0, 1, 2, 2, 7, 17]), len(sizes) - 1
    masks, plain = [], model.hidden
    monkeypatch.setattr(model, "hidden", lambda *given: masks.append(given[2]) or plain(*given))
    packed_logprobs(model, prompts, rows, leaves)
    repeated_logprobs(model, prompts, rows, leaves)
    packed, repeated = masks
    padding = int((~prompts.take(rows).real_PT).sum())  # sees itself alone
    assert int(repeated.sum()) - padding == repeated_pairs(prompts.length_P, rows, depth)
    tree, part = sid_prefixes(model, rows, leaves), prompts.flush_left(rows.unique())
    real_PQ = torch.cat([part.real_PT, torch.arange(tree.tokens_PE.shape[1]) < tree.size_P[:, None]], 1)
    whole = (
        torch.ones(real_PQ.shape[1], real_PQ.shape[1]).tril().bool() if packed is None else whole_mask(packed, real_PQ.shape[1])
    )
    assert int((whole & real_PQ[:, None, :, None]).sum()) == packed_pairs(prompts.length_P, tree)


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA A100-SXM4-40GB", 312e12),
        ("A100-PCIE-40GB", 312e12),
        ("NVIDIA A100 80GB PCIe", 312e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA GeForce RTX 4090", 165e12),
        ("NVIDIA L40", None),
        ("NVIDIA GH200 480GB", None),
        ("NVIDIA H200 NVL", None),
        ("NVIDIA H100 NVL", None),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("Tesla T4", None),
    ],
)
def test_peaks_of_cards(name: str, peak: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: {CUDA: name}[device])
    assert peak_flops(CUDA) == peak
    assert peak_flops(CPU) is None


def test_mfu_by_hand() -> None:
    assert mfu(flops=3e12, seconds=2.0, peak=10e12) == pytest.approx(0.15)
    assert mfu(3e12, 2.0, None) is None
    with pytest.raises(TrainError, match=r"seconds: 0\.0 must be positive"):
        mfu(3e12, 0.0, None)


def test_memory_on_cuda_is_that_of_its_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: {CUDA: 3 * 2**29}[device])
    assert peak_memory_gib(CUDA) == 1.5


@pytest.mark.parametrize(("platform", "unit"), [("linux", 1024), ("darwin", 1)])
def test_memory_of_the_process_by_hand(platform: str, unit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    monkeypatch.setattr(throughput.sys, "platform", platform)
    monkeypatch.setattr(resource, "getrusage", lambda who: {resource.RUSAGE_SELF: SimpleNamespace(ru_maxrss=2**31)}[who])
    assert peak_memory_gib(CPU) == 2 * unit


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_of_this_process_is_what_the_kernel_says() -> None:
    with open("/proc/self/status") as status:
        peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    assert peak_memory_gib(CPU) == pytest.approx(peak / 2**20, rel=0.02)
