"""A step of supervised training: what it reaches of the machine's matrix products, and how much of it is padding.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/supervised.py [--quick] [--json]

Windows as long as the train sequences of a 5-core Amazon data set are (median 5 items, a tail to the window's 21), SIDs of
256 x 256 x 32 codes, forward, backward and AdamW in fp32; the shape of recast_train/recipes/toys-search.toml, and a Qwen3 of
20 M parameters. "Laid out" is what the trainer does: six passes over windows of similar length. "One pass" pads all of them to
the longest. FLOPs are those of matrix products as torch counts them; of real tokens they are that times the share of positions
that are real. The peak is a product of two large matrices in the same process.
"""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from harness import Entry, Result, interleaved, main
from world import flops

from recast_sim.catalog import Catalog, synthetic_codes
from recast_train.model import ModelConfig, build_model
from recast_train.supervised.window_loss import window_loss
from recast_train.supervised.windows import layouts

ITEMS, SIZES, WINDOW, BATCH, EDGE = 11_924, (256, 256, 32), 21, 128, 2048
MODELS = {"toys-search": ModelConfig(hidden=128, layers=3, heads=4, feed_forward=384), "20 M": ModelConfig(size="base")}


def measure(quick: bool) -> Result:
    """Medians of steps in turn with the matrix product. Quick: the first model, few rounds, without targets."""
    rng = np.random.default_rng(0)
    catalog = Catalog.from_codes(synthetic_codes(ITEMS, SIZES, rng), SIZES)
    length_B = (2 + rng.geometric(0.2, BATCH)).clip(max=WINDOW)
    windows_BW = np.where(np.arange(WINDOW) < length_B[:, None], rng.integers(ITEMS, size=(BATCH, WINDOW)), -1)
    layout = {"laid out": layouts(windows_BW), "one pass": [windows_BW[:, : length_B.max()]]}
    real = {name: float(length_B.sum() / sum(part.size for part in parts)) for name, parts in layout.items()}
    entries = [Entry("supervised: positions that are real", 100 * real["laid out"], "%", None if quick else 90)]
    table: list[dict[str, Any]] = []
    for name in list(MODELS)[:1] if quick else MODELS:
        rows = [row | {"real positions": real[row["layout"]]} for row in _rows(name, catalog, layout, 2 if quick else 4)]
        table += rows
        share, least = 100 * rows[0]["of the matrix product"] * real["laid out"], None if quick else 50
        entries += [
            Entry(f"supervised, {name}: FLOPs a second of real tokens against a matrix product's", share, "%", least),
            Entry(f"supervised, {name}: laid out by length against one padded pass", rows[1]["ms"] / rows[0]["ms"], "x"),
            Entry(f"supervised, {name}: real tokens", 1e3 * length_B.sum() * len(SIZES) / rows[0]["ms"], "tokens/s"),
        ]
    return Result(entries, table, {"items": ITEMS, "sizes": SIZES, "batch": BATCH})


def _rows(name: str, catalog: Catalog, layout: dict[str, list[np.ndarray]], repeats: int) -> list[dict[str, Any]]:
    """A row a layout: milliseconds of a step, FLOPs, padding included, and what it reaches of the matrix product."""
    model = build_model(catalog, MODELS[name], 0).train()
    optimiser, square = torch.optim.AdamW(model.parameters(), lr=1e-4), torch.randn(EDGE, EDGE)

    def step(parts: list[np.ndarray]) -> None:
        optimiser.zero_grad()
        items = sum(int((part >= 0).sum()) for part in parts)
        for part in parts:
            (window_loss(model, catalog, part) * (float((part >= 0).sum()) / items)).backward()
        optimiser.step()

    ways: dict[str, Callable[[], object]] = {of: lambda parts=parts: step(parts) for of, parts in layout.items()}
    seconds = interleaved({**ways, "matrix product": lambda: square @ square}, repeats)
    peak, counted = 2 * EDGE**3 / seconds["matrix product"], {of: flops(way) for of, way in ways.items()}
    return [
        {
            "model": name,
            "parameters": model.parameter_count,
            "layout": of,
            "ms": 1e3 * seconds[of],
            "GFLOP": counted[of] / 1e9,
            "of the matrix product": counted[of] / seconds[of] / peak,
        }
        for of in layout
    ]


if __name__ == "__main__":
    sys.exit(main(measure, __doc__))
