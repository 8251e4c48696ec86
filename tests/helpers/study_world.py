"""A study small enough for tests: a recipe over a made-up `.inter` file, two points, two methods, two rates, two seeds."""

from pathlib import Path

METHODS, RATES, POINTS, SEEDS = ("grpo", "recast w_minus=0.3"), (0.03, 0.003), ("small start", "long-start"), (5, 6)
TUNING_SEED, TUNING_PROMPTS, STEPS = 10_005, 30, 4
RECIPE = f"""
methods = {list(METHODS)}
learning_rates = {list(RATES)}
seeds = 2
tuning_prompts = {TUNING_PROMPTS}

[setting]
data = {{format = "atomic", path = "INTER", core = 1, max_history = 5}}
sids = {{dim = 6, sizes = [4, 3]}}
model = {{hidden = 16, layers = 1, heads = 2, feed_forward = 24}}
evaluation = {{train_prompts = 40, group_size = 8, width = 4}}

[setting.sft]
steps = 12
batch = 16
window = 6
warm_up = 4
learning_rate = 0.01
evaluate_every = 6

[setting.rl]
group_size = 8
prompts_per_step = 6
steps = {STEPS}
warm_up = 0
evaluate_every = 2
checkpoint_every = 2

[[points]]
label = "small start"

[[points]]
label = "long-start"
"sft.steps" = 24
"""


def write_recipe(folder: Path, old: str = "", new: str = "") -> Path:
    """The recipe with one of its texts replaced by another, beside its data."""
    rows = ["user_id:token\titem_id:token\trating:float\ttimestamp:float"]
    for user in range(40):
        rows += [f"u{user}\ti{(7 * user + step) % 24}\t1\t{step}" for step in range(12 + user % 4)]
    (folder / "tiny.inter").write_text("\n".join(rows) + "\n")
    assert old in RECIPE
    changed = RECIPE.replace(old, new) if old else RECIPE
    (folder / "tiny.toml").write_text(changed.replace("INTER", str(folder / "tiny.inter")))
    return folder / "tiny.toml"
