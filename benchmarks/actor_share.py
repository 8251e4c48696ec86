"""The actor's step against the machine: what it reaches of the FLOPs a second of a large matrix product of the same run.

    python benchmarks/actor_share.py [--quick] [--json]

Forward, backward and AdamW of a Qwen3 of 20 M parameters in fp32 on 2 threads: 32 prompts of 49 tokens, computed once for all
their rows, SIDs of 3 tokens; on the 32 rows that grpo trains on and on the 2 of recast. FLOPs are those of matrix products as
torch counts them, and the clock holds everything else too: attention's softmax, norms, the optimiser.
"""

import sys

import torch
from growth import actor
from harness import Entry, Result, interleaved, main
from world import GROUP, HISTORY, STEP_ITEMS, STEP_SIZES, flops, random_catalog, random_model, random_prompts

from recast_train.model import ModelConfig

PROMPTS, THREADS, EDGE = 32, 2, 2048
MODEL = ModelConfig(size="base", dropout=0.0, attention_dropout=0.0)


def measure(quick: bool) -> Result:
    """Medians of steps in turn with the matrix product. Quick: an eighth of the prompts, without targets."""
    torch.set_num_threads(THREADS)
    catalog, prompts = random_catalog(STEP_ITEMS, STEP_SIZES), PROMPTS // 8 if quick else PROMPTS
    model = random_model(catalog, MODEL)
    tokens, square = random_prompts(model, catalog, prompts, HISTORY), torch.randn(EDGE, EDGE)
    steps = {f"{rows} rows": actor(model, tokens, rows) for rows in (GROUP, 2)}
    product = {"matrix product": lambda: square @ square}
    seconds = interleaved(steps | product, 1 if quick else 5)
    peak = 2 * EDGE**3 / seconds["matrix product"]
    table = []
    for name, step in steps.items():
        counted = flops(step)
        share = counted / seconds[name] / peak
        table.append({"a prompt": name, "ms": 1e3 * seconds[name], "GFLOP": counted / 1e9, "of the matrix product": share})
    entries = [
        Entry(
            f"actor step of 20 M parameters, {row['a prompt']} a prompt: FLOPs a second against a matrix product's",
            100 * row["of the matrix product"],
            "%",
            None if quick else 50,
        )
        for row in table
    ]
    settings = {"prompts": prompts, "threads": THREADS, "parameters": model.parameter_count, "gflops peak": peak / 1e9}
    return Result(entries, table, settings)


if __name__ == "__main__":
    sys.exit(main(measure, __doc__))
