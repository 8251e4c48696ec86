"""What a run would take, before it is started: data, tokens, memory, disk, hours. No weight is read, no semantic ID made.

Sizes come from the model itself on torch's meta device, and what a pass keeps for its backward from the tensors that autograd
would save there; attention scores are left out, as no fused kernel keeps them.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recast_sim.catalog import Catalog
from recast_train.data import Prompts, Source, load_source
from recast_train.engine.engine_config import launched_world
from recast_train.model.build import empty_lm, vocabulary_of
from recast_train.model.vocabulary import Vocabulary
from recast_train.pipeline.given_start import sids_of
from recast_train.pipeline.recipe import RealConfig, parse_methods
from recast_train.pipeline.step_forecast import sequences_of, step_forecast
from recast_train.semantic_id import given_table, make_sids
from recast_train.step_model.machine import CardName, card_machine, this_machine
from recast_train.step_model.net import Net

_LOOKED_AT = 512  # train prompts whose length is measured
_COPIES = 4  # of the weights in training: themselves, gradients, AdamW's two averages


def forecast(
    config: RealConfig, root: Path, tokens_per_second: float | None = None, card: CardName | None = None
) -> dict[str, Any]:
    """Sizes of a recipe's run, as a table of numbers.

    Args:
        root: where the run would lie.
        tokens_per_second: of one process in training, as a short run shows them; None leaves the hours open.
        card: that a step's seconds are of; None takes this machine's CPU as it is measured now.

    Raises:
        DataError, RunError, SemanticIdError, TrainError: what the run itself would raise of its data, tokenizer and checkpoint.
    """
    source, world = load_source(config.data), launched_world(config.engine)
    codes, sizes, stand_in = _codes(config, source)
    vocabulary = vocabulary_of(Catalog.from_codes(codes, sizes), config.model)
    lm = empty_lm(config.model, vocabulary)
    length = _lengths(vocabulary, source.train)
    window = config.sft.window * len(sizes) + len(vocabulary.prefix)
    positions = _positions(config, world, window, length["max"], len(sizes))
    tokens = _tokens(config, length["mean"], window, len(sizes))
    weights = sum(table.numel() * table.element_size() for table in lm.parameters())
    parts = len(parse_methods(config.methods))
    disk = weights * (1 + parts) * _COPIES
    return {
        "data": {"items": len(source.items), **{name: len(source.split(name)) for name in ("train", "validation", "test")}},
        "semantic_ids": {"sizes": list(sizes), "stand_in": stand_in, "new_tokens": vocabulary.added},
        "prompt_tokens": length,
        "parameters": sum(table.numel() for table in lm.parameters()),
        "processes": world,
        "missing_device": config.device == "cuda" and card is None and not torch.cuda.is_available(),
        "memory": _memory(config, lm, weights, positions, int(length["max"])),
        "rollout_cache": _cache(lm, config, world, length["max"], len(sizes)),
        "step": step_forecast(config, Net.of_lm(lm), length["mean"], sizes, card_machine(card) if card else this_machine()),
        "steps": {"supervised": config.sft.last, "rl": config.rl.steps * parts},
        "tokens": tokens,
        "hours": None if tokens_per_second is None else sum(tokens.values()) / tokens_per_second / world / 3600,
        "disk": {"bytes": disk, "free": shutil.disk_usage(there(root)).free},
    }


def _codes(config: RealConfig, source: Source) -> tuple[NDArray[np.int64], tuple[int, ...], bool]:
    """The semantic IDs that are given, else any of the sizes that are asked for: (I, L), sizes, and whether they stand in."""
    sids = sids_of(config.start, config.sids, source)
    if source.sids is not None or sids.path is not None:
        table = given_table(source.sids, sids.collisions) if source.sids is not None else make_sids(sids, source.dataset, 0)
        return table.codes_IL, table.sizes, False
    sizes, items = list(sids.sizes), len(source.items)
    room = int(np.prod(sizes))
    if sids.collisions in (None, "level"):
        sizes.append(-(-items // room) + 1)  # at least so many items share their codes
    codes = np.stack(np.unravel_index(np.arange(items) % int(np.prod(sizes)), sizes), 1)
    return codes, tuple(sizes), True


def _lengths(vocabulary: Vocabulary, train: Prompts) -> dict[str, float]:
    some = train.take(np.linspace(0, len(train) - 1, min(len(train), _LOOKED_AT)).astype(int))
    length_P = vocabulary.encode(some.history_NH, chat_P=some.chat_N).length_P
    return {"mean": float(length_P.double().mean()), "max": int(length_P.max())}


def _positions(config: RealConfig, world: int, window: int, longest: float, levels: int) -> dict[str, int]:
    """Positions of one forward and backward pass on a rank, at most; a prompt stands there once for all its rows."""
    sequences, rows = sequences_of(config.rl)
    group = int(longest) + config.rl.rollout.thought.max_tokens + rows * levels
    groups = -(-sequences // world)
    if limit := config.rl.micro_batch_tokens:
        groups = min(groups, max(1, limit // group))
    return {"supervised": -(-config.sft.batch // world) * window, "rl": groups * group}


def _tokens(config: RealConfig, prompt: float, window: int, levels: int) -> dict[str, float]:
    """Tokens that are computed, the backward pass not counted anew; RL's update at most, where every row is kept."""
    sequences, each = sequences_of(config.rl)
    groups = sequences * config.rl.steps * len(parse_methods(config.methods))
    rows, prompt = groups * each, prompt + config.rl.rollout.thought.max_tokens
    passes = config.rl.updates_per_batch * (2 if config.rl.objective.kl else 1)
    return {
        "supervised": config.sft.last * config.sft.batch * window,
        "rollouts": groups * prompt + rows * levels,
        "updates": (groups * prompt + rows * levels) * passes,
    }


