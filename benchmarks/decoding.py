"""Beam search constrained to a catalog: the logits of a level's own tokens down a CSR trie, against a look-up a beam.

    python benchmarks/decoding.py [--quick] [--json]

8 prompts x 32 beams, three steps. The look-up is MiniOneRec's way: a dict from each prefix to its legal tokens, asked for every
beam of every step, fills a mask over the whole vocabulary's logits. Two measures: the constraint alone (hidden states are
given, the model is left out) and the whole decode. In the whole decode the look-up runs on our passes of the model, which
compute a prompt once, and once more inside transformers' `generate`, which computes it once a beam. All ways must find the
same beams.
"""

import copy
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from harness import Entry, Result, interleaved, main, timed
from torch import Tensor
from world import random_catalog, random_model, random_prompts

from recast_sim.catalog import Catalog
from recast_train.model import ModelConfig, PromptTokens, SidModel
from recast_train.model.shared_prompts import PromptCache
from recast_train.rollout.beam import sample_beam

PROMPTS, BEAMS, HISTORY = 8, 32, 16
ITEMS = (1_700, 26_000, 1_000_000)
VOCABULARIES = {1_000: (256, 256, 256), 26_000: (8192, 8192, 8192), 150_000: (8192, 8192, 8192)}  # rows: codes of the levels
GENERATED = 26_000  # items of the catalog that transformers' `generate` is run on: it takes seconds a call
INDEXED = ((128, 128, 128), (64, 64, 64, 16))
MODEL = ModelConfig(size="small", dropout=0.0, attention_dropout=0.0)

Legal = dict[tuple[int, ...], list[int]]
Beams = tuple[Tensor, Tensor]  # tokens (P, W, L) and log-probabilities (P, W), best first


def prefix_table(catalog: Catalog, offset: Sequence[int]) -> Legal:
    """Legal next tokens of every prefix, item by item."""
    legal: dict[tuple[int, ...], set[int]] = {}
    for codes in catalog.codes_IL.tolist():
        path = tuple(code + start for code, start in zip(codes, offset, strict=True))
        for level, token in enumerate(path):
            legal.setdefault(path[:level], set()).add(token)
    return {prefix: sorted(tokens) for prefix, tokens in legal.items()}


