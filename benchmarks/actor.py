"""Forward and backward of the actor: rows dropped or not, prompts repeated or shared, logits whole or sliced.

    python benchmarks/run.py --only actor [--quick]

A Qwen3 of 4 layers and width 256 with random weights, responses of R = 4 tokens (one SID), G = 32 rows a prompt or the 2 that
ReCast keeps, on 2 threads in fp32. Three ways to the rows' log-probabilities and the gradient of their sum:

- full: a row repeats its prompt, logits of every position over the whole vocabulary, as verl's actor without rmpad;
- response: the same with logits of the response's positions alone (transformers' `logits_to_keep`);
- ours: `packed_logprobs`, the prompt once for all its rows and logits of a level's own tokens alone.

The rows of a prompt share no SID prefix, so nothing is gained there. `limit` is the token count G (P + R) / (P + 2 (R - 1)) by
which sharing and dropping together can gain at most in layers whose cost is linear. `run.py` lets glibc keep freed memory: page
faults double the time of the widest passes otherwise. Memory is the peak above what was resident before the pass (weights and
gradients were), in bytes of tables that have pages of their own, one process each; the largest takes 8 GB.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that a checkout runs without being installed

import numpy as np
import torch
from harness import Entry, Result, interleaved, main, memory, own_process, restart_peak  # pyright: ignore[reportMissingImports]
from torch import Tensor

from recast_sim.catalog import Catalog
from recast_train.model import ModelConfig, PromptTokens, SidModel, build_model
from recast_train.model.shared_prompts import packed_logprobs, repeated_logprobs, shared_hidden

G, KEPT, LEVELS, ITEMS, THREADS = 32, 2, 4, 4096, 2
SIZE: Literal["tiny", "small"] = "small"  # hidden 256, 4 layers
PROMPTS = {32: 32, 128: 8, 512: 2}  # of a batch, by their length: 1,024 prompt tokens at each
CELLS = tuple((prompt, vocabulary) for vocabulary in (1_024, 26_000) for prompt in PROMPTS)
QUICK_CELLS = ((128, 1_024),)
Way = Callable[["World", int], Tensor]


class World:
    """A model, prompts of so many tokens and G leaves for each whose first codes differ."""

    def __init__(self, prompt: int, vocabulary: int, prompts: int) -> None:
        rng, code = np.random.default_rng(0), vocabulary // LEVELS
        catalog = Catalog.from_codes(rng.integers(0, code, (ITEMS, LEVELS)), (code,) * LEVELS)
        self.model: SidModel = build_model(catalog, ModelConfig(size=SIZE), 0)
        tokens = torch.from_numpy(rng.integers(int(self.model.vocabulary.level_tokens[0][0]), vocabulary, (prompts, prompt)))
        self.prompts = PromptTokens(tokens, torch.ones_like(tokens, dtype=torch.bool))
        first = np.unique(catalog.leaf_codes[:, 0], return_index=True)[1]
        self.leaf_PG = torch.from_numpy(np.stack([rng.permutation(first)[:G] for _ in range(prompts)]))

    def rows(self, kept: int) -> tuple[Tensor, Tensor, Tensor]:
        """Prompt and leaf of each row, and the whole sequences (N, P + R)."""
        prompt_N = torch.arange(len(self.leaf_PG)).repeat_interleave(kept)
        leaf_N = self.leaf_PG[:, :kept].flatten()
        tokens_NL = self.model.table("leaf_tokens")[leaf_N]
        return prompt_N, leaf_N, torch.cat([self.prompts.tokens_PT[prompt_N], tokens_NL], 1)


def _chosen(logits_NLV: Tensor, ids: Tensor) -> Tensor:
    return logits_NLV.log_softmax(-1).gather(-1, ids[:, -LEVELS:, None])[..., 0]


def full(world: World, kept: int) -> Tensor:
    ids = world.rows(kept)[2]
    return _chosen(world.model.lm(input_ids=ids, use_cache=False).logits[:, -LEVELS - 1 : -1], ids)


def response(world: World, kept: int) -> Tensor:
    ids = world.rows(kept)[2]
    return _chosen(world.model.lm(input_ids=ids, use_cache=False, logits_to_keep=LEVELS + 1).logits[:, :-1], ids)


def ours(world: World, kept: int) -> Tensor:
    prompt_N, leaf_N, _ = world.rows(kept)
    return packed_logprobs(world.model, world.prompts, prompt_N, leaf_N)


def shared_whole(world: World, kept: int) -> Tensor:
    """Our pass with logits over the whole vocabulary: only to check `ours` against the other ways."""
    ids = world.rows(kept)[2]
    hidden_PRED = shared_hidden(world.model, world.prompts, ids[:, -LEVELS:].unflatten(0, (-1, kept)))
    return _chosen(world.model.lm.lm_head(hidden_PRED.flatten(0, 1)), ids)


def repeated(world: World, kept: int) -> Tensor:
    """Repeated prompts with the level's own logits: only to check `ours`."""
    prompt_N, leaf_N, _ = world.rows(kept)
    return repeated_logprobs(world.model, world.prompts, prompt_N, leaf_N)