def _memory(
    config: RealConfig, lm: Any, weights: int, positions: Mapping[str, int], length: int
) -> dict[str, dict[str, float]]:
    """Bytes of a process in each kind of training, without what the allocator keeps beside them."""
    shards = launched_world(config.engine) if config.engine.strategy == "fsdp2" else 1
    each = kept_for_backward(lm, 1, length) / length
    each /= 2 if config.engine.precision == "bf16" and config.model.precision == "fp32" else 1
    found = {}
    for name, count in positions.items():
        reference = weights if name == "rl" and config.rl.objective.kl else 0
        found[name] = {"weights": (_COPIES * weights + reference) / shards, "activations": each * count}
    return found


@torch.enable_grad()
def kept_for_backward(lm: Any, rows: int, length: int) -> int:
    """Bytes that autograd keeps of a forward pass over (rows, length) tokens, weights and attention scores not counted."""
    own = {table.untyped_storage()._cdata for table in (*lm.parameters(), *lm.buffers())}
    kept: dict[int, int] = {}

    def pack(table: Tensor) -> Tensor:
        scores = table.dim() > 2 and table.shape[-1] == table.shape[-2] == length
        if table.untyped_storage()._cdata not in own and not scores:
            kept[table.untyped_storage()._cdata] = table.untyped_storage().nbytes()
            alive.append(table)  # a storage that is let go might give its place to the next one
        return table

    alive: list[Tensor] = []
    place: dict[str, Any] = {"device": next(lm.parameters()).device}
    given = {
        "input_ids": torch.zeros(rows, length, dtype=torch.int64, **place),
        "position_ids": torch.zeros(rows, length, dtype=torch.int64, **place),
        "attention_mask": torch.zeros(rows, 1, length, length, dtype=lm.dtype, **place),
    }
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda table: table):
        lm(**given, use_cache=False)
    return sum(kept.values())


def _cache(lm: Any, config: RealConfig, world: int, prompt: float, levels: int) -> float:
    """Bytes of keys and values while groups are drawn: a prompt's once, a rollout's own tokens."""
    shape = lm.config
    width = getattr(shape, "head_dim", None) or shape.hidden_size // shape.num_attention_heads
    heads = getattr(shape, "num_key_value_heads", None) or shape.num_attention_heads
    each = 2 * shape.num_hidden_layers * heads * width * next(lm.parameters()).element_size()
    sequences, rows = sequences_of(config.rl)
    return -(-sequences // world) * (prompt + config.rl.rollout.thought.max_tokens + rows * levels) * each


def there(root: Path) -> Path:
    return next(folder for folder in (root, *root.absolute().parents) if folder.exists())
