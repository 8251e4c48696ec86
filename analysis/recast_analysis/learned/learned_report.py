"""What `recast-report learned` says: the verdict, a row a figure, temperatures, and what could not be had; its files."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from recast_analysis.learned.changes_figure import changes_figure
from recast_analysis.learned.learned_verdict import (
    NATS,
    Changes,
    LearnedVerdict,
    changes_of,
    digits,
    interval,
    title,
    verdict_of,
)
from recast_analysis.learned.own_scores import read_stage
from recast_analysis.learned.paired_changes import Change
from recast_analysis.learned.paired_prompts import PairedPrompts, pair
from recast_analysis.learned.prompt_metrics import PromptFigures, prompt_figures
from recast_analysis.learned.scored_prompts import ScoredPrompts, read_scores
from recast_analysis.reports.report import Report, Table
from recast_sim.runs import derive_seed, write_json

_ONE_RUN = (
    "Intervals hold the chance of the test prompts alone. One BEFORE and one AFTER say nothing of another training run with "
    "another seed."
)


def read_side(path: Path, given: dict[str, str], beam: int | None, by_row: bool, before: Path | None = None) -> ScoredPrompts:
    """Scores of a file, or of an evaluated stage of our own runs. Raises LearnedError."""
    return read_stage(path, before) if path.is_dir() else read_scores(path, given, beam, by_row)


def report(before: ScoredPrompts, after: ScoredPrompts, supervised: ScoredPrompts | None, by_row: bool, seed: int) -> Report:
    """The comparison of two models on the prompts that both files have, and with a third where that is there.

    Raises:
        LearnedError: prompts that cannot be matched.
    """
    paired = pair(before, after, supervised, by_row)
    found = prompt_figures(paired, derive_seed(seed, "halves of the users"))
    changes = changes_of(paired, found)
    verdict = verdict_of(changes)
    counts = _counts(paired)
    notes = [*dict.fromkeys(note for side in (before, after, supervised) if side is not None for note in side.notes)]
    notes += [f"left out: {words}" for words in found.left_out]
    summary = _summary(paired, found, changes, verdict, notes)
    parts: list[Table | str] = [counts, f"verdict: {verdict.label}", *verdict.words, _table(changes)]
    if found.temperatures:
        parts.append(_temperatures(found))
    parts += [*notes, _ONE_RUN]
    return Report(summary, parts, lambda: [changes_figure(changes, verdict, counts)])


def write_learned(folder: Path, summary: dict[str, Any]) -> None:
    """learned.json, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "learned.json", summary)


def _counts(paired: PairedPrompts) -> str:
    of = f" of {paired.units:,} users" if paired.by_users else ""
    alone = [f"{count:,} of {name} have no partner" for name, count in paired.unmatched.items() if count]
    words = f"{len(paired.before):,} prompts{of} in pairs"
    return f"{words}; left out: {', '.join(alone)}" if alone else f"{words}, none left out"


def _table(changes: Changes) -> Table:
    third = bool(changes.supervised)
    rows = []
    for name, one in changes.own.items():
        lone = name in ("sharpened", "learned")
        cells = [title(name), "" if lone else digits(one.before), "" if lone else digits(one.after), interval(one)]
        cells.append("" if one.smallest_effect is None else digits(one.smallest_effect))
        if third:
            gained, beyond = changes.supervised.get(name), changes.beyond.get(name)
            cells += ["" if gained is None else interval(gained), "" if beyond is None else interval(beyond)]
        rows.append((*cells, f"{one.prompts:,}"))
    more = ("SUPERVISED - BEFORE", "AFTER - SUPERVISED") if third else ()
    header = ("", "BEFORE", "AFTER", "AFTER - BEFORE", "seen with 80 % power", *more, "prompts")
    note = "Paired differences with 95 % t intervals over users or prompts; log-likelihoods and entropy in nats."
    if changes.judged:
        judged = f"{len(changes.judged)} figures together" if len(changes.judged) > 1 else "one figure"
        note += (
            f" The verdict judges {judged} ({', '.join(map(title, changes.judged))}); effects are those seen at a level of "
            f"{changes.level:.2g}."
        )
    return Table("", header, rows, note=note)


def _temperatures(found: PromptFigures) -> str:
    words = "; ".join(f"{name} {', '.join(f'{T:.3g}' for T in fitted)}" for name, fitted in found.temperatures.items())
    return f"fitted temperatures: {words} (each half of the prompts is scored at the T that fits the other half)"


def _summary(
    paired: PairedPrompts, found: PromptFigures, changes: Changes, verdict: LearnedVerdict, notes: list[str]
) -> dict[str, Any]:
    def rows(some: dict[str, Change]) -> dict[str, Any]:
        return {name: asdict(one) | {"unit": "nats" if name.startswith(NATS) else "share"} for name, one in some.items()}

    return {
        "before": paired.before.source,
        "after": paired.after.source,
        "supervised": None if paired.supervised is None else paired.supervised.source,
        "prompts": len(paired.before),
        "users": paired.units if paired.by_users else None,
        "unmatched": paired.unmatched,
        "verdict": verdict.label,
        "words": verdict.words,
        "judged": verdict.judged,
        "level": changes.level,
        "figures": rows(changes.own),
        "supervised_minus_before": rows(changes.supervised),
        "after_minus_supervised": rows(changes.beyond),
        "temperatures": {name: list(fitted) for name, fitted in found.temperatures.items()},
        "notes": notes,
    }
