"""Small local checkpoints with a text tokenizer, made on the spot: no hub."""

import sys
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

WORDS = ["user", ":", "assistant", "the", "liked", "items", ",", "say", "next", "please", "?"]
PROMPT = "the user liked items : {history} , say the next please ?"
CHAT = (
    "{% for m in messages %}{{ m['role'] }} : {{ m['content'] }} {% endfor %}"
    "{% if add_generation_prompt %}assistant : {% endif %}{% if enable_thinking is false %}say , {% endif %}"
)


def text_tokenizer(chat: bool = True, names: tuple[str, ...] = ()) -> PreTrainedTokenizerFast:
    """A word tokenizer with a chat template; `names` are added tokens, in this order."""
    special = ["<unk>", "<pad>", "<eos>"]
    table = {word: row for row, word in enumerate([*special, *WORDS])}
    inner = Tokenizer(models.WordLevel(table, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", pad_token="<pad>", eos_token="<eos>")
    tokenizer.chat_template = CHAT if chat else None
    tokenizer.add_tokens(list(names))
    return tokenizer


def text_lm(kind: str, rows: int, seed: int = 0, tied: bool = True) -> Any:
    """A tiny random LM with its weights scaled up: grouped queries in qwen3 and llama."""
    shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
    common = {"vocab_size": rows, "tie_word_embeddings": tied, "bos_token_id": None, "eos_token_id": 2, "pad_token_id": 1}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if kind == "qwen3":
            lm = Qwen3ForCausalLM(Qwen3Config(**shape, **common, num_key_value_heads=2, head_dim=8))
        elif kind == "llama":
            lm = LlamaForCausalLM(LlamaConfig(**shape, **common, num_key_value_heads=2))
        else:
            lm = GPT2LMHeadModel(GPT2Config(**common, n_embd=16, n_layer=2, n_head=2, n_positions=256))
    with torch.no_grad():
        for name, weight in lm.named_parameters():
            if "norm" not in name and "ln_" not in name:
                weight.mul_(8)
    return lm


def text_checkpoint(folder: Path, kind: str = "qwen3", tied: bool = True, padding: int = 0, **tokenizer: Any) -> Path:
    """A saved LM and tokenizer; `padding` further rows of the embedding stand for no token."""
    words = text_tokenizer(**tokenizer)
    words.save_pretrained(folder)
    text_lm(kind, len(words) + padding, tied=tied).save_pretrained(folder)
    return folder


if __name__ == "__main__":  # text_world.py FOLDER leaves a tokenizer there whose prompts may end in a thought
    text_tokenizer(names=("</think>",)).save_pretrained(sys.argv[1])
