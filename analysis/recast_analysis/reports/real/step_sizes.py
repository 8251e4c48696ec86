"""What `recast-train sizes` says: modelled steps of Qwen3 sizes, and the paper's figures against counting."""

from collections.abc import Mapping, Sequence
from typing import Any

from recast_analysis.reports.report import Report, Table

_GIGA = 2**30
_NOTE = (
    "Modelled from counts, nothing here was measured on a card: public figures of the card times assumed utilisations "
    "(docs/step-model.md). A prompt a card, 32 rows of 3,384 tokens, all kept or two; communication as if nothing hid it. "
    "'Sending' is its part of the step; no thoughts, no rewards, no waking of an engine."
)


def report(found: Mapping[str, Any]) -> Report:
    """A table for each trainer, then the paper's figures."""
    ways = list(dict.fromkeys(row["way"] for row in found["sizes"]))
    tables = [_sizes(way, found["card"], [row for row in found["sizes"] if row["way"] == way]) for way in ways]
    return Report(dict(found), [*tables, _NOTE, _thought(found["thought"]), _paper(found["paper"])])


def _sizes(way: str, card: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    header = (
        *("model", "cards", "rollout", "old, reference", "actor", "sending", "step"),
        *("actor: factor", "step: factor", "peak (GiB)", "saved", "MFU"),
    )
    cells = [
        (
            row["size"],
            str(row["cards"]),
            f"{row['rollout']:.3g}",
            *(_pair(row[name]) for name in ("inference", "actor", "sending", "whole")),
            f"{row['actor_factor']:.1f}",
            f"{row['step_factor']:.1f}",
            _pair([value / _GIGA for value in row["memory"]]) + ("" if row["fits"] else " (too much)"),
            f"{row['memory_saved']:.0%}",
            f"{row['mfu_gain']:+.1%}",
        )
        for row in rows
    ]
    return Table(f"{way}, {card}: seconds with 32 rows, with 2", header, cells)


def _thought(seconds: Mapping[str, float]) -> str:
    return (
        f"Rollouts behind a thought of 1,024 tokens, 8B on 64 cards: {seconds['engine']:.0f} s from an engine's own copy, "
        f"{seconds['own']:.0f} s from our model under fsdp2, whose shards are gathered for every token."
    )


def _paper(found: Mapping[str, Mapping[str, float]]) -> Table:
    actor, step, memory, mfu = (found[name] for name in ("actor", "step", "memory", "mfu"))
    rows = [
        (
            "actor 211.04 s to 12.71 s",
            f"{actor['paper']:.2f}x",
            f"{actor['by_rows']:.0f}x by rows and optimiser steps, {actor['by_tokens']:.2f}x by the paper's tokens "
            f"({actor['rows_kept']:.2f} rows a group)",
            f"a row {actor['needed_beyond_rows']:.1%} faster than before; {actor['flops_if_computing'] / 1e12:.0f} TFLOP/s "
            f"a card if all is computing, {actor['link_if_sending'] / 1e9:.0f} GB/s if all is sending",
        ),
        (
            "step 371.54 s to 77.00 s",
            f"{step['paper']:.2f}x",
            f"old and reference {step['inference_by_flops']:.0f} s by FLOPs ({step['inference_by_bytes']:.0f} s by bytes, "
            f"a row a pass), so {step['after_by_flops']:.1f} s after",
            f"old and reference {step['needed_inference']:.0f} s, {step['needed_rest']:.0f} s that stay",
        ),
        (
            "peak memory -16.5 %",
            f"-{memory['paper']:.1%}",
            f"-{memory['counted']:.0%}: {_pair([memory['peak_before'] / _GIGA, memory['peak_after'] / _GIGA])} GiB with the "
            "script's 40,960 tokens a pass",
            f"{memory['needed_total'] / _GIGA:.0f} GiB in use, or passes of at most {memory['needed_pass_rows']:.1f} rows "
            "on 64 GB",
        ),
        (
            "actor MFU +14.2 %",
            f"+{mfu['paper']:.1%}",
            f"+{mfu['by_seconds_and_tokens']:.1%} from the paper's seconds and tokens; "
            f"+{mfu['by_steps_and_tokens']:.1%} if an optimiser step's time stays",
            f"{mfu['needed_tokens'] / 1e6:.3f} M tokens for 'about 0.47 M'",
        ),
    ]
    header = ("the paper (8B, 64 cards)", "figure", "counting", "what would have to be true")
    return Table("the paper's figures against counting", header, rows, words=(header[0], *header[2:]))


def _pair(values: Sequence[float]) -> str:
    return " to ".join(f"{value:.3g}" for value in values)
