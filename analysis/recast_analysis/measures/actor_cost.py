"""The four corners of the actor's cost: G or 2 rows a prompt, the prompt repeated in every row or computed once for all.

An actor reads, for a prompt of T tokens and rows that feed L - 1 tokens each (the last one is predicted, never read),
rows * (T + L - 1) tokens where the prompt is repeated and at most T + rows * (L - 1) where it is shared: a prefix that rows
have in common is read once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np

from recast_analysis.drawing.style import Drawn, apply_style, colours, plain_powers
from recast_analysis.drawing.words import count_words
from recast_analysis.measures.trajectories import Trajectory, by_method

PAIR = 2  # rows that recast keeps


@dataclass(frozen=True)
class Corners:
    """Tokens an optimiser step for `prompts` prompts of `length` tokens on average, `group` rows, `fed` tokens a row."""

    prompts: int
    group: int
    length: float
    fed: int

    def tokens(self, rows: int, shared: bool) -> float:
        """Actor tokens of one pass over a batch whose rows have no prefix in common."""
        return self.prompts * (self.length + rows * self.fed if shared else rows * (self.length + self.fed))


def read_corners(runs: Sequence[Trajectory]) -> Corners | str:
    """The corners by a run's own counts, or why they are not known."""
    if not any("prompt_tokens" in run.steps.columns for run in runs):
        return "actor cost in four corners: no run here has prompts of tokens (a simulated prompt is a vector)"
    for run in runs:
        found = _of(run)
        if found is not None:
            return found
    return "actor cost in four corners: no method draws plain rollouts"


def _of(run: Trajectory) -> Corners | None:
    config, steps = run.training, run.steps
    if not len(steps) or not run.draws or config["rollout"]["thought"]["max_tokens"]:
        return None
    last = steps.tail(1).to_dicts()[0]
    fed = round(last["generated_tokens"] / last["rollouts"]) - 1
    prompts = config["prompts_per_step"]
    return Corners(prompts, config["group_size"], steps["prompt_tokens"].mean() / prompts, fed)


def corners_figure(runs: Sequence[Trajectory]) -> Drawn | str:
    """Bars of the four corners and of what each method's own steps read, or why they are left out."""
    found = read_corners(runs)
    if isinstance(found, str):
        return found
    bars = {
        f"{rows} rows, prompt {'shared' if shared else 'repeated'}": found.tokens(rows, shared)
        for shared in (False, True)
        for rows in (found.group, PAIR)
    }
    own = {name: _own_tokens(some) for name, some in by_method(runs).items() if any(len(run.steps) for run in some)}
    palette = colours(own)
    apply_style()
    names, values = [*bars, *(f"{name}, as run" for name in own)], np.array([*bars.values(), *own.values()])
    figure, axis = plt.subplots(figsize=(7.5, 1.2 + 0.34 * len(names)), layout="constrained")
    drawn = axis.barh(names, values, color=["#999999"] * len(bars) + [palette[name] for name in own])
    axis.bar_label(
        drawn,
        [f"{value:,.0f}, 1/{values[0] / value:.1f}" if place else f"{value:,.0f}" for place, value in enumerate(values)],
        padding=3,
        fontsize=8,
    )
    axis.set(xscale="log", xlabel="actor tokens an optimiser step")
    plain_powers(axis.xaxis)
    axis.set_xlim(min(values) / 2, max(values) * 8)
    axis.invert_yaxis()
    words = (
        f"Counts, not times: {found.prompts} prompts of {found.length:.1f} tokens on average (from the run's own counts), "
        f"G = {found.group}, {found.fed} tokens fed a row; mean over all steps and "
        f"{count_words(len({run.seed for run in runs}), 'seed')}, no interval. "
        "Fractions: of G rows with the prompt repeated, the baseline of the paper's 16.6x."
    )
    return Drawn("corners", "Actor cost in four corners", figure, words)


def _own_tokens(runs: Sequence[Trajectory]) -> float:
    """Actor tokens a pass over a batch, mean over steps and seeds."""
    begun = [run for run in runs if len(run.steps)]
    totals = [run.steps["actor_tokens"][-1] / len(run.steps) / run.training["updates_per_batch"] for run in begun]
    return float(np.mean(totals))
