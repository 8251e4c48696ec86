"""Parts of a step of TRL's GRPOTrainer on the same model and prompts, for `step.py`: prints one JSON object.

    python benchmarks/step_trl.py SIZE PROMPTS STEPS

Its rollouts are not constrained to the catalog. They cannot end early, so that it generates as many tokens as ours.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer
from world import GROUP, HISTORY, STEP_ITEMS, STEP_SIZES, random_catalog, random_model, random_prompts

from recast_train.model import ModelConfig


class Timed(GRPOTrainer):
    """Seconds of each part of a batch: rollouts, rewards, and the passes by the model that they are of."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.batches: list[dict[str, float]] = []
        self.scoring = False

    def _clocked(self, part: str, call: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = call()
        self.batches[-1][part] = self.batches[-1].get(part, 0.0) + time.perf_counter() - start
        return result

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        self.batches.append({"start": time.perf_counter()})
        self.scoring = True
        result = self._clocked("scoring", lambda: super(Timed, self)._generate_and_score_completions(inputs))
        self.scoring = False
        self.batches[-1]["rollouts"] = len(inputs)
        self.batches[-1]["generated_tokens"] = int(result["completion_mask"].sum())
        return result

    def _generate(self, prompts: list) -> Any:
        return self._clocked("rollout", lambda: super(Timed, self)._generate(prompts))

    def _calculate_rewards(self, *arguments: Any) -> Any:
        return self._clocked("reward", lambda: super(Timed, self)._calculate_rewards(*arguments))

    def _get_per_token_logps_and_entropies(self, model: Any, *arguments: Any, **options: Any) -> Any:
        def call() -> Any:
            return super(Timed, self)._get_per_token_logps_and_entropies(model, *arguments, **options)

        if not self.scoring:
            return call()
        return self._clocked("reference" if model is self.ref_model else "old", call)

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        loss = super().training_step(model, inputs, num_items_in_batch)
        this = self.batches[-1]
        this["optimiser_steps"] = this.get("optimiser_steps", 0) + 1
        this["actor_rows"] = this.get("actor_rows", 0) + this["rollouts"]
        return loss


def measure(size: Any, prompts: int, steps: int) -> dict[str, dict[str, float]]:
    """Medians over batches 2, 3, ... by updates a batch."""
    catalog = random_catalog(STEP_ITEMS, STEP_SIZES)
    model = random_model(catalog, ModelConfig(size=size, dropout=0.0, attention_dropout=0.0))
    rows = random_prompts(model, catalog, prompts, HISTORY).tokens_PT.tolist()
    words = {f"t{token}": token for token in range(model.vocabulary.size)}
    inner = Tokenizer(models.WordLevel(words, unk_token="t0"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    data = Dataset.from_dict({"prompt": [" ".join(f"t{token}" for token in row) for row in rows]})
    with tempfile.TemporaryDirectory() as folder:
        model.lm.save_pretrained(folder)  # the reference is loaded again from here
        PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="t0", eos_token="t1").save_pretrained(folder)
        return {f"trl {updates}": _run(folder, data, prompts, model.levels, steps, updates) for updates in (1, 2)}


def _run(folder: str, data: Dataset, prompts: int, levels: int, steps: int, updates: int) -> dict[str, float]:
    trainer = Timed(
        model=folder,
        processing_class=PreTrainedTokenizerFast.from_pretrained(folder),
        reward_funcs=lambda completions, **_: [float(sum(map(ord, text)) % 7 == 0) for text in completions],
        train_dataset=data,
        args=GRPOConfig(
            output_dir=folder + "/run",
            use_cpu=True,
            bf16=False,
            model_init_kwargs={"dtype": torch.float32},
            per_device_train_batch_size=prompts * GROUP,
            num_generations=GROUP,
            num_iterations=updates,
            max_completion_length=levels,
            generation_kwargs={"min_new_tokens": levels},
            gradient_checkpointing=False,
            max_steps=(steps + 2) * updates,  # the last batch has no end
            beta=1e-3,
            learning_rate=1e-5,
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        ),
    )
    trainer.train()
    found, width = [], 1 + HISTORY * levels + levels
    for batch, following in zip(trainer.batches[1:-1], trainer.batches[2:], strict=True):
        whole = following["start"] - batch["start"]
        parts = {part: batch.get(part, 0.0) for part in ("rollout", "reward", "old", "reference")}
        signal = batch["scoring"] - sum(parts.values())
        sizes = {name: batch[name] for name in ("rollouts", "generated_tokens", "actor_rows", "optimiser_steps")}
        sizes["actor_tokens"] = batch["actor_rows"] * width
        found.append(parts | {"signal": signal, "actor": whole - batch["scoring"], "step": whole} | sizes)
    return {key: statistics.median(row[key] for row in found) for key in found[0]}


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
