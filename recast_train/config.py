"""The keys of a recipe: what a real run is made of."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from recast_sim.signal import get_constructor
from recast_train.evaluate import EvaluationConfig
from recast_train.model import ModelConfig, require
from recast_train.rl import RlConfig
from recast_train.semantic_id import SidConfig
from recast_train.sft import SftConfig

METHODS = ("grpo", "recast", "sft", "sft_hard_negative")


@dataclass(frozen=True)
class DataConfig:
    """Where the interactions come from.

    Attributes:
        interactions: a RecBole atomic `.inter` file; without it ML-100K is fetched.
        wheel: the recbole wheel, for machines without pip or network.
        core: users and items with fewer interactions are dropped.
        max_history: items before the target that a model sees.
        seed: of the order of ties in time; apart from the run's seed, so that all seeds are tested on the same prompts.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    interactions: Path | None = None
    wheel: Path | None = None
    core: int = 5
    max_history: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("core", "max_history"):
            require(getattr(self, name) >= 1, f"DataConfig.{name}", getattr(self, name), "must be at least 1")


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
