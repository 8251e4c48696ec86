"""Reads a causal LM from a local transformers folder, and writes a trained one as such a folder: safetensors alone."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from recast_sim.runs import atomic_directory
from recast_train.model.model_config import TrainError, first_line, require
from recast_train.model.sid_model import SidModel
from recast_train.model.vocabulary import PromptTokens, Vocabulary

FIELD = "ModelConfig.checkpoint"
_LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}


def load_lm(folder: Path, dtype: torch.dtype, attention: str, attention_dropout: float) -> Any:
    """A causal LM of a local folder: no hub, no pickle, no code from the folder.

    Raises:
        TrainError: no such folder, no safetensors, weights that do not fit the config, or an architecture whose attention is
            not plain causal (sliding windows, recurrent layers) or has no attention_dropout to set.
    """
    from transformers import AutoModelForCausalLM

    config, local = _read_config(folder, attention_dropout), _LOCAL
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            attn_implementation=attention,
            use_safetensors=True,
            output_loading_info=True,
            **local,
        )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise TrainError(f"{FIELD}: {folder} does not load ({first_line(error)}); save the model again") from error
    lm, found = loaded
    missing = sorted(found["missing_keys"]) + sorted(map(str, found["mismatched_keys"]))
    require(not missing, FIELD, folder, f"lacks weights that its config asks for, {missing[:1]}; save the model again")
    return lm


def unloaded_lm(folder: Path, dtype: torch.dtype, attention_dropout: float) -> Any:
    """The LM that a folder's config describes, on torch's default device; its weights are not read. Raises TrainError."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_config(_read_config(folder, attention_dropout), dtype=dtype, attn_implementation="sdpa")


def _read_config(folder: Path, attention_dropout: float) -> Any:
    from transformers import AutoConfig

    _check_folder(folder)
    try:
        config = AutoConfig.from_pretrained(folder, **_LOCAL)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise TrainError(f"{FIELD}: {folder} does not load ({first_line(error)}); save the model again") from error
    _check_architecture(config, attention_dropout, folder)
    if hasattr(config, "attention_dropout"):
        config.attention_dropout = attention_dropout
    return config


def check_sid_checkpoint(lm: Any, sizes: tuple[int, ...], tokens: int, folder: Path) -> None:
    """A checkpoint under a pure SID vocabulary must have been trained on codes of the same sizes. Raises TrainError."""
    own, rows = getattr(lm.config, "sid_sizes", None), len(lm.get_input_embeddings().weight)
    mend = f"was trained on SIDs of sizes {own} ({rows} tokens), the catalog has {list(sizes)} ({tokens} tokens); "
    mend += "use its SIDs, or vocabulary 'text' for a text model"
    require(own is not None and tuple(own) == tuple(sizes) and rows == tokens, FIELD, folder, mend)


def check_rows(lm: Any, vocabulary: Vocabulary, folder: Path) -> None:
    """SID tokens that the tokenizer brings must have rows in the checkpoint: new ones would be random. Raises TrainError."""
    rows = len(lm.get_input_embeddings().weight)
    beyond = [int(t) for tokens in vocabulary.level_tokens for t in tokens if rows <= t < vocabulary.known]
    mend = f"has {rows} rows, and none for the tokenizer's token {beyond[:1]}; save model and tokenizer together"
    require(not beyond, FIELD, folder, mend)


def check_logits(model: SidModel, folder: Path) -> None:
    """Compare `level_logits` with the LM's own logits on a few tokens, and a split, checkpointed pass with a plain one.

    Some architectures scale, cap or shift logits after the output matrix, or drop out inside a layer; the slice of the matrix
    would be wrong for them. Raises TrainError.
    """
    sid = model.table("leaf_tokens")[0].tolist()
    tokens = torch.tensor([[*model.vocabulary.prefix, *model.vocabulary.suffix, *sid]], device=model.device)[:, -16:]
    few = PromptTokens(tokens, torch.ones_like(tokens, dtype=torch.bool))
    hidden = model.hidden(few.tokens_PT, few.positions_PT, few.mask()[:, :, 1:]).detach()
    own = torch.cat(model.level_logits([hidden] * model.levels), -1)
    with torch.no_grad():
        # a mask that is added suits every attention, and keeps flash-attn out of it on the CPU
        mask = torch.zeros_like(few.mask(), dtype=model.lm.dtype).masked_fill(~few.mask(), torch.finfo(model.lm.dtype).min)
        whole = model.lm(input_ids=tokens, attention_mask=mask, use_cache=False).logits.float()
    theirs = torch.cat([whole[..., model.table("code_token", level)] for level in range(model.levels)], -1)
    half = model.lm.dtype == torch.bfloat16 or torch.is_autocast_enabled(model.device.type)
    tolerance = (0.02 if half else 1e-4) * float(theirs.abs().max())
    close = torch.allclose(own, theirs, rtol=0, atol=tolerance)
    name = type(model.lm).__name__
    require(
        close, FIELD, folder, f"({name}) does not compute logits as output matrix times hidden state; use another architecture"
    )


def save_pretrained(model: SidModel, folder: Path) -> None:
    """Write the LM, and the tokenizer of a text vocabulary, as a transformers folder that `ModelConfig.checkpoint` reads."""
    with atomic_directory(folder) as temporary:
        model.lm.save_pretrained(temporary)
        if model.vocabulary.tokenizer is not None:
            model.vocabulary.tokenizer.save_pretrained(temporary)


def _check_folder(folder: Path) -> None:
    require(folder.is_dir(), FIELD, folder, "is no folder; give a local one (nothing is fetched from a hub)")
    require((folder / "config.json").is_file(), FIELD, folder, "holds no config.json; save it with save_pretrained")
    safe, pickled = any(folder.glob("*.safetensors")), any(folder.glob("*.bin"))
    mend = (
        "holds weights in pickle (.bin), which can run code; convert them to safetensors"
        if pickled
        else "holds no .safetensors"
    )
    require(safe, FIELD, folder, mend)


def _check_architecture(config: Any, attention_dropout: float, folder: Path) -> None:
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    plain = kinds == {"full_attention"} and not getattr(config, "sliding_window", None)
    name = f"{folder} ({config.model_type})"
    require(
        plain, FIELD, name, "has layers without full attention, which recast's masks would change; use another architecture"
    )
    settable = attention_dropout == 0 or hasattr(config, "attention_dropout")
    require(
        settable, FIELD, name, f"has no attention_dropout to set to {attention_dropout}; set ModelConfig.attention_dropout to 0"
    )
