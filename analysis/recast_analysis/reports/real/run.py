"""Report of a real run (`recast-train run`) from its folder alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from recast_analysis.drawing.looks import look
from recast_analysis.drawing.reading_aids import better, legend_above
from recast_analysis.drawing.style import INK, Drawn, apply_style, colours
from recast_analysis.drawing.words import metric_words
from recast_analysis.measures.paired_bootstrap import paired_differences
from recast_analysis.measures.real_learning import learning_changes, of_users
from recast_analysis.reports.pieces.real_learning_table import LEARNING_NOTE, learning_table
from recast_analysis.reports.report import Report, Table
from recast_sim.bounded import read_json_file
from recast_sim.runs import RunError, read_run
from recast_sim.runs.reader import read_manifest
from recast_sim.runs.table_files import read_table

_RANKING = ("hr@1", "hr@10", "ndcg@10")
_COMPARED = ("hr@10", "ndcg@10", "pass_at_1_sampled", "pass_at_1_greedy")
_BUDGET = ("rollouts", "actor_rows", "actor_tokens", "optimiser_steps")
_STARTS = {
    "supervised": "start (supervised)",
    "checkpoint": "start (the checkpoint)",
    "untrained": "start (not trained)",
    "given": "start (given)",
}
_SMOOTH = 10  # steps at most in a running mean of the all-zero share


def report(root: Path) -> Report:
    """Scores of references, start and methods; differences to the start; what each method cost; the figure.

    Raises:
        RunError: the run is not finished, or its results are damaged.
    """
    results, versus = read_results(root), _versus_start(root)
    methods = {name: row | {"versus_start": versus[name]} for name, row in results["methods"].items()}
    results |= {"methods": methods}
    seconds = ", ".join(f"{stage} {spent:.0f}" for stage, spent in results["seconds"].items())
    notes = (_sids(results["sids"]), *results.get("notes", ()), f"seconds: {seconds}")
    ranking = [_ranking(results, policy) for policy in ("seen_filtered", "unfiltered")]
    tables = [_scores(results), *ranking, _differences(results), *_learning(root, results), _costs(results)]
    return Report(results, (*tables, *notes), lambda: [_figure(root, results)])


def read_results(root: Path) -> dict[str, Any]:
    """results.json of a finished real run. Raises RunError where it is missing or damaged."""
    file = root / "results.json"
    try:
        return read_json_file(file, RunError)
    except (OSError, RunError) as error:
        raise RunError(f"{file}: not readable ({error}); finish the run with --resume") from error


def _versus_start(root: Path) -> dict[str, dict[str, Any]]:
    """Paired differences of each method to the start, from the scores of each test prompt."""
    file = root / "scores.parquet"
    try:
        scores = read_table(file, RunError)
    except RunError as error:
        words = f"delete {root / 'manifest.json'} if the run is complete, then --resume makes it anew"
        raise RunError(f"{error}; {words}") from error
    seed = read_manifest(root)["seed"]
    rows = {name: scores.filter(model=name).drop("model") for name in scores["model"].unique(maintain_order=True)}
    metrics = {name: {c: own[c].to_numpy() for c in own.columns if c != "user"} for name, own in rows.items()}
    users = rows["start"]["user"].to_numpy()
    return {name: paired_differences(own, metrics["start"], users, seed) for name, own in metrics.items() if name != "start"}


def _learning(root: Path, results: dict[str, Any]) -> list[Table]:
    """None of a run that was not asked for it. Leaves the intervals in the results."""
    if not results.get("learning"):
        return []
    file = root / "learning.parquet"
    try:
        rows = learning_changes(of_users(read_table(file, RunError), results["learning"]))
    except RunError as error:
        raise RunError(f"{error}; finish the run with --resume") from error
    results["learning"] = rows
    return [learning_table(rows, "one seed", LEARNING_NOTE.format(over="users"))]


def _figure(root: Path, results: dict[str, Any]) -> Drawn:
    apply_style()
    figure, axes = plt.subplots(2, 2, figsize=(11, 8), layout="constrained")
    _draw_ranking(axes[0, 0], results)
    _draw_differences(axes[0, 1], results, "Ranking", _COMPARED[:2])
    _draw_all_zero(axes[1, 0], root, results)
    _draw_differences(axes[1, 1], results, "Pass@1", _COMPARED[2:])
    legend_above(figure, axes.flat[1:])
    words = f"One seed; {results['test_prompts']} test prompts of {results['test_users']} users, 95 % intervals over users."
    return Drawn("figure", "Ranking, change from the start, all-zero share", figure, words)


def _sids(sids: dict[str, Any]) -> str:
    words = f"semantic IDs of {' x '.join(map(str, sids['sizes']))} codes"
    words += f" ({sids['order_of_rows']})" if "order_of_rows" in sids else ""
    if "collisions" not in sids:
        return f"{words}, given with the data"
    words += ", given" if sids.get("method") == "given" else ""
    if not sids["collisions"]:
        return f"{words}: no two items share one{_agreement(sids)}"
    fate = f"{sids['moved']} moved to a free code" if "moved" in sids else "the last level tells them apart"
    if "kept" in sids:
        fate = "they keep it: IDs are ranked, and a hit of one is a hit of all its items"
    return f"{words}: {sids['collisions']} items shared their codes, {fate}{_agreement(sids)}"


def _agreement(sids: dict[str, Any]) -> str:
    known = {name.replace("_", " "): value for name, value in sids.get("agreement", {}).items() if value is not None}
    found = ", ".join(f"{name} {value:.3f}" for name, value in known.items())
    return f"; train co-occurrence cosine of pairs by shared levels: {found}" if found else ""


def _models(results: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {**results["references"], "start": results["sft"], **results["methods"]}


def _start(results: dict[str, Any]) -> str:
    """Where the methods started; runs of older versions did not say it, and were supervised."""
    return results["sft"].get("start", "supervised")


def _scores(results: dict[str, Any]) -> Table:
    counts = results["sft"].get("policy", "seen_filtered")
    other = "unfiltered" if counts == "seen_filtered" else "seen_filtered"
    rows = []
    for name, row in _models(results).items():
        values = [*(row[metric] for metric in _RANKING), row[other]["hr@10"]]
        values += [row["pass_at_1_sampled"], row["pass_at_1_greedy"], row["all_zero"], row.get("all_zero_expected_test")]
        rows.append((_STARTS[_start(results)] if name == "start" else name, *map(_number, values)))
    title = f"one seed, {results['test_prompts']} test prompts of {results['test_users']} users, whole catalog ranked"
    header = (
        "",
        *_RANKING,
        f"hr@10 {other.replace('_', ' ')}",
        "Pass@1 sampled",
        "Pass@1 greedy",
        "all-zero",
        "all-zero expected, test",
    )
    filtered = "seen items filtered" if counts == "seen_filtered" else "unfiltered, since users come back to items"
    if seen := results["sft"].get("targets_seen_before"):
        filtered += f" ({seen:.1%} of targets seen before)"
    note = f"hr, ndcg: {filtered}. all-zero: share of groups of {results['group_size']} rollouts without a hit,"
    note += f" sampled on train prompts; the paper has {results['paper_all_zero']:.2f} at G = 32."
    return Table(title, header, rows, note=note)


def _ranking(results: dict[str, Any], policy: str) -> Table:
    """Every ranking metric of a policy, whichever cuts the run had."""
    names = [name for name in results["sft"][policy] if "@" in name]
    rows = []
    for name, row in _models(results).items():
        shown = _STARTS[_start(results)] if name == "start" else name
        rows.append((shown, *(_number(row[policy].get(metric)) for metric in names)))
    return Table(f"ranking of the whole catalog, {policy.replace('_', ' ')}", ("", *names), rows)


def _differences(results: dict[str, Any]) -> Table:
    versus = {name: row["versus_start"] for name, row in results["methods"].items()}
    rows = [
        (name, *(f"{c['difference']:+.4f} [{c['low']:+.4f}, {c['high']:+.4f}]" for c in (cells[m] for m in _COMPARED)))
        for name, cells in versus.items()
    ]
    if versus:
        smallest = (max(cells[metric]["smallest_effect"] for cells in versus.values()) for metric in _COMPARED)
        rows.append(("smallest visible effect", *(f"{effect:.4f}" for effect in smallest)))
    title = f"difference to the {_start(results)} start, one seed, 95 % intervals by a bootstrap of test users"
    note = "The interval holds the test users' chance, not the training seed's. Smallest effect: 2.8 standard errors."
    return Table(title, ("", *_COMPARED), rows, note=note)


def _costs(results: dict[str, Any]) -> Table:
    rows = [
        (name, *(f"{row[column]:,}" for column in _BUDGET), f"{results['seconds'][f'rl/{name}']:.0f}")
        for name, row in results["methods"].items()
    ]
    return Table("what each method spent", ("", *(c.replace("_", " ") for c in _BUDGET), "seconds"), rows)


def _draw_ranking(axes: Axes, results: dict[str, Any]) -> None:
    models = _models(results)
    known = colours(models)
    names, place = list(models), np.arange(len(models))
    shades = [known[name] for name in names]
    axes.barh(place, [100 * models[name]["hr@10"] for name in names], color=shades)
    axes.set(yticks=place, yticklabels=names, xlabel="HR@10 (%), seen items filtered", title="Ranking of the whole catalog")
    better(axes, "right")
    axes.invert_yaxis()


def _draw_differences(axes: Axes, results: dict[str, Any], about: str, metrics: Sequence[str]) -> None:
    methods, known = results["methods"], colours(results["methods"])
    for index, (name, row) in enumerate(methods.items()):
        cells = [row["versus_start"][metric] for metric in metrics]
        place = np.arange(len(cells)) + min(0.18, 0.8 / len(methods)) * (index - (len(methods) - 1) / 2)
        middle = np.array([cell["difference"] for cell in cells])
        reach = np.abs(np.array([[cell["low"], cell["high"]] for cell in cells]).T - middle)
        axes.errorbar(100 * middle, place, xerr=100 * reach, fmt="o", color=known[name], label=name, capsize=2)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set(yticks=np.arange(len(metrics)), yticklabels=map(metric_words, metrics), title=f"{about}, change from the start")
    better(axes, "right")
    axes.set_xlabel("difference (percentage points), 95 % interval over users")
    axes.invert_yaxis()


def _draw_all_zero(axes: Axes, root: Path, results: dict[str, Any]) -> None:
    known = colours(results["methods"])
    for name in results["methods"]:
        steps = read_run(root / "rl" / results["methods"][name]["folder"]).steps
        if "before_all_zero" in steps.columns:
            window = max(1, min(_SMOOTH, len(steps) // 5))
            share = steps["before_all_zero"].rolling_mean(window)
            axes.plot(steps["rollouts"] / 1000, 100 * share, color=known[name], linestyle=look(name).dash, label=name)
    axes.axhline(100 * results["paper_all_zero"], color=INK, linestyle=":", label="paper, G = 32")
    axes.set(xlabel="generated rollouts (thousands)", ylabel="all-zero groups (%)", ylim=(0, 103))
    axes.set_title("All-zero share in training, running mean")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
