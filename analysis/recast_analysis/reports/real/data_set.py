"""What `recast-train data describe` says of a data set."""

from collections.abc import Iterator, Mapping
from typing import Any

from recast_analysis.reports.report import Report, Table

_METRICS = ("hr@10", "ndcg@10")
_POLICIES = ("seen_filtered", "unfiltered")
_SHARED = (
    "Items share semantic IDs: IDs are ranked, each as good as its best item, and a hit of an ID is a hit of all its items; "
    "--sids.collisions level tells them apart in a run."
)


def report(found: Mapping[str, Any]) -> Report:
    """What is in the data, how it was read, and what the references reach on it."""
    parts: list[Table | str] = [Table(found["path"], ("", found["format"]), list(_contents(found)))]
    parts += [f"read as {found['format']}: {found['recognised']}", *found["notes"]]
    known = found["references"]
    parts.append("references: none, they need train and test prompts" if known is None else _reached(known))
    return Report(dict(found), [*parts, _SHARED] if found["shared_sids"] else parts)


def _contents(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name in ("users", "items", "interactions"):
        yield name, f"{found[name]:,}"
    yield "sequence length: min, median, max", ", ".join(f"{value:g}" for value in found["lengths"].values())
    for name, core in (("users", "user core"), ("items", "item core")):
        gone = found["dropped"]
        yield f"dropped by the {core}", f"{gone[name]:,} {name}, {gone[f'interactions_of_{name}']:,} interactions"
    tied = found["tied_in_time"]
    shown = "no times: the order is that of the file" if tied is None else f"{tied:.1%}"
    yield "interactions tied in time with another", shown
    yield "split", found["split"]
    yield "prompts: train, validation, test", ", ".join(f"{count:,}" for count in found["prompts"].values())
    yield "targets of a prompt, at most", str(found["targets_per_prompt"])
    sizes = found["semantic_ids"]
    yield "semantic IDs given", "no" if sizes is None else " x ".join(map(str, sizes))
    if sizes is not None:
        yield "items that share their semantic ID with another", f"{found['shared_sids']:.1%}"
    yield "titles", "yes" if found["titles"] else "no"
    yield "popularity: Gini", f"{found['popularity']['gini']:.3f}"
    yield "popularity: share of the top tenth of items", f"{found['popularity']['top_tenth_share']:.1%}"


def _reached(known: Mapping[str, Any]) -> Table:
    header = ("", *(f"{metric}, {policy.replace('_', ' ')}" for policy in _POLICIES for metric in _METRICS))
    rows = [
        (name, *(f"{row[policy][metric]:.4f}" for policy in _POLICIES for metric in _METRICS))
        for name, row in known["metrics"].items()
    ]
    note = (
        f"item_knn: {known['item_knn_neighbours'] or 'all'} neighbours, chosen on validation prompts; targets seen before: "
        f"{100 * known['targets_seen_before']:.3g} %, so that {known['policy'].replace('_', ' ')} is the metric that counts."
    )
    return Table(f"references on {known['test_prompts']:,} test prompts, whole catalog ranked", header, rows, note=note)
