"""What `recast-train tokenize` says of a table of semantic IDs."""

from collections.abc import Iterator, Mapping
from typing import Any

from recast_analysis.reports.report import Report, Table

_RELIED_ON = (
    "agreement: recast's structural score takes a shared prefix for a shared taste and relies on this; with lifts near 1 it is "
    "noise. Train interactions made the SVD's IDs and flatter them; held-out ones did not."
)
_ERROR = "reconstruction error: squared, from the levels so far, over the spread of the embeddings; before any item moves"


def report(made: Mapping[str, Any]) -> Report:
    """What each level does, how far shared prefixes agree with co-occurrence, and what became of collisions."""
    return Report(dict(made), [_levels(made), _agreement(made), _RELIED_ON, _ERROR, *_notes(made)])


def _levels(made: Mapping[str, Any]) -> Table:
    header = ("level", "codes", "in use (%)", "perplexity", "distinct prefixes", "reconstruction error")
    errors = [_number(error) for error in made["reconstruction_error"]]
    rows = [
        (
            str(level + 1) if level < len(errors) else "index",
            str(size),
            f"{100 * made['utilisation'][level]:.1f}",
            f"{made['perplexity'][level]:.1f}",
            str(made["prefixes"][level]),
            errors[level] if level < len(errors) else "",
        )
        for level, size in enumerate(made["sizes"])
    ]
    return Table(f"semantic IDs of {made['items']} items by {made['method']}", header, rows)


def _agreement(made: Mapping[str, Any]) -> Table:
    rows = []
    for name in made["train_agreement"]:
        cells = []
        for split in ("train", "heldout"):
            cells += [_number(made[f"{split}_agreement"][name]), _number(made[f"{split}_lift"].get(name), 2)]
        level = name.removeprefix("level_")
        rows.append(({"random": "all", "1": "share level 1"}.get(level, f"share levels 1 to {level}"), *cells))
    return Table("co-occurrence cosine of item pairs by shared levels", ("pairs", "train", "lift", "held-out", "lift"), rows)


def _notes(made: Mapping[str, Any]) -> Iterator[str]:
    shared = (
        f"collisions: {made['collisions']} of {made['items']} items shared their codes, {made['largest_cluster']} at most; "
    )
    if "moved" in made:
        before, after = made["reconstruction_error"][-1], made["reconstruction_error_moved"]
        shared += f"{made['moved']} moved to the nearest free code: reconstruction error {_number(before)} to {_number(after)}"
    else:
        shared += "they keep it, and a hit of one is a hit of all" if "kept" in made else "the last level tells them apart"
    yield shared
    if "order_of_rows" in made:
        yield made["order_of_rows"]
    if unknown := made.get("items_without_embedding"):
        yield f"{unknown} items are in no train sequence, or have a row of zeros: they lie between drawn known ones"
    yield f"sha256: {made['sha256']}"
    yield f"files: {', '.join(made['files'])}"


def _number(value: float | None, digits: int = 4) -> str:
    return "" if value is None else f"{value:.{digits}f}"
