"""Writes the verl dumps of the fixtures through verl's own `_dump_generations`, with rollouts and text of our own.

    python tests/helpers/audit_verl.py v1 tests/analysis/audit/fixtures/verl-0.9.1           with verl 0.9.1 (CPU is enough)
    python tests/helpers/audit_verl.py ray tests/analysis/audit/fixtures/verl-0.9.1-ray      with verl 0.9.1
    python tests/helpers/audit_verl.py ray tests/analysis/audit/fixtures/verl-0.5.0          with verl 0.5.0 (OpenOneRec)
    python tests/helpers/audit_verl.py validation tests/analysis/learned/fixtures/verl-0.9.1 with verl 0.9.1

`v1` is the default trainer of 0.9: its rows come sorted and carry a uid. `ray` is the older one: its rows are shuffled, since
it balances the batch before it dumps it, and carry what the reward function returned. `validation` is what that one leaves
under `validation_data_dir`: a greedy answer a prompt, before the first step and at the last.
"""

import random
import sys
from pathlib import Path
from typing import Any

PROMPTS, GROUP, STEPS = 12, 8, 3


def rollouts(step: int) -> list[dict[str, Any]]:
    rng = random.Random(step)
    rows = []
    for prompt in range(PROMPTS):
        history = " , ".join(f"<a_{rng.randrange(4)}><b_{rng.randrange(4)}><c_{rng.randrange(4)}>" for _ in range(3))
        target = f"<a_{prompt % 4}><b_{step}><c_1>"
        rate = rng.betavariate(0.5 + 0.3 * step, 4)
        for rollout in range(GROUP):
            miss = f"<a_{rng.randrange(4)}><b_{rng.randrange(4)}><c_0>"
            hit = rng.random() < rate
            output = target if hit else "<a_1><b_2>" if rng.random() < 0.05 else miss
            text = f"step {step} user {prompt} liked {history} , say the next please"
            uid = f"user-{step}-{prompt}_{rollout}_0"
            rows.append({"input": text, "output": output, "gts": target, "score": float(hit), "acc": hit, "uid": uid})
    return rows


def greedy_answers(step: int) -> list[dict[str, Any]]:
    """One a prompt: of 120 easy and hard prompts a model that hits a third, and later more of the easy ones."""
    rng, rows = random.Random(step), []
    for prompt in range(120):
        target = f"<a_{prompt % 4}><b_{prompt % 7}><c_1>"
        hit = rng.random() < (0.9 if step else 0.6) * (prompt % 2) + 0.05
        row = {"input": f"user {prompt} , say the next please", "output": target if hit else "<a_1><b_2><c_0>", "gts": target}
        rows.append({**row, "score": float(hit), "acc": hit})
    return rows


def dump(kind: str, folder: Path) -> None:
    if kind == "v1":
        from verl.trainer.ppo.v1 import trainer_base

        # the class that trains; everything but its dump is left out, so any subclass and no __init__
        base = next(c for c in vars(trainer_base).values() if isinstance(c, type) and hasattr(c, "_dump_generations"))
        trainer: Any = object.__new__(type("Dumper", (base,), dict.fromkeys(base.__abstractmethods__)))
    else:
        from verl.trainer.ppo.ray_trainer import RayPPOTrainer

        trainer = object.__new__(RayPPOTrainer)
    threaded = hasattr(trainer, "_init_dump_executor")
    if threaded:
        trainer._init_dump_executor()
    for step in (0, STEPS) if kind == "validation" else range(1, STEPS + 1):
        rows = greedy_answers(step) if kind == "validation" else rollouts(step)
        extra = ("uid",) if kind == "v1" else ("acc",)
        if kind == "ray":
            random.Random(-step).shuffle(rows)
        trainer.global_steps = step
        columns = {name: [row[name] for row in rows] for name in ("input", "output", "gts", "score")}
        if not threaded:  # 0.5 does not dump the ground truths
            del columns["gts"]
        trainer._dump_generations(
            *columns.values(), {name: [row[name] for row in rows] for name in extra}, dump_path=str(folder)
        )
    if threaded:
        trainer._shutdown_dump_executor()


if __name__ == "__main__":
    dump(sys.argv[1], Path(sys.argv[2]))
