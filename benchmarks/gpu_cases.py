"""What benchmarks/gpu.py times: models with random weights at the shapes of Qwen3, and the ways of one actor update.

Axis letters: P prompts, T tokens of a prompt, R rows of a prompt, E tokens of a response, V vocabulary, D hidden width.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from recast_sim.catalog import Catalog, synthetic_codes
from recast_train.model import ModelConfig, PromptTokens, SidModel
from recast_train.model.build import enable_checkpointing, qwen3_config
from recast_train.model.model_config import Size
from recast_train.model.shared_prompts import shared_hidden
from recast_train.model.vocabulary import Vocabulary
from recast_train.rl.cost import attention_flops, causal_pairs, training_flops

LEVELS = 3


@dataclass(frozen=True)
class World:
    """How large everything is. `max_positions` bounds what one pass computes, as trainers bound it by tokens a device."""

    text_tokens: int = 151_936  # Qwen3's vocabulary
    codes: int = 8192  # a level, as OpenOneRec's tokens
    items: int = 100_000
    group_size: int = 32
    max_positions: int = 16_384


@dataclass(frozen=True)
class Case:
    """One model and one length of prompts and responses, in tokens."""

    size: Size
    prompts: int
    prompt: int
    response: int

    def __str__(self) -> str:
        return f"{self.size}, prompt {self.prompt}, response {self.response}"


@dataclass(frozen=True)
class Way:
    """How many rows of a group the actor sees, whether a prompt is computed once, and whether logits are of every position."""

    rows: int
    shared: bool
    full_logits: bool = False

    def __str__(self) -> str:
        logits = ", full logits" if self.full_logits else ""
        return f"{self.rows} rows, prompt {'shared' if self.shared else 'repeated'}{logits}"


def corners(group_size: int) -> list[Way]:
    """The four corners, and before them the two with logits at every position."""
    four = [Way(rows, shared) for shared in (False, True) for rows in (group_size, 2)]
    return [Way(group_size, False, True), Way(2, False, True), *four]


def build(case: Case, world: World, device: torch.device) -> SidModel:
    """A Qwen3 of the case's shape with random weights, bf16 with checkpointed layers on a GPU, fp32 elsewhere."""
    from transformers import Qwen3ForCausalLM

    on_gpu = device.type == "cuda"
    sizes = (world.codes,) * LEVELS
    catalog = Catalog.from_codes(synthetic_codes(world.items, sizes, np.random.default_rng(0)), sizes)
    tokens = tuple(world.text_tokens + level * world.codes + np.arange(world.codes) for level in range(LEVELS))
    vocabulary = Vocabulary(catalog.codes_IL, tokens, 0, (), (), (), (), size=world.text_tokens + LEVELS * world.codes)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16 if on_gpu else torch.float32)
    try:
        with torch.device(device):
            torch.manual_seed(0)
            config = qwen3_config(
                ModelConfig(size=case.size, attention_dropout=0.0), vocabulary.size, attn_implementation="sdpa"
            )
            lm = Qwen3ForCausalLM(config)
    finally:
        torch.set_default_dtype(before)
    if on_gpu:
        enable_checkpointing(lm)
    return SidModel(lm, catalog, vocabulary, dropout=0.0).to(device).eval()


@dataclass(frozen=True)
class Batch:
    """Prompts of one length and their responses (P, G, E)."""

    prompts: PromptTokens
    response_PGE: Tensor

    @classmethod
    def random(cls, case: Case, world: World, device: torch.device) -> "Batch":
        generator = torch.Generator().manual_seed(1)
        tokens = torch.randint(1, world.text_tokens, (case.prompts, case.prompt), generator=generator)
        response = torch.randint(1, world.text_tokens, (case.prompts, world.group_size, case.response), generator=generator)
        prompts = PromptTokens(tokens, torch.ones_like(tokens, dtype=torch.bool)).to(device)
        return cls(prompts, response.to(device))


