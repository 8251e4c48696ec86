"""The pictures of docs/concepts.md, drawn by the toolkit: `python -m docs.site.concept_pictures` writes them again.

Each PNG holds a hash of what it shows, so that a test tells when code has moved on and the pictures have not.
"""

from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from recast_analysis.drawing.group_cells import RowPanel, rows_figure
from recast_analysis.drawing.style import INK, REGIME_COLOURS, Drawn, apply_style, colours, save_figure
from recast_analysis.measures.budget_curves import Curves, budget_ratio
from recast_sim.closed_forms.iid_groups import beta_regime
from recast_sim.signal import REGIMES, construct, exact_hit, group_state, repair_all_zero, structural_score

FOLDER = Path(__file__).resolve().parents[1] / "concepts"
TARGET = (1, 2, 3)
GROUPS = {  # semantic IDs of six rollouts
    "no hit": ((4, 2, 3), (1, 2, 5), (7, 7, 7), (1, 6, 3), (2, 2, 2), (1, 2, 4)),
    "one hit": ((1, 2, 3), (5, 5, 1), (1, 2, 6), (3, 1, 1), (1, 4, 4), (6, 2, 3)),
}
_SIZES = (2, 4, 8, 16, 32, 64, 128, 256)


def group() -> Drawn:
    """Two groups: what each rollout is paid, and how near each miss is."""
    rewards_PG, structural_PG = _scored()
    panels = [RowPanel("reward: 1 on an exact hit", rewards_PG), RowPanel("structural score: shared prefix", structural_PG)]
    return Drawn("group", "A group", rows_figure(panels, list(GROUPS)), "One line is a group, one cell a rollout.")


def regime() -> Drawn:
    """Shares of the regimes by group size, hit rates from Beta(1, 181), which gives the paper's 85, 13 and 2 % at G = 32."""
    figure, axis = _panel(5.6, 3.0)
    shares_SR = np.array([beta_regime(1.0, 181.0, size) for size in _SIZES])
    left_S = np.zeros(len(_SIZES))
    for r, name in enumerate(REGIMES):
        label = name.replace("_", "-")
        axis.barh([str(size) for size in _SIZES], shares_SR[:, r], left=left_S, color=REGIME_COLOURS[name], label=label)
        left_S += shares_SR[:, r]
    axis.set(xlabel="share of the groups", ylabel="group size G", xlim=(0, 1))
    axis.invert_yaxis()
    axis.grid(False)
    _legend(axis)
    caption = "Closed form; the hit rates of prompts follow Beta(1, 181), which gives 85, 13 and 2 % at G = 32."
    return Drawn("regime", "Regimes", figure, caption)


def repair() -> Drawn:
    """The same two groups before and after the repair."""
    state = group_state(*_scored(), has_anchor_P=torch.ones(len(GROUPS), dtype=torch.bool))
    after = repair_all_zero(state)
    panels = [
        RowPanel("rewards before", state.rewards_PG),
        RowPanel("after: the target takes a miss's place", after.rewards_PG, anchor_slot_P=after.anchor_slot_P),
    ]
    return Drawn("repair", "Repair", rows_figure(panels, list(GROUPS)), "The orange frame is the anchor.")


def contrast() -> Drawn:
    """Advantages of the two groups under grpo and under recast."""
    panels = []
    for name in ("grpo", "recast"):
        signal = construct(name, *_scored(), has_anchor_P=torch.ones(len(GROUPS), dtype=torch.bool))
        kept_PG = torch.zeros(signal.advantages_PG.numel(), dtype=torch.bool)
        kept_PG[signal.plan.rows_N] = True
        kept_PG = kept_PG.reshape(signal.advantages_PG.shape)
        panels.append(RowPanel(f"advantages of {name}", signal.advantages_PG, kept_PG, signal.anchor_slot_P))
    return Drawn(
        "contrast",
        "Contrast",
        rows_figure(panels, list(GROUPS)),
        "Grey rollouts are not trained on; the orange frame is the anchor.",
    )


def sharpening() -> Drawn:
    """One prompt's probabilities at three temperatures, its most likely item being the target."""
    figure, axes = plt.subplots(1, 3, figsize=(7.0, 2.5), sharey=True)
    logits_I = torch.tensor([1.2, 0.9, 0.5, 0.3, 0.0, -0.3])
    for axis, temperature in zip(axes, (1.0, 0.5, 0.2), strict=True):
        chance_I = (logits_I / temperature).softmax(0).numpy()
        names = ["target", *(f"item {i}" for i in range(2, len(chance_I) + 1))]
        axis.bar(names, chance_I, color=[REGIME_COLOURS["single_hit"], *["#bbbbbb"] * 5])
        axis.set_title(f"temperature {temperature:g}\nsampled {chance_I[0]:.2f}, greedy 1", fontsize=9)
        axis.tick_params(axis="x", rotation=90)
        axis.grid(False, axis="x")
    axes[0].set_ylabel("probability")
    figure.tight_layout()
    return Drawn("sharpening", "Sharpening", figure, "The same policy, cooled. Nothing was learned.")


def budget() -> Drawn:
    """Made-up scores of two methods, and the budget ratio that the toolkit reads off them."""
    spent_E = np.arange(0.0, 13.0)
    scores = {"baseline": 0.10 + 0.05 * (1 - np.exp(-spent_E / 6)), "method": 0.10 + 0.06 * (1 - np.exp(-spent_E / 3))}
    curves = {name: Curves((0,), score_E[None], {"rollouts": spent_E[None]}) for name, score_E in scores.items()}
    ratio = budget_ratio([curves["method"]], [curves["baseline"]]).value
    figure, axis = _panel(5.6, 3.0)
    for name, score_E in scores.items():
        axis.plot(spent_E, score_E, color=colours([name])[name], label=name)
    final = float(curves["baseline"].finals_S[0])
    axis.axhline(final, color=INK, linewidth=0.8, linestyle=":", label="the baseline's final score\n(mean of its last three)")
    axis.plot([ratio * spent_E[-1]] * 2, [scores["baseline"][0], final], color=INK, linewidth=0.8)
    axis.set(xlabel="rollouts generated, thousands", ylabel="Pass@1", xlim=(0, 12), title=f"budget ratio {ratio:.2f}")
    _legend(axis)
    return Drawn("budget", "Budget", figure, "Made-up curves.")


PICTURES: tuple[Callable[[], Drawn], ...] = (group, regime, repair, contrast, sharpening, budget)


def main() -> None:
    for picture in PICTURES:
        apply_style()
        save_figure(picture(), FOLDER).with_suffix(".pdf").unlink()


def _scored() -> tuple[torch.Tensor, torch.Tensor]:
    """Rewards and structural scores of GROUPS, (P, G) each."""
    sids_PGL = torch.tensor(list(GROUPS.values()))
    targets_PTL = torch.tensor(TARGET).expand(len(GROUPS), 1, -1)
    return exact_hit(sids_PGL, targets_PTL), structural_score(sids_PGL, targets_PTL)


def _panel(width: float, height: float) -> tuple[Figure, Axes]:
    return plt.subplots(figsize=(width, height), layout="constrained")


def _legend(axis: Axes) -> None:
    axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


if __name__ == "__main__":
    main()
