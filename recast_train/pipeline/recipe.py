"""The keys of a recipe: what a real run is made of."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recast_sim.comparing import Method, parse_method
from recast_sim.configio import Checked, override
from recast_train.data.data_config import DataConfig
from recast_train.engine import Device, EngineConfig
from recast_train.engine.sinks import SinkName
from recast_train.evaluate import EvaluationConfig
from recast_train.model import ModelConfig, TrainError, require
from recast_train.rl.rl_config import RlConfig
from recast_train.sasrec import SasRecConfig
from recast_train.semantic_id import SidConfig
from recast_train.supervised import SftConfig

Point = dict[str, Any]  # changes to a recipe by dotted key, and a label
METHODS = ("grpo", "recast", "sft", "sft_hard_negative")


@dataclass(frozen=True)
class Recipe(Checked, error=TrainError):
    """What a method is trained on and from: data, semantic IDs, model, supervised start, loop, evaluation.

    Attributes:
        start: folder of another run, of one of its stages (RUN/sft, RUN/rl/METHOD) or of a checkpoint: its semantic IDs and
            weights are where supervised training begins; with `sft.steps` 0 they are the start as they are.
        sasrec: a reference beside popularity, item-kNN and co-occurrence; minutes, so by default it is left out.
        device: "auto" takes the GPU where there is one, else the CPU; "cuda" fails where there is none.
    """

    data: DataConfig = field(default_factory=DataConfig)
    sids: SidConfig = field(default_factory=SidConfig)
    start: Path | None = None
    model: ModelConfig = field(default_factory=ModelConfig)
    sft: SftConfig = field(default_factory=SftConfig)
    rl: RlConfig = field(default_factory=RlConfig)
    sasrec: SasRecConfig = field(default_factory=SasRecConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    device: Device = "auto"


@dataclass(frozen=True)
class RealConfig(Recipe):
    """A real run, the keys of a recipe.

    Attributes:
        methods: lines as `parse_methods` reads them ("recast w_minus=0.3"), each trained from the same supervised start.
        sink: a library that gets the rows of steps and evaluations as well. It changes no number and may change on --resume.
    """

    methods: tuple[str, ...] = METHODS
    sink: SinkName = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        for method in parse_methods(self.methods, "RealConfig.methods"):
            method.applied(self.rl).thought_method(method.constructor.name)  # what does not fit fails here


def parse_methods(lines: Sequence[str], field_name: str = "methods") -> list[Method]:
    """Methods of a real run.

    Keys of a line are fields of SignalConfig, ObjectiveConfig, ThoughtGroups and RlConfig, and those of RolloutConfig as
    "rollout.method".

    Raises:
        ConfigError, SignalError: see `parse_method`.
        TrainError: a line given twice.
    """
    methods = [parse_method(line, RlConfig()) for line in lines]
    names = [method.name for method in methods]
    require(len(set(names)) == len(names), field_name, tuple(lines), "must not repeat a name")
    return methods


def named_recipes(setting: Recipe, points: Sequence[Point], field_name: str) -> dict[str, Recipe]:
    """The setting with each point's changes, by the point's `label`, which names a folder.

    Raises:
        ConfigError: a point changes what is no key of a recipe.
        TrainError: a label is missing, is there twice, or has letters that a folder's name should not have.
    """
    labels = [str(point.get("label", "")) for point in points]
    own = all(labels) and len(set(labels)) == len(labels)
    require(own, field_name, labels, "must each have a label of their own")
    bad = [label for label in labels if not re.fullmatch(r"\w[\w .,=+-]*", label)]
    require(not bad, field_name, bad, "must have labels of letters, digits and ' .,=+-', since they name folders")
    return {
        str(point["label"]): override(setting, {key: value for key, value in point.items() if key != "label"})
        for point in points
    }
