"""TRL's GRPOTrainer with the signal module between its rewards and its log-probabilities.

TRL generates, computes old and reference log-probabilities, then asks for rewards. Here the rewards are asked for as soon as
there are rollouts, a constructor says which rows to keep, and TRL goes on with those rows alone.
"""

from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.utils import split_tensor_dict

from recast_sim.signal import Constructor, Signal, SignalConfig, get_constructor
from recast_train.adapters.flat_rows import spread_levels
from recast_train.adapters.trl.contract import LOGS_TRAINED_ROWS, Generated, check_class, check_instance
from recast_train.adapters.trl.process_rows import ProcessLayout, Split, keep
from recast_train.adapters.trl.scoring import anchor_tokens, group_signal
from recast_train.adapters.trl.signal_settings import (
    BATCH_MEANS,
    ROW_MEANS,
    Anchor,
    Example,
    Levels,
    SignalSettings,
    Structural,
)
from recast_train.model import TrainError


@dataclass(frozen=True)
class _Scored:
    """A generation batch after the constructor: all rollouts, TRL's rewards of all processes, what is kept on this process."""

    generated: Generated
    rewards: Tensor
    signal: Signal
    numbers_RL: Tensor
    first_R: Tensor
    layout: ProcessLayout

    def numbers(self, width: int) -> Tensor:
        """TRL's advantages of the kept rows: one a row, (R,), or of a level-wise plan one a token, (R, width)."""
        if self.numbers_RL.shape[1] == 1:
            return self.numbers_RL[:, 0]
        return spread_levels(self.numbers_RL, self.first_R, width)


class RecastGRPOTrainer(GRPOTrainer):
    """`trl.GRPOTrainer` with the advantages and the kept rows of a constructor; old, reference and actor passes see no others.

    Args (the others are GRPOTrainer's):
        constructor: a registered name or a `Constructor`.
        signal_config: its numbers and rules; `normaliser` and `anchor_choice` stay at their defaults, since `loss_type` and
            `anchor` decide.
        anchor: a prompt's ground-truth completion: a column of the data set, or a function of an example. Token ids, or text,
            which is tokenised as it is, without an end token; None where a prompt has none.
        structural: (completion ids of rollouts, their examples) to scores in [0, 1]; see `SidScores.structural`.
        levels: (completion ids, their examples) to codes and their places, for level-wise constructors; see `SidLevels`.

    Raises:
        TrainError: an installed TRL that differs from what this class relies on, or settings that do not go together.
    """

    model: Any  # the types of transformers and TRL are wider than what GRPOTrainer sets
    args: Any
    processing_class: Any
    num_generations: int

    def __init__(
        self,
        *args: Any,
        constructor: str | Constructor = "recast",
        signal_config: SignalConfig | None = None,
        anchor: Anchor | None = None,
        structural: Structural | None = None,
        levels: Levels | None = None,
        **kwargs: Any,
    ) -> None:
        check_class(GRPOTrainer)
        rule = get_constructor(constructor) if isinstance(constructor, str) else constructor
        self.signal_settings = SignalSettings(rule, signal_config or SignalConfig(), anchor, structural, levels)
        self._examples: list[Example] = []
        self._scored: _Scored | None = None
        super().__init__(*args, **kwargs)
        check_instance(self)
        self.signal_settings.check(self)

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        if not self.model.training:
            return super()._prepare_inputs(generation_batch)
        steps = self.args.steps_per_generation
        if self._step % (steps * self.num_iterations) == 0 or self._buffered_inputs is None:
            # TRL shuffles before it splits, which would take a group's rows apart
            self._buffered_inputs = split_tensor_dict(self._generate_and_score_completions(generation_batch), steps)
        return self._buffered_inputs[self._step % steps]

    def _generate_and_score_completions(self, inputs: list[Example]) -> dict[str, Any]:
        if not self.model.training:
            return super()._generate_and_score_completions(inputs)
        self._examples, self._scored = inputs, None
        output = super()._generate_and_score_completions(inputs)
        scored, self._scored = self._scored, None
        assert scored is not None  # `_generate` left it
        self._log_signal(scored)
        numbers = scored.numbers(output["completion_ids"].shape[1])
        output["advantages"] = numbers.to(self.accelerator.device)
        output["loss_scale"] = torch.tensor(self._loss_scale(scored.layout))
        return output

    def _generate(self, prompts: list[Any]) -> tuple[Any, ...]:
        generated = Generated(*super()._generate(prompts))
        if not self.model.training:
            return generated
        if generated.images or generated.tool_images:
            raise TrainError("images: rows are dropped here, and TRL's image tensors do not follow; train on text")
        examples, G = self._examples, self.num_generations
        for name, values in generated.extra_fields.items():  # a rollout_func's, which reward functions read
            for row, example in enumerate(examples):
                example[name] = values[row] if isinstance(values, list) else values
        rewards = super()._calculate_rewards(examples, prompts, generated.completions, generated.completion_ids)
        anchors = [anchor_tokens(self, self.signal_settings, examples[row], row) for row in range(0, len(examples), G)]
        signal = group_signal(self, self.signal_settings, examples, generated, anchors, rewards)
        split = Split(
            rank=self.accelerator.process_index,
            ranks=self.accelerator.num_processes,
            steps=self.args.steps_per_generation,
            room=self.args.per_device_train_batch_size,
        )
        kept, numbers_RL, layout = keep(generated, anchors, signal, split)
        first_R = torch.zeros(len(numbers_RL), dtype=torch.int64)
        if signal.plan.level_wise and self.signal_settings.levels is not None:
            # a row's example only names targets, which do not move its SID
            first_R = torch.tensor(self.signal_settings.levels(kept.completion_ids, examples[:1] * len(first_R)).first)
        self._scored = _Scored(generated, rewards, signal, numbers_RL, first_R, layout)
        return kept

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> Tensor:
        if self._scored is not None:
            return self._scored.rewards
        return super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        return loss * inputs["loss_scale"] if "loss_scale" in inputs else loss

    def _loss_scale(self, layout: ProcessLayout) -> float:
        """No filler counts in a mean over rows or micro-batches. TRL's own count of tokens is right: fillers' are masked."""
        if self.args.loss_type in ROW_MEANS:
            return layout.row_scale
        return layout.batch_scale if self.args.loss_type in BATCH_MEANS else 1.0

    def _log_signal(self, scored: _Scored) -> None:
        """Metrics, and rollouts as they were sampled beside their advantages: 0 where an anchor took a rollout's place."""
        signal, G = scored.signal, self.num_generations
        P, width = signal.advantages_PG.shape
        metrics = self._metrics["train"]
        metrics["recast/learnable"].append(float(signal.learnable_P.float().mean()))
        metrics["recast/repaired"].append(float(signal.repaired_P.float().mean()))
        metrics["recast/kept"].append(len(signal.plan.rows_N) / (P * G))
        placed = torch.arange(width) == signal.anchor_slot_P[:, None]
        self._logs["advantages"].extend(signal.advantages_PG.masked_fill(placed, 0.0)[:, :G].flatten().tolist())
        if LOGS_TRAINED_ROWS:
            for name, tokens in (("prompt", scored.generated.prompt_ids), ("completion", scored.generated.completion_ids)):
                self._logs[name].extend(gather_object(self.processing_class.batch_decode(tokens, skip_special_tokens=True)))
