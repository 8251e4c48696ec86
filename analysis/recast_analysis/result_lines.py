"""A run in three lines: what was compared, what was found, how sure that is. And whether it was a smoke run.

Every figure is one of the report's summary; nothing is measured here.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from recast_analysis.drawing.words import count_words, gain_text, interval_text, metric_words
from recast_analysis.measures.metric_names import GREEDY

_STEPS, _PROMPTS, _WORLDS = 50, 500, 5  # with fewer a run shows that it runs, and no figure of it is a result
_NDCG = "ndcg@10"
_UNTRAINED = ("base", "base_temperature", "base_level_weights")
Summary = Mapping[str, Any]


def result_lines(kind: str, summary: Summary) -> list[str]:
    """Three lines on a finished run of a kind; fewer where the run holds no more, none for a kind that is not known."""
    return _LINES[kind](summary) if kind in _LINES else []


def smoke_words(kind: str, config: Mapping[str, Any]) -> str:
    """A sentence on a run too small for results, from the config in its manifest; empty for any other run."""
    # 0 prompts are all of them
    few = [words for key, least, words in _LEAST.get(kind, ()) if (found := _at(config, key)) and found < least]
    if not few:
        return ""
    small = ", ".join(words.format(_at(config, key)) for key, _, words in _LEAST[kind] if words in few)
    return f"Smoke run ({small}): it shows that everything runs, and no figure of it is a result."


_LEAST = {  # by kind: a key of the config, the least that is no smoke, words
    "real": (("rl.steps", _STEPS, "{} RL steps"), ("evaluation.prompts", _PROMPTS, "{} test prompts")),
    "real-study": (("setting.rl.steps", _STEPS, "{} RL steps"), ("seeds", _WORLDS, "{} seeds")),
    "simulation": (("training.steps", _STEPS, "{} steps"),),
    "budget": (("setting.training.steps", _STEPS, "{} steps"), ("protocol.seeds", _WORLDS, "{} worlds")),
    "map": (("setting.training.steps", _STEPS, "{} steps"), ("protocol.seeds", _WORLDS, "{} worlds")),
}


def _at(config: Any, key: str) -> Any:
    for name in key.split("."):
        config = config.get(name) if isinstance(config, Mapping) else None
    return config


def _real(summary: Summary) -> list[str]:
    start, methods = summary["sft"][_NDCG], summary["methods"]
    what = f"{len(methods)} methods from one start, one seed, {summary['test_prompts']:,} test prompts."
    changes = {name: row["versus_start"][_NDCG] for name, row in methods.items()}
    if not changes:
        return [what, f"{_NDCG} of the start: {start:.4f}."]
    best = max(changes, key=lambda name: changes[name]["difference"])
    gain = changes[best]
    found = f"{gain['difference']:+.4f} [{gain['low']:+.4f}, {gain['high']:+.4f}]"
    return [what, f"{_NDCG}: start {start:.4f}; {best} ends highest, {found}.", _told(changes, "the start", "users")]


def _study(summary: Summary) -> list[str]:
    label, setting = next(iter(summary["settings"].items()))
    changes = {name: setting["metrics"][_NDCG][name]["versus_start"] for name in summary["methods"]}
    changes = {name: change for name, change in changes.items() if change is not None}
    starts = count_words(len(summary["settings"]), "starting point")
    what = f"{len(summary['methods'])} methods, {summary['seeds']} seeds, {starts}."
    if not changes:
        return [what]
    best = max(changes, key=lambda name: changes[name]["value"])
    found = f"{label}, {_NDCG}: {best} ends highest, {interval_text(changes[best], percent=True)} of the start's."
    return [what, found, _told(changes, "the start", "seeds and users")]


def _comparison(summary: Summary) -> list[str]:
    known = {name: row["greedy"] for name, row in summary["learning"]["rows"].items() if row["greedy"] is not None}
    rows = {name: gain for name, gain in known.items() if name not in _UNTRAINED}
    worlds = summary.get("reported_worlds", summary.get("worlds"))
    what = f"{len(rows)} methods in {worlds} worlds, {count_words(len(summary.get('settings', ('',))), 'setting')}."
    if not rows:
        return [what]
    best = max(rows, key=lambda name: rows[name]["value"])
    found = f"Greedy Pass@1: {best} ends highest, {interval_text(rows[best], percent=True)} of the base policy's"
    control = known.get("base_level_weights")
    found += "." if control is None else f"; weights of levels alone, without training, {interval_text(control, percent=True)}."
    return [what, found, _told(rows, "the base policy", "worlds")]


def _map(summary: Summary) -> list[str]:
    pooled = [row for row in summary["pooled"] if row["gain"] is not None]
    what = f"{len(summary['pooled'])} changes in {summary['settings']} settings, {summary['seeds']} worlds each."
    if not pooled:
        return [what]
    row = next((row for row in pooled if row["metric"] == GREEDY), pooled[0])
    pair = f"{row['method']} against {row['against']}"
    found = f"{metric_words(row['metric'])}, all settings: {pair} {gain_text(row['gain'], row['metric'])}."
    told = [cell for cell in summary["cells"] if cell["significant"]]
    return [
        what,
        found,
        f"Told from nothing (false discovery rate 5 %): {len(told)} of {len(summary['cells'])} cells' changes.",
    ]


def _gradients(summary: Summary) -> list[str]:
    rows = [row for row in summary["reports"] if row["group_size"] == summary["group_size"]]
    cosines = {row["constructor"]: row["cosine"] for row in rows if row["cosine"] is not None}
    what = f"{len(rows)} constructors at one base policy, G = {summary['group_size']}, {summary['prompts']:,} train prompts."
    ranked = sorted(cosines, key=cosines.__getitem__)
    if not ranked:
        return [what]
    ends = f"highest {_of(ranked[-1], cosines)}, lowest {_of(ranked[0], cosines)}"
    return [what, f"Cosine to the exact gradient of sampled Pass@1: {ends}.", "One world, no interval."]


def _check(summary: Summary) -> list[str]:
    judged = [row for row in summary["findings"] if row["holds"] is not None]
    broken = [row["what"] for row in judged if not row["holds"]]
    name, cost = summary["constructor"], summary["cost"]
    return [
        f"{name}: {len(judged) - len(broken)} of {len(judged)} declarations hold.",
        f"Broken: {', '.join(broken) or 'none'}.",
        f"It takes {cost[name] / cost['grpo']:.2f} of grpo's time.",
    ]


def _claims(summary: Summary) -> list[str]:
    verdicts = [row["verdict"] for row in summary["claims"]]
    counts = {verdict: verdicts.count(verdict) for verdict in dict.fromkeys(verdicts)}
    told = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    claims = sorted({row["claim"] for row in summary["claims"]})
    return [f"{len(verdicts)} measurements of claims {', '.join(map(str, claims))}.", f"Verdicts: {told}."]


def _theory(summary: Summary) -> list[str]:
    what = f"{len(summary['weights'])} constructors in closed form, G = {summary['group_size']}"
    return [f"{what}, mean hit rate {summary['hit_rate']:.3g}.", "Nothing is sampled, so there is no interval."]


def _simulation(summary: Summary) -> list[str]:
    steps, value = summary["step"], summary.get(GREEDY)
    lines = [f"{summary['constructor']} in one world, {steps or 0:,} steps, {summary['rollouts'] or 0:,} rollouts."]
    lines += [] if value is None else [f"Greedy Pass@1 on held-out prompts at the end: {value:.4f}."]
    return [*lines, "One seed, no interval."]


def _stage(summary: Summary) -> list[str]:
    what = f"One stage of a real run, {summary['status']}, {summary.get('step') or 0:,} steps."
    known = [f"{_NDCG} on validation prompts at the end: {summary[_NDCG]:.4f}."] if summary.get(_NDCG) is not None else []
    return [what, *known, "One seed, no interval."]


def _search(summary: Summary) -> list[str]:
    done = [row for row in summary["candidates"] if row["failed"] is None]
    failed = len(summary["candidates"]) - len(done)
    what = f"{len(done)} supervised starts compared on validation prompts" + (f", {failed} failed." if failed else ".")
    best = [f"Best {_NDCG}: {done[0]['candidate']}, {done[0][_NDCG]:.4f}."] if done else []
    return [what, *best, "One seed; standard errors over prompts stand in the table."]


def _told(changes: Mapping[str, Mapping[str, Any]], start: str, chance: str) -> str:
    above = [name for name, row in changes.items() if (row["low"] or 0) > 0]
    below = [name for name, row in changes.items() if (row["high"] or 0) < 0]
    if all(row["low"] is None for row in changes.values()):
        return "One seed, no interval."
    return f"Told from {start} (95 % over {chance}): above {_names(above)}; below {_names(below)}."


def _names(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"


def _of(name: str, values: Mapping[str, float]) -> str:
    return f"{name} {values[name]:+.3f}"


_LINES: dict[str, Callable[[Summary], list[str]]] = {
    "real": _real,
    "real-study": _study,
    "real-search": _search,
    "quickstart": _comparison,
    "budget": _comparison,
    "map": _map,
    "claims": _claims,
    "check": _check,
    "gradients": _gradients,
    "theory": _theory,
    "simulation": _simulation,
    "real-rl": _stage,
    "real-sft": _stage,
}
