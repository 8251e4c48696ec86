"""Builds a SidModel: random weights of a shape, or a local checkpoint fitted with SID tokens."""

from typing import Any

import torch
from torch import Tensor

from recast_sim.catalog import Catalog
from recast_sim.runs import derive_seed
from recast_train.model.attention import implementation
from recast_train.model.model_config import ModelConfig, TrainError
from recast_train.model.pretrained import check_logits, check_rows, check_sid_checkpoint, load_lm, unloaded_lm
from recast_train.model.sid_model import SidModel
from recast_train.model.text_vocabulary import load_tokenizer, text_vocabulary
from recast_train.model.vocabulary import BOS_TOKEN, Vocabulary, sid_vocabulary

NOISE = 0.1  # of the old rows' standard deviation, on top of their mean


def build_model(catalog: Catalog, config: ModelConfig, seed: int) -> SidModel:
    """A model on the CPU in evaluation mode; what is random in its weights is drawn from `seed` alone.

    Raises:
        TrainError: see ModelConfig, `load_lm`, `load_tokenizer` and `text_vocabulary`.
    """
    attention, vocabulary = implementation(config.attention), vocabulary_of(catalog, config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "model initialisation"))
        if config.checkpoint is None:
            lm = _fresh(config, vocabulary, attention)
        else:
            lm = load_lm(config.checkpoint, _dtype(config), attention, config.attention_dropout)
            if config.vocabulary == "sid":
                check_sid_checkpoint(lm, catalog.sizes, vocabulary.size, config.checkpoint)
            else:
                check_rows(lm, vocabulary, config.checkpoint)
            _fit_embeddings(lm, vocabulary, derive_seed(seed, "new tokens"))
    if config.vocabulary == "sid":
        lm.config.sid_sizes = list(catalog.sizes)  # an exported folder says what its tokens mean
    if config.gradient_checkpointing:
        enable_checkpointing(lm)
    model = SidModel(lm, catalog, vocabulary, config.dropout).eval()
    if config.checkpoint is not None:
        check_logits(model, config.checkpoint)
    return model


def empty_lm(config: ModelConfig, vocabulary: Vocabulary) -> Any:
    """The LM of a recipe without its weights (torch's meta device): what it would hold, and what a pass would keep.

    Raises:
        TrainError: a checkpoint's folder that is none, or an architecture that is not served.
    """
    with torch.device("meta"):
        if config.checkpoint is None:
            lm = _fresh(config, vocabulary, "sdpa")
        else:
            lm = unloaded_lm(config.checkpoint, _dtype(config), config.attention_dropout)
            if vocabulary.size > len(lm.get_input_embeddings().weight):
                lm.resize_token_embeddings(vocabulary.size, mean_resizing=False)
    if config.gradient_checkpointing:
        enable_checkpointing(lm)
    return lm.train()


def qwen3_config(config: ModelConfig, vocabulary_size: int, **settings: Any) -> Any:
    """transformers' Qwen3Config of a shape, over so many tokens."""
    from transformers import Qwen3Config  # seconds to import; configs and --help do not need it

    shape = config.shape()
    return Qwen3Config(
        vocab_size=vocabulary_size,
        hidden_size=shape.hidden,
        intermediate_size=shape.feed_forward,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        attention_dropout=config.attention_dropout,
        tie_word_embeddings=shape.tied,
        **shape.extra,
        **settings,
    )


def vocabulary_of(catalog: Catalog, config: ModelConfig) -> Vocabulary:
    """The tokens of a recipe's model. Raises TrainError: see `load_tokenizer` and `text_vocabulary`."""
    if config.vocabulary == "sid":
        return sid_vocabulary(catalog)
    folder = config.tokenizer or config.checkpoint
    assert folder is not None  # ModelConfig checks it
    return text_vocabulary(catalog, load_tokenizer(folder), config.prompt)


def _fresh(config: ModelConfig, vocabulary: Vocabulary, attention: str) -> Any:
    from transformers import Qwen3ForCausalLM

    bos = vocabulary.tokenizer.bos_token_id if vocabulary.tokenizer else BOS_TOKEN
    tokens = {"pad_token_id": vocabulary.pad, "bos_token_id": bos, "attn_implementation": attention}
    lm = Qwen3ForCausalLM(qwen3_config(config, vocabulary.size, **tokens))
    for parameter in lm.parameters():  # parameters alone: rotary frequencies stay fp32
        parameter.data = parameter.data.to(_dtype(config))
    return lm


@torch.no_grad()
def _fit_embeddings(lm: Any, vocabulary: Vocabulary, seed: int) -> None:
    """Rows for all tokens of the vocabulary; those of new tokens near the mean of the old ones.

    The mean keeps the new logits at the level of the old ones, so that new tokens neither swallow the softmax nor vanish from
    it; the noise tells the codes apart, which would otherwise tie. A table may hold untrained rows beyond the tokenizer's
    tokens, so rows are new from the tokenizer's end on, not from the table's.
    """
    rows = len(lm.get_input_embeddings().weight)
    if vocabulary.size > rows:
        lm.resize_token_embeddings(vocabulary.size, mean_resizing=False)
    first = min(vocabulary.known, rows) if vocabulary.tokenizer else rows
    generator = torch.Generator().manual_seed(seed)
    tables = {id(table.weight): table.weight for table in (lm.get_input_embeddings(), lm.get_output_embeddings())}
    for weight in tables.values():  # one where they are tied
        _fill(weight, first, vocabulary.size, generator)


def _fill(weight: Tensor, first: int, stop: int, generator: torch.Generator) -> None:
    old = weight[:first].float()
    noise = torch.randn(stop - first, weight.shape[1], generator=generator)
    weight[first:stop] = (old.mean(0) + NOISE * old.std(0) * noise).to(weight.dtype)


def enable_checkpointing(lm: Any) -> None:
    if not lm.supports_gradient_checkpointing:
        raise TrainError(f"ModelConfig.gradient_checkpointing: {type(lm).__name__} does not support it; set it to false")
    renamed = hasattr(lm, "activation_checkpointing_enable")  # in transformers after 5.5
    enable = lm.activation_checkpointing_enable if renamed else lm.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def _dtype(config: ModelConfig) -> torch.dtype:
    return torch.bfloat16 if config.precision == "bf16" else torch.float32