def logprobs(model: SidModel, batch: Batch, way: Way, world: World) -> Iterator[Tensor]:
    """Log-probabilities (rows, E) of the responses of each micro-batch."""
    T, E = batch.prompts.tokens_PT.shape[1], batch.response_PGE.shape[2]
    response_PRE = batch.response_PGE[:, : way.rows]
    if way.shared:
        some = max(1, world.max_positions // (T + way.rows * (E - 1)))
        for start in range(0, len(response_PRE), some):
            yield _shared(model, batch.prompts.take(slice(start, start + some)), response_PRE[start : start + some])
        return
    response_NE = response_PRE.flatten(0, 1)
    prompt_NT = batch.prompts.tokens_PT.repeat_interleave(way.rows, 0)
    some = max(1, world.max_positions // (T + E - 1))
    for start in range(0, len(response_NE), some):
        rows = slice(start, start + some)
        yield _repeated(model, prompt_NT[rows], response_NE[rows], way.full_logits)


def step(model: SidModel, batch: Batch, way: Way, world: World, optimiser: torch.optim.Optimizer) -> None:
    """One actor update: forward and backward of every kept row, then the optimiser's step."""
    count = len(batch.response_PGE) * way.rows
    optimiser.zero_grad(set_to_none=True)
    for logprob_NE in logprobs(model, batch, way, world):
        sign = torch.ones(len(logprob_NE), device=logprob_NE.device)
        sign[1::2] = -1.0  # one up, one down: a pair
        (-(sign[:, None] * logprob_NE).sum() / count).backward()
    optimiser.step()


@torch.no_grad()
def forward(model: SidModel, batch: Batch, way: Way, world: World) -> None:
    """The old or the reference pass of the same rows."""
    for _ in logprobs(model, batch, way, world):
        pass


def positions(case: Case, way: Way) -> int:
    """Tokens that the language model computes for one update."""
    own = way.rows * (case.response - 1)
    return case.prompts * (case.prompt + own if way.shared else way.rows * case.prompt + own)


def flops(model: SidModel, case: Case, way: Way) -> int:
    """Model FLOPs of one update, by the definition of recast_train.rl.cost."""
    config, own, T = model.lm.config, case.response - 1, case.prompt
    if way.shared:
        pairs = causal_pairs(torch.tensor([T])) + way.rows * (own * T + own * (own + 1) // 2)
    else:
        pairs = way.rows * causal_pairs(torch.tensor([T + own]))
    attention = attention_flops(config.num_hidden_layers, config.num_attention_heads, config.head_dim, case.prompts * pairs)
    return training_flops(model.parameter_count, positions(case, way), attention)


def _repeated(model: SidModel, prompt_NT: Tensor, response_NE: Tensor, full_logits: bool) -> Tensor:
    E = response_NE.shape[1]
    tokens = torch.cat([prompt_NT, response_NE[:, :-1]], 1)
    place = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
    hidden_NQD = model.hidden(tokens, place, None)
    if full_logits:
        return _chosen(model.lm.lm_head(hidden_NQD)[:, -E:], response_NE)
    return _chosen(model.lm.lm_head(hidden_NQD[:, -E:]), response_NE)


def _shared(model: SidModel, prompts: PromptTokens, response_PRE: Tensor) -> Tensor:
    hidden_PRED = shared_hidden(model, prompts, response_PRE)
    return _chosen(model.lm.lm_head(hidden_PRED), response_PRE).flatten(0, 1)


def _chosen(logits_V: Tensor, token: Tensor) -> Tensor:
    """Log-probability (...) of each token under logits (..., V), in fp32."""
    loss = nn.functional.cross_entropy(logits_V.float().flatten(0, -2), token.flatten(), reduction="none")
    return -loss.view(token.shape)


def median_and_peak(way: Callable[[], object], device: torch.device, repeats: int) -> tuple[float, float | None]:
    """Median seconds after a warm-up, and the peak of allocated memory in GiB; None off the GPU."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    way()
    wait()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        way()
        wait()
        times.append(time.perf_counter() - start)
    peak = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None
    return statistics.median(times), peak
