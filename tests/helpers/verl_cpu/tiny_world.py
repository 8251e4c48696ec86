"""A Qwen3 of two layers and 16 prompts over 8 items, as files that verl reads."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import torch
from data_files import SIDS, chat, item_name
from text_world import text_tokenizer
from transformers import Qwen3Config, Qwen3ForCausalLM

from recast_train.adapters.verl.parquet_export import AnswerTokens, export_openonerec

PROMPTS = 16
BEFORE = "\n"


def write_world(folder: Path, thought: bool, head_dim: int = 16) -> None:
    """`folder`/model, a checkpoint, and `folder`/data, what `recast-train export verl` writes."""
    tokenizer = _tokenizer()
    tokenizer.save_pretrained(folder / "model")
    shape: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "head_dim": head_dim}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    ends = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = Qwen3Config(**shape, **heads, **ends, vocab_size=len(tokenizer), tie_word_embeddings=True)
        Qwen3ForCausalLM(config).save_pretrained(folder / "model")
    raw = folder / "raw"
    raw.mkdir()
    for split in ("train", "valid", "test"):
        rows = [chat([str(place % 8), str(place // 3 % 8)], [str((3 * place + 1) % 8)]) for place in range(PROMPTS)]
        pl.DataFrame({"uuid": range(PROMPTS), "messages": map(json.dumps, rows)}, strict=False).write_parquet(
            raw / f"{split}.parquet"
        )
    export_openonerec(raw, folder / "data", AnswerTokens(tokenizer, before=BEFORE, thought=thought), "tiny")


def _tokenizer() -> Any:
    """Words, SIDs, a thought's end, and what verl wants of a Qwen3: a line end and a chat's end that are tokens."""
    parts = sorted({f"{part}>" for item in SIDS for part in item_name(item).split(">")[:-1]})
    return text_tokenizer(names=("<|sid_begin|>", "<|sid_end|>", "</think>", "\n", "<|im_end|>", *parts))
