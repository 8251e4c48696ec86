"""Cost of recast's whole signal, input checks included, against what verl and TRL spend on advantages alone.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/construction.py [--quick] [--json]

All see the same rewards of G = 32 on one torch thread and must agree: grpo with verl and TRL up to rounding, recast with
the plain loop of tests/helpers/signal_oracle in every kept row. Of a signal the clock covers what an update needs: advantages,
plan, learnable and repaired groups, anchor slots. "everything read" adds hits and regimes, which the trainers log.

verl's functions are the installed ones at a response length of 1, their cheapest. TRL computes advantages in the middle of a
method: those lines stand in `construction_peers.py` in our words around TRL's own `nanstd`, and count only while the installed
source holds the expressions that they follow. Loops are clocked once a size, all else in interleaved rounds, by their thread's
processor time: on a busy machine the wall clock would charge the long loops alone for what others run.
"""

import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))  # the loop is the tests' oracle

import numpy as np
import torch
from construction_peers import loop_by_id, trl, verl
from harness import Entry, Result, interleaved, main, timed
from signal_oracle import recast_loop  # pyright: ignore[reportMissingImports]
from torch import Tensor

from recast_sim.signal import Signal, SignalConfig, construct

G, HIT_RATE, SCORES = 32, 0.0054, (0.0, 0.01, 0.1)
SIZES = {64: 60, 1024: 40, 16384: 9}  # groups: measured rounds
QUICK_SIZES = {64: 20, 1024: 20, 16384: 3}
ORACLE_UP_TO = 1024  # groups; the oracle loop takes minutes beyond
STAND_IN = "a stand-in for verl's loop"
Way = Callable[[], object]
Answer = TypeVar("Answer")


def measure(quick: bool) -> Result:
    """Milliseconds of each way at each size, and recast's ratios to verl's loop and to TRL."""
    torch.set_num_threads(1)
    entries, table = [], []
    for groups, rounds in (QUICK_SIZES if quick else SIZES).items():
        times = seconds(groups, rounds)
        table += [
            {"groups": groups, "way": way, "ms": 1e3 * spent, "times recast's": spent / times["recast"]}
            for way, spent in times.items()
        ]
        for peer in ("verl's loop", STAND_IN, "TRL"):
            if peer in times:
                name = f"construction: recast against {peer}, {groups:,} groups"
                entries.append(Entry(name, times[peer] / times["recast"], "x"))
    notes = [] if verl() else ["verl is not installed and was left out; a dict loop of our own, of the same shape, stands in."]
    settings = {"group_size": G, "hit_rate": HIT_RATE, "threads": 1, "dtype": "float32"}
    return Result(entries, table, settings, [*notes, *filter(None, [trl()[1]])])


def seconds(groups: int, rounds: int) -> dict[str, float]:
    """Seconds of each way on one batch, after a check that they agree."""
    generator = torch.Generator().manual_seed(groups)
    rewards = (torch.rand(groups, G, generator=generator) < HIT_RATE).float()
    scores = torch.tensor(SCORES)[torch.randint(len(SCORES), rewards.shape, generator=generator)]
    anchors = torch.ones(groups, dtype=torch.bool)

    def recast() -> Signal:
        return construct("recast", rewards, scores, has_anchor_P=anchors)

    quick_ways: dict[str, Way] = {
        "recast": lambda: _needed(recast()),
        "recast, everything read": lambda: _everything(recast()),
        "grpo": lambda: _needed(construct("grpo", rewards)),
        "copying rewards and scores": lambda: (rewards.clone(), scores.clone()),
    }
    peers, (name, loop) = _peers(rewards)
    for peer, way in peers.items():
        _agree(peer, rewards, way())
    spent, advantages = _once(loop)
    _agree(name, rewards, advantages)
    loops = {name: spent}
    if groups <= ORACLE_UP_TO:
        loops["Python loop over recast's groups"], kept = _once(
            lambda: recast_loop(rewards, scores, torch.ones_like(rewards), anchors)[1]
        )
        if recast().plan.rows_N.tolist() != kept:
            raise SystemExit("construction: recast and the loop over its groups disagree about the kept rows")
    return interleaved(quick_ways | peers, rounds, time.thread_time) | loops


def _once(loop: Callable[[], Answer]) -> tuple[float, Answer]:
    """Seconds of one call, and what it gave."""
    answers: list[Answer] = []
    spent = timed(lambda: answers.append(loop()), time.thread_time)
    return spent, answers[0]


def _peers(rewards: Tensor) -> tuple[dict[str, Callable[[], Tensor]], tuple[str, Callable[[], Tensor]]]:
    """Others' ways to the advantages of these rewards, and the name and way of the loop."""
    flat, column = rewards.view(-1), rewards.view(-1, 1).clone()
    ids = np.repeat(np.array([str(uuid.UUID(int=p)) for p in range(len(rewards))], dtype=object), G)
    numbers = np.repeat(np.arange(len(rewards)), G)
    found = verl()
    name, loop = ("verl's loop", found["verl's loop"]) if found else (STAND_IN, loop_by_id)
    peers = {key: lambda way=way: way(column, G) for key, way in trl()[0].items()}
    if found:
        vectorised = found["verl vectorised"]
        peers |= {
            "verl vectorised": lambda: vectorised(flat, ids),
            "verl vectorised, integer ids": lambda: vectorised(flat, numbers),
        }
    return peers, (name, lambda: loop(flat, ids))


def _needed(signal: Signal) -> tuple[object, ...]:
    return signal.advantages_PG, signal.plan, signal.learnable_P, signal.repaired_P, signal.anchor_slot_P


def _everything(signal: Signal) -> tuple[object, ...]:
    counted = signal.hits_before_P, signal.hits_after_P, signal.regime_before, signal.regime_after
    return *_needed(signal), signal.positive_P, signal.negative_P, signal.active_PG, *counted


def _agree(peer: str, rewards: Tensor, theirs: Tensor) -> None:
    config = SignalConfig(std_eps=1e-4 if peer.startswith("TRL") else 1e-6)
    ours = construct("grpo", rewards, config=config).advantages_PG.reshape(-1)
    if not torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5):
        raise SystemExit(f"construction: grpo and {peer} disagree about the advantages")


if __name__ == "__main__":
    sys.exit(main(measure, __doc__))
