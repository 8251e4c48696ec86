"""What a trainer is told about its signal, and the settings of TRL that do not go with it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from recast_sim.signal import Constructor, SignalConfig
from recast_train.adapters.trl.token_sids import LevelRows, SidLevels, SidScores, targets_of
from recast_train.model import require

Example = dict[str, Any]
Anchor = str | Callable[[Example], str | Sequence[int] | None]
Structural = Callable[[list[list[int]], list[Example]], Sequence[float]]
Levels = Callable[[Sequence[Sequence[int]], Sequence[Example]], LevelRows]

ROW_MEANS, BATCH_MEANS, TOKEN_SUMS = ("grpo", "sapo", "dr_grpo", "luspo"), ("bnpo",), ("dapo", "cispo", "vespo")
_NOT_HERE = ("baseline_P", "reference_logprob_PG", "anchor_reference_logprob_P", "entropy_PGL")
_BY_LEVEL = ("sids_PGL", "targets_PTL", "anchor_logprob_PL")


@dataclass(frozen=True)
class SignalSettings:
    """A constructor with what it needs; see `RecastGRPOTrainer`."""

    constructor: Constructor
    config: SignalConfig
    anchor: Anchor | None
    structural: Structural | None
    levels: Levels | None = None

    def __post_init__(self) -> None:
        rule, config = self.constructor, self.config
        absent = [name for name in rule.needs if name in _NOT_HERE]
        require(not absent, "constructor", repr(rule.name), f"needs {', '.join(absent)}, which TRL has not; use another")
        mend = "injects anchors; name a column of the data set or give a function"
        require(self.anchor is not None or not rule.off_policy, "anchor", f"is missing, and {rule.name}", mend)
        mend = "orders rollouts by structural scores; give a function, such as SidScores(...).structural"
        require(self.structural is not None or not rule.structural, "structural", f"is missing, and {rule.name}", mend)
        by_level = [name for name in rule.needs if name in _BY_LEVEL]
        mend = f"reads {', '.join(by_level)}; give a function, such as SidLevels(SidTokens(...))"
        require(self.levels is not None or not by_level, "levels", f"is missing, and {rule.name}", mend)
        mend = "has no effect here: TRL's loss_type says what the loss is divided by; leave it out"
        require(config.normaliser == SignalConfig().normaliser, "SignalConfig.normaliser", repr(config.normaliser), mend)
        mend = "has no effect here: `anchor` gives one completion a prompt; let it choose"
        require(config.anchor_choice == "first", "SignalConfig.anchor_choice", repr(config.anchor_choice), mend)

    @property
    def reads_logprobs(self) -> bool:
        return "logprob_PG" in self.constructor.needs or self.config.tie_rule == "highest_logprob"

    @property
    def reads_anchor_logprobs(self) -> bool:
        weighed = self.constructor.off_policy and self.config.anchor_weighting in ("clipped", "luffy")
        return weighed or bool({"anchor_logprob_P", "anchor_logprob_PL"} & set(self.constructor.needs))

    @property
    def reads_levels(self) -> bool:
        return any(name in _BY_LEVEL for name in self.constructor.needs)

    def first_sid_and_targets(self, tokens: Sequence[int], example: Example) -> tuple[list[int], list[list[int]]] | None:
        """The first semantic ID of a completion ([] where there is none) and the example's targets, where what is given reads
        both; else None."""
        scores = getattr(self.structural, "__self__", None)
        if isinstance(scores, SidScores):
            parse, column = scores.parse, scores.targets
        elif isinstance(self.levels, SidLevels):
            parse, column = self.levels.tokens.parse, self.levels.targets
        else:
            return None
        (targets,) = targets_of([example], column)
        found = [list(sid) for sid in parse(tokens)]
        return (found[0] if found else []), targets

    def check(self, trainer: Any) -> None:
        """Raise TrainError naming the first setting of a trainer that does not go with this signal."""
        args, G = trainer.args, trainer.num_generations
        rows = args.per_device_train_batch_size * args.steps_per_generation
        mend = f"must be a multiple of num_generations ({G}): a group stays on one process; change one of the three"
        require(rows % G == 0, "per_device_train_batch_size * steps_per_generation", rows, mend)
        known = (*ROW_MEANS, *BATCH_MEANS, *TOKEN_SUMS)
        require(args.loss_type in known, "loss_type", repr(args.loss_type), f"must be one of {', '.join(known)}")
        aggregation = trainer.multi_objective_aggregation
        mend = "must be 'sum_then_normalize': a constructor takes one reward a row"
        require(aggregation == "sum_then_normalize", "multi_objective_aggregation", repr(aggregation), mend)
        given = not self.reads_logprobs or trainer.rollout_func is not None or trainer.use_vllm
        mend = "needs the rollouts' log-probabilities, which transformers' generate does not give; use constrained_rollout"
        require(given, "constructor", repr(self.constructor.name), mend)
