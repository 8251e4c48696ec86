"""What a pass of the model costs and how well the device is used, by one definition for every speed that we report.

FLOPs of forward and backward are 6 N tokens (N parameters with embeddings and output head) plus attention over the pairs
(query, key) that the mask lets through; what gradient checkpointing computes again is left out. MFU is FLOPs over seconds
times the device's peak (PaLM, 2204.02311, appendix B, which counts the masked pairs of causal attention too, as do versions
of verl with 12 * length^2: about twice our attention). Take tokens and pairs of the rows that were computed, after the signal
dropped the others.

Axis letters: P prompts, N kept rows (as in `packed_logprobs`), S sequences.
"""

import re
import sys

import torch
from torch import Tensor

from recast_train.model import require
from recast_train.model.shared_prefixes import PrefixTree

_GIB = 2**30
# Dense bf16 of the whole card. Exact names: a GH200, an H200 NVL, an H100 NVL, a laptop's 4090 or a MIG slice is another card.
_PEAK_FLOPS = {
    r"A100-(SXM4|PCIE)-\d+GB|A100 80GB PCIe": 312e12,
    r"H100 80GB HBM3": 989e12,
    r"H100 PCIe": 756e12,
    r"H200": 989e12,
    r"L40S": 362e12,
    r"GeForce RTX 4090": 165e12,
}


def training_flops(parameters: int, tokens: int, attention: int) -> int:
    """FLOPs of one forward and backward pass: 6 * parameters * tokens + attention.

    Args:
        parameters: all of them, with embeddings and output head; those of a tied head once.
        tokens: real tokens that were computed (`PrefixTree.tokens`), never padding.
        attention: of `attention_flops`.
    """
    return 6 * parameters * tokens + attention


def attention_flops(layers: int, heads: int, head_dim: int, pairs: int) -> int:
    """FLOPs of attention in one forward and backward pass: 12 * layers * heads * head_dim * pairs.

    A pair (query, key) costs 2 * head_dim FLOPs a query head in the scores and as many in the weighted sum, and twice that
    again in the backward pass. Shared key heads (GQA) save none of them. `pairs` come from one of the three functions below.
    """
    return 12 * layers * heads * head_dim * pairs


def causal_pairs(length_S: Tensor) -> int:
    """Attended pairs of plain sequences with these numbers of real tokens: n (n + 1) / 2 each."""
    return int((length_S * (length_S + 1) // 2).sum())


def repeated_pairs(length_P: Tensor, prompt_N: Tensor, depth: int) -> int:
    """Attended pairs where each row repeats its prompt and has `depth` tokens more (`repeated_logprobs`)."""
    return causal_pairs(length_P[prompt_N] + depth)


def packed_pairs(length_P: Tensor, tree: PrefixTree) -> int:
    """Attended pairs where a prompt, and each prefix behind it, is computed once for all its rows (`packed_logprobs`).

    A prefix sees the prompt, the shorter prefixes that begin it and itself. `length_P` are real tokens of every prompt; one
    without a row is not computed and counts nothing.
    """
    length_P = length_P[tree.used_P]
    return causal_pairs(length_P) + int((tree.size_P * (length_P + 1)).sum() + tree.depth_PE.sum())


def peak_flops(device: torch.device) -> float | None:
    """Peak of one device in dense bf16 FLOPs a second; None on a CPU and on a card that we do not know by its exact name."""
    return _card_peak(torch.cuda.get_device_name(device)) if device.type == "cuda" else None


def mfu(flops: float, seconds: float, peak: float | None) -> float | None:
    """Model FLOPs utilisation, flops / (seconds * peak); None where the peak is not known.

    On several devices `flops` is their sum and `peak` that of one times their number.

    Raises:
        TrainError: `seconds` is not positive.
    """
    require(seconds > 0, "seconds", seconds, "must be positive; time the passes with a clock that ticks between them")
    return flops / (seconds * peak) if peak else None


def peak_memory_gib(device: torch.device) -> float:
    """Largest memory held so far, in GiB: tensors on a CUDA device (never reset), elsewhere resident memory of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / _GIB
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _rss_unit(sys.platform) / _GIB


def _card_peak(name: str) -> float | None:
    card = name.removeprefix("NVIDIA ")
    return next((peak for pattern, peak in _PEAK_FLOPS.items() if re.fullmatch(pattern, card)), None)


def _rss_unit(platform: str) -> int:
    """Bytes of one unit of ru_maxrss."""
    return 1 if platform == "darwin" else 1024
