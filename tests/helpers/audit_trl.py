"""Trains a tiny model with TRL and `log_completions`, on the CPU. Writes the audit's TRL fixture:

    PYTHONPATH=.:tests/helpers python tests/helpers/audit_trl.py tests/analysis/audit/fixtures/trl-1.16

Two optimiser steps share one generation (`steps_per_generation`), so every second file repeats the one before.
"""

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

PROMPTS = ("the user liked items", "say the next please", "user : the items ?", "next please", "the user", "liked the items ,")
GROUP, PROMPTS_A_STEP, STEPS = 4, 4, 4


def train(folder: Path, conversations: bool = False) -> Path:
    """The folder of completions_*.parquet that TRL leaves below `folder`."""
    from datasets import Dataset
    from text_world import text_checkpoint
    from transformers import AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    def liked(completions: list[Any], **_: Any) -> list[float]:
        texts = [text[0]["content"] if conversations else text for text in completions]
        return [float("liked" in text) for text in texts]

    prompts = [[{"role": "user", "content": text}] for text in PROMPTS] if conversations else list(PROMPTS)
    model = text_checkpoint(folder / "model")
    config = GRPOConfig(
        output_dir=str(folder / "out"), per_device_train_batch_size=GROUP * PROMPTS_A_STEP // 2, num_generations=GROUP,
        steps_per_generation=2, max_completion_length=4, max_steps=STEPS, logging_steps=1, log_completions=True,
        num_completions_to_print=1, use_cpu=True, bf16=False, report_to=[], save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    dataset = Dataset.from_dict({"prompt": prompts})
    trainer = GRPOTrainer(
        str(model), liked, args=config, train_dataset=dataset, processing_class=AutoTokenizer.from_pretrained(model)
    )
    trainer.train()
    return folder / "out" / "completions"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        shutil.copytree(train(Path(scratch)), sys.argv[1])