WAYS: dict[str, Way] = {"full": full, "response": response, "ours": ours}


def passed(way: Way, world: World, kept: int) -> Callable[[], None]:
    """One forward and backward pass; rows weigh differently, so that nothing cancels."""

    def run() -> None:
        world.model.zero_grad()
        logprob_NL = way(world, kept)
        (torch.linspace(-1.0, 1.3, len(logprob_NL))[:, None] * logprob_NL).sum().backward()

    return run


def check(world: World, kept: int) -> float:
    """Largest relative difference of the gradients of ways that compute the same: over the whole vocabulary, over a level's.

    Raises:
        SystemExit: one above 1e-3.
    """
    apart = 0.0
    for ways in ((full, response, shared_whole), (repeated, ours)):
        found = []
        for way in ways:
            passed(way, world, kept)()
            gradients = [weight.grad for weight in world.model.parameters() if weight.grad is not None]
            found.append(torch.cat([gradient.flatten() for gradient in gradients]))
        apart = max(apart, *(float((other - found[0]).norm() / found[0].norm()) for other in found[1:]))
    if apart > 1e-3:
        raise SystemExit(f"the ways disagree: gradients are {apart:.1e} apart")
    return apart


def activations(way: str, kept: int, prompt: int, vocabulary: int) -> int:
    """Bytes at the peak of a pass above what was resident before it."""
    world, small = World(prompt, vocabulary, PROMPTS[prompt]), World(8, vocabulary, 1)
    small.model = world.model
    passed(WAYS[way], small, KEPT)()
    before = restart_peak()  # gradients, and what the libraries load, are resident from here on
    WAYS[way](world, kept).sum().backward()
    return memory("VmHWM") - before


def measure(quick: bool) -> Result:
    """Times of every cell, memory of the largest."""
    torch.set_num_threads(THREADS)
    table, apart = [], []
    for prompt, vocabulary in QUICK_CELLS if quick else CELLS:
        world = World(prompt, vocabulary, PROMPTS[prompt])
        apart.append(check(world, KEPT))
        ways = {f"{name} {kept}": passed(way, world, kept) for name, way in WAYS.items() for kept in (G, KEPT)}
        seconds = interleaved(ways, 1)
        limit = G * (prompt + LEVELS) / (prompt + KEPT * (LEVELS - 1))
        table.append({"prompt": prompt, "vocabulary": vocabulary, "prompts": PROMPTS[prompt], "limit": limit} | seconds)
    largest = {} if quick else {name: _activations(name, CELLS[-1]) for name in table[0] if name.split()[0] in WAYS}
    notes = [
        "Columns after `limit`: seconds of a pass, by way and rows a prompt.",
        f"Gradients at most {max(apart):.1e} apart.",
    ]
    return Result(entries(table, largest), table, {"threads": THREADS, "rows": G, "kept": KEPT, "response": LEVELS}, notes)


def entries(table: list[dict[str, float]], largest: dict[str, int]) -> list[Entry]:
    """Ratios of a table's columns; of peaks, by column, in the largest cell."""
    found = []
    for name in ("full", "response"):
        least = min(row[f"{name} {G}"] / row[f"{name} {KEPT}"] for row in table)
        found.append(Entry(f"claim 5: dropping rows alone, {name} logits, least of the cells", least, "x", 13))
    for row in table:
        cell, best = f"prompt {row['prompt']}, vocabulary {row['vocabulary']}", row[f"ours {KEPT}"]
        found.append(
            Entry(f"{cell}: prompts shared, no row dropped, against response", row[f"response {G}"] / row[f"ours {G}"], "x")
        )
        found.append(Entry(f"claim 5: {cell}: rows dropped where prompts are shared", row[f"ours {G}"] / best, "x"))
        target = 22 if row["prompt"] >= 128 else None
        found.append(Entry(f"{cell}: shared and dropped against response", row[f"response {G}"] / best, "x", target))
        target = 40 if (row["prompt"], row["vocabulary"]) == CELLS[-1] else None
        found.append(Entry(f"{cell}: shared and dropped against full", row[f"full {G}"] / best, "x", target))
    if largest:
        prompt, vocabulary = CELLS[-1]
        cell = f"activations at their peak, prompt {prompt}, vocabulary {vocabulary}"
        found += [Entry(f"{cell}: {name}", peak / 2**20, "MiB") for name, peak in largest.items()]
        for name in WAYS:
            saved = 100 * (1 - largest[f"{name} {KEPT}"] / largest[f"{name} {G}"])
            found.append(Entry(f"claim 7: {cell}: saved by dropping rows, {name}", saved, "%"))
        share = largest[f"ours {KEPT}"] / largest[f"full {G}"]
        found.append(Entry(f"{cell}: shared and dropped by full", 100 * share, "%", 2, at_least=False))
    return found


def _activations(column: str, cell: tuple[int, int]) -> int:
    return own_process(__file__, "--activations", *column.split(), *map(str, cell), own_pages=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--activations"]:
        torch.set_num_threads(THREADS)
        print(json.dumps(activations(sys.argv[2], *map(int, sys.argv[3:]))))
        sys.exit(0)
    sys.exit(main(measure, __doc__))
