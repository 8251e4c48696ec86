"""The keys of a recipe: what a real run is made of."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from recast_train.evaluate import EvaluationConfig
from recast_train.methods import parse_method
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
class Setting:
    """What a method is trained on and from: data, semantic IDs, model, supervised start, loop, evaluation.

    Attributes:
        device: "cuda" fails where there is none.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    data: DataConfig = field(default_factory=DataConfig)
    sids: SidConfig = field(default_factory=SidConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    sft: SftConfig = field(default_factory=SftConfig)
    rl: RlConfig = field(default_factory=RlConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    device: Literal["cpu", "cuda"] = "cpu"


@dataclass(frozen=True)
class RealConfig(Setting):
    """A real run, the keys of a recipe.

    Attributes:
        methods: lines as `parse_method` reads them ("recast w_minus=0.3"), each trained from the same supervised start.
    """

    methods: tuple[str, ...] = METHODS

    def __post_init__(self) -> None:
        check_methods("RealConfig.methods", self.methods)


def check_methods(field_name: str, lines: tuple[str, ...]) -> None:
    """Refuse an unknown constructor, key or value, or a line given twice, before any training."""
    names = [parse_method(line).name for line in lines]
    require(len(set(names)) == len(names), field_name, lines, "must not repeat a name")