@torch.no_grad()
def look_up_beams(model: SidModel, cache: Any, legal: Legal, width: int) -> Beams:
    """The same search with a look-up a beam on the logits of the whole vocabulary; `cache` as `sample_beam` takes it.

    As in transformers, a prompt has all its beams from the first step on (one of them alive), and the look-up reads the tokens
    of a beam from a tensor.
    """
    P, V = len(cache.last_PD), len(model.lm.lm_head.weight)
    hidden_PWD = cache.last_PD[:, None].expand(-1, width, -1)
    tokens_PWL, sees_PWE = torch.zeros(P, width, 0, dtype=torch.int64), torch.zeros(P, width, 0, dtype=torch.bool)
    score_PW = torch.tensor([0.0] + [-1e9] * (width - 1)).expand(P, -1)
    for level in range(model.levels):
        logits_PWV = model.lm.lm_head(hidden_PWD)
        mask_PWV = torch.full_like(logits_PWV, -torch.inf)
        for prompt, beams in enumerate(tokens_PWL):
            for beam, path in enumerate(beams):
                mask_PWV[prompt, beam, legal[tuple(path.tolist())]] = 0.0
        step_PWV = (logits_PWV + mask_PWV).log_softmax(-1)
        score_PW, kept_PW = (score_PW[..., None] + step_PWV).flatten(1).topk(width)
        parent_PW1 = (kept_PW // V)[..., None]
        before = tokens_PWL.gather(1, parent_PW1.expand(-1, -1, level))
        tokens_PWL = torch.cat([before, (kept_PW % V)[..., None]], 2)
        if level < model.levels - 1:
            sees_PWE = sees_PWE.gather(1, parent_PW1.expand(-1, -1, sees_PWE.shape[2]))
            if level:
                sees_PWE = torch.cat([sees_PWE, parent_PW1 == torch.arange(width)], 2)
            hidden_PWD = cache.read(tokens_PWL[..., -1], level, sees_PWE)
    return tokens_PWL, score_PW


@dataclass(frozen=True)
class Given:
    """Hidden states of each level instead of a model's: what is left of a decode is the constraint."""

    states: list[Tensor]

    @property
    def last_PD(self) -> Tensor:
        return self.states[0][:, 0]

    def extend(self, level: int, node_PW: Tensor, sees_PWE: Tensor) -> Tensor:
        return self.states[level]

    def read(self, token_PW: Tensor, level: int, sees_PWE: Tensor) -> Tensor:
        return self.states[level + 1]


class Passes(PromptCache):
    """Our passes of the model, fed tokens instead of nodes."""

    def __init__(self, model: SidModel, prompts: PromptTokens) -> None:
        super().__init__(model, prompts)
        self._length_P1 = prompts.length_P[:, None]

    def read(self, token_PW: Tensor, level: int, sees_PWE: Tensor) -> Tensor:
        return self.feed(token_PW, (self._length_P1 + level).expand_as(token_PW), sees_PWE)


def first_tokens(model: SidModel) -> list[int]:
    """The token of code 0 of each level, which those of its other codes follow here."""
    return [int(tokens[0]) for tokens in model.vocabulary.level_tokens]


def our_beams(model: SidModel, cache: Any) -> Beams:
    """The trainer's own search."""
    found = sample_beam(model, cache, BEAMS, 1.0)
    return found.sids_PGL + torch.tensor(first_tokens(model)), found.logprob_PG


def generated_beams(lm: Any, prompts: PromptTokens, legal: Legal, levels: int) -> Beams:
    """transformers' beam search with `prefix_allowed_tokens_fn`, renormalised over the legal tokens."""
    width = prompts.tokens_PT.shape[1]
    found = lm.generate(
        prompts.tokens_PT,
        attention_mask=torch.ones_like(prompts.tokens_PT),
        max_new_tokens=levels,
        do_sample=False,
        num_beams=BEAMS,
        num_return_sequences=BEAMS,
        length_penalty=0.0,
        renormalize_logits=True,
        prefix_allowed_tokens_fn=lambda _, tokens: legal[tuple(tokens[width:].tolist())],
        return_dict_in_generate=True,
        output_scores=True,
    )
    return found.sequences[:, width:].view(-1, BEAMS, levels), found.sequences_scores.view(-1, BEAMS)


def check_same(ways: dict[str, Callable[[], Beams]]) -> None:
    """Refuse ways that differ by more than the order of beams that rounding ties.

    Raises:
        SystemExit: names the way.
    """
    results = {name: way() for name, way in ways.items()}
    tokens_PWL, score_PW = next(iter(results.values()))
    for name, (other_PWL, other_PW) in results.items():
        sets = [sorted(map(tuple, beams)) for beams in (*tokens_PWL.tolist(), *other_PWL.tolist())]
        same = sets[: len(sets) // 2] == sets[len(sets) // 2 :]
        if not same or not torch.allclose(score_PW, other_PW, atol=1e-3):
            raise SystemExit(f"{name} finds other beams")


@torch.no_grad()
def measure_cell(items: int, rows: int, repeats: int, generate: bool) -> dict[str, Any]:
    """One catalog and vocabulary: milliseconds of each way."""
    catalog = random_catalog(items, VOCABULARIES[rows])
    model = random_model(catalog, MODEL, rows)
    legal = prefix_table(catalog, first_tokens(model))
    prompts = random_prompts(model, catalog, PROMPTS, HISTORY)
    generator = torch.Generator().manual_seed(0)
    widths = [1, *[BEAMS] * (model.levels - 1)]
    hidden = model.lm.config.hidden_size
    given = Given([torch.randn(PROMPTS, width, hidden, generator=generator) for width in widths])
    alone = {"ours": lambda: our_beams(model, given), "look-up": lambda: look_up_beams(model, given, legal, BEAMS)}
    whole: dict[str, Callable[[], Beams]] = {
        "ours": lambda: our_beams(model, PromptCache(model, prompts)),
        "look-up": lambda: look_up_beams(model, Passes(model, prompts), legal, BEAMS),
    }
    if generate:
        lm = copy.deepcopy(model.lm)
        lm.set_attn_implementation("sdpa")
        whole["generate"] = lambda: generated_beams(lm, prompts, legal, model.levels)
    check_same(alone)
    check_same(whole)
    ms = {name: 1e3 * seconds for name, seconds in interleaved(alone, repeats).items()}
    whole_ms = {name: 1e3 * seconds for name, seconds in interleaved(whole, max(1, repeats // 3)).items()}
    return {
        "items": items,
        "vocabulary": rows,
        "constraint, ours ms": ms["ours"],
        "look-up a beam ms": ms["look-up"],
        "ratio": ms["look-up"] / ms["ours"],
        "decode, ours ms": whole_ms["ours"],
        "look-up ms": whole_ms["look-up"],
        "ratio of decode": whole_ms["look-up"] / whole_ms["ours"],
        "generate ms": whole_ms.get("generate", ""),
        "ratio to generate": whole_ms["generate"] / whole_ms["ours"] if generate else "",
    }


def measure_index(sizes: Sequence[int], items: int, repeats: int) -> tuple[float, float]:
    """Median seconds to index a table of SIDs, and megabytes of the index beside the table."""
    codes_IL = random_catalog(items, sizes).codes_IL
    seconds = interleaved({"index": lambda: Catalog.from_codes(codes_IL, sizes)}, repeats)["index"]
    catalog = Catalog.from_codes(codes_IL, sizes)
    arrays = [*catalog.node_code, *catalog.child_offset, catalog.leaf_of_item_I]
    return seconds, sum(array.nbytes for array in arrays) / 1e6


def measure(quick: bool) -> Result:
    """Quick: the smaller catalogs and the two ends of the vocabularies, without `generate`."""
    cells = (
        [(ITEMS[0], 1_000), (ITEMS[1], 1_000), (ITEMS[0], 150_000)] if quick else [(i, r) for i in ITEMS for r in VOCABULARIES]
    )
    repeats = {1_000: 15, 26_000: 3, 150_000: 1}  # the ratio of a large vocabulary is in the hundreds, and its look-up slow
    table: list[Mapping[str, Any]] = [
        measure_cell(items, rows, repeats[rows], items == GENERATED and not quick) for items, rows in cells
    ]
    index = {sizes: measure_index(sizes, ITEMS[-1], 5) for sizes in INDEXED}
    large = [row["ratio"] for row, (_, rows) in zip(table, cells, strict=True) if rows >= 26_000]
    entries = [
        Entry("constraint against a look-up a beam, worst", min(row["ratio"] for row in table), "x"),
        Entry("constraint against a look-up a beam, 26,000 codes and more, worst", min(large), "x", 40.0),
        Entry("constraint against a look-up a beam, best", max(row["ratio"] for row in table), "x"),
        Entry("whole decode against the same passes with a look-up, worst", min(row["ratio of decode"] for row in table), "x"),
        Entry("1M items indexed, slowest", max(seconds for seconds, _ in index.values()), "s", 0.1, at_least=False),
        Entry("1M items indexed, largest", max(size for _, size in index.values()), "MB", 25.0, at_least=False),
    ]
    if not quick:
        worst = min(row["ratio to generate"] for row in table if row["ratio to generate"])
        entries.append(Entry("whole decode against transformers' generate, worst", worst, "x"))
        catalog = random_catalog(ITEMS[-1], VOCABULARIES[1_000])
        seconds = timed(lambda: prefix_table(catalog, (0, 256, 512)))
        entries.append(Entry("1M items as a dict of prefixes", seconds, "s"))
    settings = {"prompts": PROMPTS, "beams": BEAMS, "prompt tokens": 1 + 3 * HISTORY, "model": MODEL.size}
    return Result(entries, table, settings)


if __name__ == "__main__":
    sys.exit(main(measure, __doc__))
