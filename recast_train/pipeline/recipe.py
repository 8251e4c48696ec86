"""The keys of a recipe: what a real run is made of."""

from dataclasses import dataclass, field
from typing import Literal

from recast_sim.configio import Checked
from recast_train.data.data_config import DataConfig
from recast_train.engine import EngineConfig
from recast_train.engine.sinks import SinkName
from recast_train.evaluate import EvaluationConfig
from recast_train.model import ModelConfig, TrainError, require
from recast_train.rl.rl_config import RlConfig
from recast_train.rl.rl_method import parse_method
from recast_train.semantic_id import SidConfig
from recast_train.sft import SftConfig

METHODS = ("grpo", "recast", "sft", "sft_hard_negative")


@dataclass(frozen=True)
class Recipe(Checked, error=TrainError):
    """What a method is trained on and from: data, semantic IDs, model, supervised start, loop, evaluation.

    Attributes:
        device: "cuda" fails where there is none.
    """

    data: DataConfig = field(default_factory=DataConfig)
    sids: SidConfig = field(default_factory=SidConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    sft: SftConfig = field(default_factory=SftConfig)
    rl: RlConfig = field(default_factory=RlConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    device: Literal["cpu", "cuda"] = "cpu"


@dataclass(frozen=True)
class RealConfig(Recipe):
    """A real run, the keys of a recipe.

    Attributes:
        methods: lines as `parse_method` reads them ("recast w_minus=0.3"), each trained from the same supervised start.
        sink: a library that gets the rows of steps and evaluations as well. It changes no number and may change on --resume.
    """

    methods: tuple[str, ...] = METHODS
    sink: SinkName = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_methods("RealConfig.methods", self.methods)


def check_methods(field_name: str, lines: tuple[str, ...]) -> None:
    """Refuse an unknown constructor, key or value, or a line given twice, before any training."""
    names = [parse_method(line).name for line in lines]
    require(len(set(names)) == len(names), field_name, lines, "must not repeat a name")
