"""A step of supervised training: tokens a second, and how much of what the machine's matrix products reach.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/supervised.py [--quick] [--json]

Windows as long as the train sequences of a 5-core Amazon data set are (median 5 items, a tail to the window's 21), SIDs of
256 x 256 x 32 codes, the shape of recast_train/recipes/toys-search.toml, forward, backward and AdamW in fp32. "Laid out" is
what the trainer does: six passes over windows of similar length. "One pass" pads all of them to the longest. FLOPs are those
of matrix products as torch counts them, padding included; the peak is a product of two 1,024 x 1,024 matrices in the same
process.
"""

import sys

import numpy as np
import torch
from harness import Entry, Result, interleaved, main
from torch.utils.flop_counter import FlopCounterMode

from recast_sim.catalog import Catalog, synthetic_codes
from recast_train.model import ModelConfig, build_model
from recast_train.supervised.window_loss import window_loss
from recast_train.supervised.windows import layouts

ITEMS, SIZES, WINDOW, BATCH, EDGE = 11_924, (256, 256, 32), 21, 128, 1024
MODEL = ModelConfig(hidden=128, layers=3, heads=4, feed_forward=384)


def measure(quick: bool) -> Result:
    """Medians of steps in turn with the matrix product."""
    rng = np.random.default_rng(0)
    catalog = Catalog.from_codes(synthetic_codes(ITEMS, SIZES, rng), SIZES)
    model = build_model(catalog, MODEL, 0).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4)
    length_B = (2 + rng.geometric(0.2, BATCH)).clip(max=WINDOW)
    windows_BW = np.where(np.arange(WINDOW) < length_B[:, None], rng.integers(ITEMS, size=(BATCH, WINDOW)), -1)
    square = torch.randn(EDGE, EDGE)

    def step(parts: list[np.ndarray]) -> None:
        optimiser.zero_grad()
        for part in parts:
            (window_loss(model, catalog, part) * (float((part >= 0).sum()) / length_B.sum())).backward()
        optimiser.step()

    layout = {"laid out": layouts(windows_BW), "one pass": [windows_BW[:, : length_B.max()]]}
    ways = {name: lambda parts=parts: step(parts) for name, parts in layout.items()}
    seconds = interleaved({**ways, "matrix product": lambda: square @ square}, 3 if quick else 20)
    peak, tokens = 2 * EDGE**3 / seconds["matrix product"], int(length_B.sum()) * len(SIZES)
    table, flops = [], {}
    for name, parts in layout.items():
        with FlopCounterMode(display=False) as counter:
            step(parts)
        flops[name] = counter.get_total_flops()
        filled = tokens / (len(SIZES) * sum(part.size for part in parts))
        table.append(
            {
                "layout": name,
                "ms a step": 1e3 * seconds[name],
                "tokens/s": tokens / seconds[name],
                "positions that are items": filled,
                "of the matrix product": flops[name] / seconds[name] / peak,
            }
        )
    entries = [
        Entry("supervised: a step laid out by length against one padded pass", seconds["one pass"] / seconds["laid out"], "x"),
        Entry("supervised: FLOPs a second of a step against a matrix product's", table[0]["of the matrix product"], "x"),
        Entry("supervised: tokens a second", table[0]["tokens/s"], "tokens/s"),
    ]
    settings = {"items": ITEMS, "sizes": SIZES, "batch": BATCH, "parameters": model.parameter_count, "gflops peak": peak / 1e9}
    return Result(entries, table, settings)


if __name__ == "__main__":
    sys.exit(main(measure, __doc__))
