"""Where a whole training step's time goes: grpo against recast in our trainer, and TRL's GRPOTrainer beside them.

    python benchmarks/step.py [--quick] [--json]

One small Qwen3 with random weights, G = 32, prompts of 49 tokens, SIDs of 3, a KL term (so there is a reference pass), and one
or two optimiser steps a batch (with two there is a pass for the old log-probabilities). Our trainer and TRL run in processes of
their own that take turns. Once the actor has two rows a group, rollouts are what is left, and the table says so.
Beside the times stand the rows of each pass and the tokens that were generated and trained on (ours: a prompt once for all its
rows). TRL samples from the whole vocabulary, ours from the legal tokens; TRL's rewards are arbitrary.
"""

import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness import Entry, Result, main, own_process

HERE = Path(__file__).resolve().parent
NAMES = {"grpo": "ours, grpo", "recast": "ours, recast", "trl": "TRL, grpo"}
PARTS = ("rollout", "reward", "signal", "old", "reference", "actor", "step")
COUNTS = ("rollouts", "generated_tokens", "actor_rows", "actor_tokens", "optimiser_steps")


def measure(quick: bool) -> Result:
    """Quick: a tiny model, one round."""
    setting = ("tiny", "4", "2") if quick else ("small", "8", "2")  # model, prompts, steps
    rounds: list[dict[str, dict[str, float]]] = []
    for _ in range(1 if quick else 2):
        rounds.append({key: of for name in ("ours", "trl") for key, of in _process(name, setting).items()})
    found = {key: {name: statistics.median(of[key][name] for of in rounds) for name in rounds[0][key]} for key in rounds[0]}
    settings = {"model": setting[0], "prompts": int(setting[1]), "steps a round": int(setting[2]), "rounds": len(rounds)}
    return Result(_entries(found), [_row(key, of) for key, of in found.items()], settings)


def _process(name: str, setting: tuple[str, ...]) -> Any:
    return own_process(str(HERE / f"step_{name}.py"), *setting)


def _entries(found: Mapping[str, Mapping[str, float]]) -> list[Entry]:
    entries = []
    for updates in (1, 2):
        case = f"{updates} optimiser step{'s' if updates > 1 else ''}"
        grpo, recast, trl = (found[f"{name} {updates}"] for name in NAMES)
        signal = 100 * recast["signal"] / recast["step"]
        entries += [
            Entry(f"claim 6: whole step, our grpo over our recast, {case}", grpo["step"] / recast["step"], "x"),
            Entry(f"claim 5: actor, our grpo over our recast, {case}", grpo["actor"] / recast["actor"], "x"),
            Entry(f"share of rollouts in recast's step, {case}", recast["rollout"] / recast["step"], ""),
            Entry(f"share of the signal in recast's step, {case}", signal, "%", 1, at_least=False),
            Entry(f"whole step, TRL over our grpo, {case}", trl["step"] / grpo["step"], "x", 15),
            Entry(f"whole step, TRL over our recast, {case}", trl["step"] / recast["step"], "x", 18),
        ]
    return entries


def _row(key: str, of: Mapping[str, float]) -> dict[str, Any]:
    """Times in ms; old and reference passes have the rows of one pass of the actor, where there is one at all."""
    name, updates = key.split()
    rest = of["step"] - sum(of[part] for part in PARTS[:-1])
    rows = int(of["actor_rows"] / of["optimiser_steps"])
    return {
        "trainer": NAMES[name],
        "updates": int(updates),
        **{f"{part} ms": 1e3 * of[part] for part in PARTS[:-1]},
        "rest ms": 1e3 * rest,
        "step ms": 1e3 * of["step"],
        "rows old / reference / actor": f"{rows if of['old'] else 0} / {rows} / {int(of['actor_rows'])}",
        **{count.replace("_", " "): int(of[count]) for count in COUNTS if count != "actor_rows"},
    }


if __name__ == "__main__":
    sys.exit(main(measure, __doc__))
