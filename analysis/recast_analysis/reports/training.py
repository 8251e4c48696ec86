"""Report of one training run in the simulator (`recast-sim train`) from its folder alone."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from recast_analysis.drawing.style import INK, Drawn, apply_style, colours
from recast_analysis.reports.report import Report, Table
from recast_analysis.show import run_summary
from recast_sim.runs import Run, RunError, read_run

_SCORES = {
    "pass_at_1_greedy": "greedy Pass@1",
    "recall_at_k": "Recall@10",
    "calibrated_log_likelihood": "calibrated log-likelihood, nats",
    "entropy": "entropy, nats",
    "pass_at_1_sampled": "sampled Pass@1",
}
_PANELS = tuple(_SCORES)[:4]
_PARTS = {"learned": "of its gain, learned", "sharpened": "of its gain, sharpened"}


def report(root: Path) -> Report:
    """Scores before and after on held-out prompts, what they cost, and their curves.

    Raises:
        RunError: not a run folder, or one without an evaluation.
    """
    run = read_run(root)
    summary, evals = run_summary(run), run.evals
    if not len(evals) or "pass_at_1_greedy" not in evals.columns:
        raise RunError(f"{root}: holds no evaluation of a simulated policy; go on with --resume")
    first, last = (evals[at].to_dicts()[0] for at in (0, -1))
    rows = [
        (words, f"{first[name]:.4f}", f"{last[name]:.4f}", f"{last[name] - first[name]:+.4f}")
        for name, words in _SCORES.items()
        if last.get(name) is not None
    ]
    rows += [(words, "", "", f"{last[name]:+.4f}") for name, words in _PARTS.items() if last.get(name) is not None]
    steps = f"step {last['step']:,}"
    note = "Held-out prompts. One world and one seed, no interval. Sampled Pass@1 can be bought by cooling; the others cannot."
    table = Table(f"{summary['constructor']} in one world", ("", f"step {first['step']:,}", steps, "change"), rows, note=note)
    spent = ", ".join(
        f"{run.steps[name][-1]:,} {name.replace('_', ' ')}" for name in ("rollouts", "actor_rows", "optimiser_steps")
    )
    before, after = (run.steps[name].tail(10).mean() for name in ("before_all_zero", "learnable"))
    words = f"Spent: {spent}. In the last ten steps {before:.1%} of the groups were all-zero; {after:.1%} were learned from."
    return Report(summary, [table, words], lambda: [_draw(run, str(summary["constructor"]))])


def _draw(run: Run, constructor: str) -> Drawn:
    apply_style()
    figure, axes = plt.subplots(2, 2, figsize=(8, 5.6), sharex=True, layout="constrained")
    colour = colours([constructor])[constructor]
    for axis, name in zip(np.ravel(axes), _PANELS, strict=True):
        known = run.evals.select("step", name).drop_nulls()  # what is fitted is measured at both ends alone
        axis.axhline(known[name][0], color=INK, linewidth=0.8, linestyle=":", label="start")
        axis.plot(known["step"].to_numpy(), known[name].to_numpy(), color=colour, marker=".", label=constructor)
        axis.set(title=_SCORES[name])
    for axis in axes[-1]:
        axis.set(xlabel="steps")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    title = f"{constructor} in one world"
    return Drawn("figure", title, figure, f"{title}: scores on held-out prompts. One seed, no interval.")
