"""The keys of a model: one of a ladder of Qwen3 shapes with random weights, or a local checkpoint."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from recast_sim.configio import Checked, Share
from recast_sim.errors import RecastError
from recast_sim.field_types import Width

Size = Literal["custom", "tiny", "small", "base", "qwen3-0.6b", "qwen3-1.7b", "qwen3-4b", "qwen3-8b", "qwen3-14b"]
SLOT, CHAT = "{history}", "{chat}"


class TrainError(RecastError):
    """A bad setting of the real trainer, or a loss that is not finite; the message names field, value and fix."""


def require(ok: bool, field: str, value: object, mend: str) -> None:
    """Raise TrainError naming the field, its value and the fix unless `ok`."""
    if not ok:
        raise TrainError(f"{field}: {value} {mend}")


def first_line(error: Exception) -> str:
    """What an error of a library says first, for a message of ours."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


@dataclass(frozen=True)
class Shape:
    """Widths and depth of a Qwen3 model; the rest of its config in `extra`."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    feed_forward: int
    tied: bool
    extra: dict[str, Any]


_LADDER = {"max_position_embeddings": 4096}
_QWEN = {
    "max_position_embeddings": 40960,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
    "rms_norm_eps": 1e-6,
}
_SHAPES = {
    "tiny": Shape(96, 3, 4, 4, 24, 192, False, _LADDER),
    "small": Shape(256, 4, 4, 4, 64, 640, False, _LADDER),
    "base": Shape(512, 6, 8, 8, 64, 1536, False, _LADDER),
    # config.json of Qwen/Qwen3-0.6B, Qwen3-1.7B, Qwen3-4B, Qwen3-8B and Qwen3-14B
    "qwen3-0.6b": Shape(1024, 28, 16, 8, 128, 3072, True, _QWEN),
    "qwen3-1.7b": Shape(2048, 28, 16, 8, 128, 6144, True, _QWEN),
    "qwen3-4b": Shape(2560, 36, 32, 8, 128, 9728, True, _QWEN),
    "qwen3-8b": Shape(4096, 36, 32, 8, 128, 12288, False, _QWEN),
    "qwen3-14b": Shape(5120, 40, 40, 8, 128, 17408, False, _QWEN),
}
_WIDTHS = ("hidden", "layers", "heads", "kv_heads", "feed_forward")


@dataclass(frozen=True)
class ModelConfig(Checked, error=TrainError):
    """Which LM, its vocabulary, and how it is computed.

    Attributes:
        size: "custom" (the five widths below) or a named Qwen3 shape, all with random weights. Without the token embeddings
            "tiny" has 0.3 M parameters, "small" 3 M, "base" 20 M.
        checkpoint: instead of a size, a local folder of any transformers causal LM in safetensors.
        hidden, layers, heads, feed_forward: of "custom"; `hidden` is a multiple of 2 * `heads` (rotary pairs).
        kv_heads: of "custom", key and value heads, a divisor of `heads`; default `heads`.
        vocabulary: "sid" has PAD, BOS and the levels' tokens alone; "text" is a tokenizer's, with tokens of the SIDs added
            where it has none.
        tokenizer: of "text", a local folder; default the checkpoint's.
        prompt: of "text", what the model reads (through the tokenizer's chat template where it has one), with one slot
            {history}. "{chat}" instead: the messages that come with the data (OpenOneRec), whole, not the last `max_history`
            items; then there is no supervised training (`sft.steps` 0).
        dropout: on token embeddings and on the last hidden state, in supervised training alone. A checkpoint of an architecture
            with more kinds of dropout keeps its own.
        attention_dropout: on attention weights, in supervised training alone.
        precision: type of the weights. AdamW on bf16 weights loses steps below 1/256 of a weight (bf16 has 8 bits), so a small
            learning rate trains nothing: keep fp32 weights there, and compute in bf16 by the engine's mixed precision.
        gradient_checkpointing: layers are computed again in the backward pass instead of kept.
        attention: "flash_attention_2" serves plain causal passes (supervised windows); passes with a mask of their own (left
            padding, packed rows, branches of a cache) go through sdpa, since flash-attn takes no such mask.
    """

    size: Size = "custom"
    checkpoint: Path | None = None
    hidden: Width = 128
    layers: Annotated[int, Field(ge=1, le=512)] = 3
    heads: Width = 4
    kv_heads: Width | None = None
    feed_forward: Annotated[int, Field(ge=1, le=65_536)] = 384
    vocabulary: Literal["sid", "text"] = "sid"
    tokenizer: Path | None = None
    prompt: str = "Items that the user chose, the oldest first: {history}\nWhich item comes next?"
    dropout: Share = 0.2
    attention_dropout: Share = 0.1
    precision: Literal["fp32", "bf16"] = "fp32"
    gradient_checkpointing: bool = False
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"

    def __post_init__(self) -> None:
        super().__post_init__()
        fits = self.hidden % (2 * self.heads) == 0
        require(fits, "ModelConfig.hidden", self.hidden, f"must be a multiple of {2 * self.heads} (2 * heads)")
        kv_fits = self.kv_heads is None or self.heads % self.kv_heads == 0
        require(kv_fits, "ModelConfig.kv_heads", self.kv_heads, f"must divide heads ({self.heads})")
        self._check_source()
        self._check_text()

    def _check_source(self) -> None:
        named = self.size != "custom"
        alone = not (named and self.checkpoint)
        require(alone, "ModelConfig.size", repr(self.size), f"stands beside checkpoint {self.checkpoint}; give one of them")
        if named or self.checkpoint:
            source = f"size {self.size!r}" if named else f"checkpoint {self.checkpoint}"
            for name in _WIDTHS:
                unset = getattr(self, name) == getattr(type(self), name)
                require(unset, f"ModelConfig.{name}", getattr(self, name), f"is set beside {source}, which sets it; remove it")

    def _check_text(self) -> None:
        if self.vocabulary == "sid":
            require(self.tokenizer is None, "ModelConfig.tokenizer", self.tokenizer, "needs vocabulary 'text'")
            return
        known = self.tokenizer is not None or self.checkpoint is not None
        require(
            known, "ModelConfig.tokenizer", None, "must be a local folder where vocabulary is 'text' and no checkpoint is set"
        )
        good = self.prompt == CHAT or self.prompt.count(SLOT) == 1
        require(good, "ModelConfig.prompt", repr(self.prompt), f"must hold {SLOT} once, or be {CHAT}")

    def shape(self) -> Shape:
        """Widths of the model without a checkpoint."""
        if self.size != "custom":
            return _SHAPES[self.size]
        kv_heads, head_dim = self.kv_heads or self.heads, self.hidden // self.heads
        return Shape(self.hidden, self.layers, self.heads, kv_heads, head_dim, self.feed_forward, False, _LADDER)
