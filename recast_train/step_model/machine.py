"""Machines as a few constants: cards by their public figures and assumed utilisations, this CPU by its own measured peaks."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from recast_train.model import require

CardName = Literal["A100", "H800", "H100", "H200"]

GIGA = 1e9
NODE = 8  # cards of a node, over which the fast link reaches


@dataclass(frozen=True)
class Machine:
    """What a step's counts are divided by.

    Attributes:
        flops: FLOP/s that matrix products reach, of one card or thread.
        bandwidth: bytes/s of its memory that operations reach.
        call, one_pass: seconds of an operation and of a pass beside what it computes and moves.
        link, network: bytes/s that a card receives from its node, and from other nodes; `latency` seconds of a collective.
        memory: bytes of a card, 0 where it is not stated.
    """

    name: str
    flops: float
    bandwidth: float
    call: float
    one_pass: float
    link: float
    network: float
    latency: float
    memory: float = 0.0

    def wire(self, cards: int) -> float:
        """Bytes/s that a card receives where so many take part."""
        return self.link if cards <= NODE else self.network


@dataclass(frozen=True)
class Card:
    """Public figures: dense bf16 FLOP/s, memory in bytes/s and bytes, one direction of NVLink and of the node's network for a
    card in bytes/s."""

    flops: float
    bandwidth: float
    memory: float
    link: float
    network: float


# NVIDIA's data sheets (A100 80GB SXM4, H100 SXM5, H200 SXM; the H800 is an H100 with 400 GB/s of NVLink) and DGX user guides:
# one port of InfiniBand a card, of 200 Gb/s (A100) or 400 Gb/s
CARDS = {
    "A100": Card(312e12, 2.039e12, 80 * GIGA, 300 * GIGA, 25 * GIGA),
    "H800": Card(989e12, 3.35e12, 80 * GIGA, 200 * GIGA, 50 * GIGA),
    "H100": Card(989e12, 3.35e12, 80 * GIGA, 450 * GIGA, 50 * GIGA),
    "H200": Card(989e12, 4.8e12, 141 * GIGA, 450 * GIGA, 50 * GIGA),
}
# assumed, not measured: shares of those figures, and seconds
CARD_FLOPS, CARD_BANDWIDTH, CARD_LINK, CARD_CALL, CARD_PASS, CARD_LATENCY = 0.6, 0.7, 0.7, 5e-6, 1e-3, 3e-5

# of this CPU's peaks, by `python benchmarks/step_model.py`; a test holds them to the stored measurements
CPU_FLOPS, CPU_BANDWIDTH, CPU_CALL, CPU_PASS = 0.809, 0.984, 3.94e-6, 4.43e-3
CPU_LINK, CPU_LATENCY = 6.68e8, 2.17e-4


def card_machine(name: str) -> Machine:
    """A card of CARDS at the assumed utilisations.

    Raises:
        TrainError: another name.
    """
    require(name in CARDS, "card", repr(name), f"is not known; take one of {', '.join(CARDS)}")
    card = CARDS[name]
    return Machine(
        name,
        CARD_FLOPS * card.flops,
        CARD_BANDWIDTH * card.bandwidth,
        CARD_CALL,
        CARD_PASS,
        CARD_LINK * card.link,
        CARD_LINK * card.network,
        CARD_LATENCY,
        card.memory,
    )


def this_machine() -> Machine:
    """This CPU with the threads that torch has: peaks measured now, in less than a second, times the fitted shares."""
    flops, bandwidth = measured_peaks()
    return Machine(
        f"this CPU, {torch.get_num_threads()} threads",
        CPU_FLOPS * flops,
        CPU_BANDWIDTH * bandwidth,
        CPU_CALL,
        CPU_PASS,
        CPU_LINK,
        CPU_LINK,
        CPU_LATENCY,
    )


def measured_peaks(clock: Callable[[], float] = time.perf_counter, repeats: int = 5) -> tuple[float, float]:
    """FLOP/s of a large fp32 matrix product and bytes/s of a copy that no cache holds, the best of some tries."""
    left, long = torch.randn(1024, 1024), torch.randn(2**24)
    copy = torch.empty_like(long)
    product = min(_timed(lambda: left @ left, clock) for _ in range(repeats))
    moved = min(_timed(lambda: copy.copy_(long), clock) for _ in range(repeats))
    return 2 * left.shape[0] ** 3 / product, 2 * long.numel() * long.element_size() / moved


def _timed(way: Callable[[], object], clock: Callable[[], float]) -> float:
    begun = clock()
    way()
    return clock() - begun
