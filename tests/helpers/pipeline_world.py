"""A recipe of a tiny real run, and two processes under torchrun that run it whole or until both are killed.

As a script: `pipeline_world.py FOLDER STRATEGY`, where FOLDER holds the recipe. It leaves a whole run in FOLDER/STRATEGY, and
one of the other strategy that was killed half-way in FOLDER/killed-OTHER.
"""

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import polars as pl
from text_world import PROMPT, text_tokenizer

from recast_sim.configio import load_config
from recast_train.engine import EngineConfig
from recast_train.pipeline.recipe import RealConfig
from recast_train.pipeline.whole_run import run_real

P, G, STEPS = 6, 8, 5
METHODS = ("grpo", "recast updates_per_batch=2", "dapo", "luffy")
RECIPE = f"""
methods = METHODS
data = {{format = "atomic", path = "INTER", core = 1, max_history = 5}}
sids = {{dim = 6, sizes = [4, 3]}}
model = {{hidden = 16, layers = 1, heads = 2, feed_forward = 24, dropout = 0.0, attention_dropout = 0.0}}
evaluation = {{train_prompts = 41, group_size = {G}, width = 4}}
[sft]
steps = 24
batch = 16
window = 6
warm_up = 4
learning_rate = 0.003
average = 0.9
item_dropout = 0.2
evaluate_every = 8
[rl]
group_size = {G}
prompts_per_step = {P}
steps = {STEPS}
evaluate_every = 3
checkpoint_every = 2
max_draws = 3
objective = {{kl = 0.01}}
"""
SEED = 3
KILLS = {"ddp": ("supervised training", 13), "fsdp2": ("luffy", 3)}
MEASURED = ("seconds", "actor_tflops", "mfu", "peak_memory")  # of the machine, not of the run


def write_recipe(folder: Path, methods: tuple[str, ...] = METHODS, change: Callable[[str], str] = lambda text: text) -> Path:
    """The recipe and its data: users who walk 24 items in steps of one."""
    rows = ["user_id:token\titem_id:token\trating:float\ttimestamp:float"]
    for user in range(40):
        rows += [f"u{user}\ti{(7 * user + step) % 24}\t1\t{step}" for step in range(12 + user % 4)]
    (folder / "tiny.inter").write_text("\n".join(rows) + "\n")
    text = change(RECIPE.replace("METHODS", str(list(methods))))
    (folder / "tiny.toml").write_text(text.replace("INTER", str(folder / "tiny.inter")))
    return folder / "tiny.toml"


def write_thinking_recipe(folder: Path, methods: tuple[str, ...]) -> Path:
    """The recipe with a text tokenizer and groups of thoughts: few steps, all of which are evaluated."""
    text_tokenizer(names=("</think>",)).save_pretrained(folder / "words")
    told = f'model = {{vocabulary = "text", tokenizer = "{folder / "words"}", prompt = "{PROMPT}", '
    rl = 'evaluate_every = 1\nrollout = {thought = {max_tokens = 3}}\nthoughts = {kind = "soft"}\n'
    changes = {
        "model = {": told,
        "evaluate_every = 3\n": rl,
        "steps = 24": "steps = 4",
        "evaluate_every = 8": "evaluate_every = 4",
    }

    def change(text: str) -> str:
        for old, new in changes.items():
            assert old in text
            text = text.replace(old, new)
        return text

    return write_recipe(folder, methods, change)


def run_spread(recipe: Path, strategy: Literal["single", "ddp", "fsdp2"], root: Path, **more: Any) -> dict[str, Any]:
    config = replace(load_config(RealConfig, recipe), engine=EngineConfig(strategy))
    return run_real(config, SEED, root, True, **more)


def untimed(table: pl.DataFrame) -> pl.DataFrame:
    return table.drop([column for column in table.columns if column.startswith(MEASURED)])


def without_seconds(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_seconds(inner) for key, inner in value.items() if key != "seconds"}
    return value


def main(folder: Path, strategy: Literal["ddp", "fsdp2"]) -> None:
    rank = int(os.environ["RANK"])
    run_spread(folder / "tiny.toml", strategy, folder / strategy)
    other: Literal["ddp", "fsdp2"] = "fsdp2" if strategy == "ddp" else "ddp"
    label, step = KILLS[other]
    if rank == 1:
        (folder / f"{other}.pid").write_text(str(os.getpid()))  # before the next collective, so before the report

    def kill(at: str, done: int, total: int) -> None:
        if at == label and done >= step:
            for process in (int((folder / f"{other}.pid").read_text()), os.getpid()):
                os.kill(process, signal.SIGKILL)

    run_spread(folder / "tiny.toml", other, folder / f"killed-{other}", report=kill)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])  # type: ignore[arg-type]
