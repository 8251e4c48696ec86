"""A sweep over two workers against the same jobs over one.

    python benchmarks/sweep_scaling.py [--quick] [--json]

The comparison of verdict.toml in fewer worlds, with fewer rates: calibration, worlds, tuning, runs, each of which waits for the
one before. The start of the workers counts, the drawing of the report does not. Needs two idle cores.
"""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness import Entry, Result, main, timed

from recast_sim.cli.budget import BudgetConfig
from recast_sim.configio import load_config
from recast_sim.experiments.map_cells import named_settings
from recast_sim.experiments.protocol import run_protocol
from recast_sim.runs.sweep import open_sweep

RECIPE = Path(__file__).with_name("verdict.toml")
SEEDS, TUNING_SEEDS, RATES = 4, 2, (0.003, 0.01)
QUICK_WORLD: dict[str, Any] = {"items": 40, "sizes": (4, 4, 4), "train_prompts": 64, "heldout_prompts": 64, "fresh_prompts": 64}


def sweep(workers: int, quick: bool) -> None:
    """The whole comparison in a folder of its own."""
    config = load_config(BudgetConfig, RECIPE)
    protocol = replace(config.protocol, seeds=SEEDS, tuning_seeds=TUNING_SEEDS, learning_rates=RATES)
    setting = config.setting
    if quick:
        protocol = replace(protocol, methods=("grpo",), seeds=2, tuning_seeds=1)
        environment = replace(setting.environment, **QUICK_WORLD)
        training = replace(setting.training, steps=1, evaluate_every=1)
        setting = replace(setting, environment=environment, training=training, regime=())
    with tempfile.TemporaryDirectory() as folder, open_sweep(Path(folder, "jobs"), "local", workers) as submit:
        run_protocol(named_settings(setting, config.points), protocol, 0, Path(folder, "methods"), submit)


def measure(quick: bool) -> Result:
    """Quick: tiny worlds, where the start of the workers is most of it, without a target."""
    seconds = {workers: timed(lambda workers=workers: sweep(workers, quick)) for workers in (1, 2)}
    gain = Entry("sweep: two workers against one, same jobs", seconds[1] / seconds[2], "x", None if quick else 1.85)
    return Result([gain], [{"workers": workers, "s": taken} for workers, taken in seconds.items()])


if __name__ == "__main__":
    sys.exit(main(measure, __doc__))
