"""What `recast-train run --dry-run` says of a run that was not started."""

from collections.abc import Mapping
from typing import Any

from recast_analysis.reports.report import Report, Table

_GIGA = 2**30
_NOTE = (
    "Estimates: memory without what the allocator, the CUDA context and communication take (leave a fifth free), activations "
    "of the longest rows of a pass; a step of RL counted as if its constructor kept every row, which recast does not. Disk: "
    "weights and one checkpoint of each stage. The same line without --dry-run starts the run."
)


def report(found: Mapping[str, Any]) -> Report:
    """Data and model, memory, a step by phase, and what the stages compute."""
    return Report(dict(found), [_model(found), _memory(found), _step(found), _work(found), *_warnings(found), _NOTE])


def _model(found: Mapping[str, Any]) -> Table:
    data, ids, length = found["data"], found["semantic_ids"], found["prompt_tokens"]
    sizes = " x ".join(map(str, ids["sizes"])) + (" (not made yet)" if ids["stand_in"] else "")
    rows = [
        ("items", f"{data['items']:,}"),
        ("prompts: train, validation, test", ", ".join(f"{data[name]:,}" for name in ("train", "validation", "test"))),
        ("codes of the semantic IDs", sizes),
        ("tokens that the tokenizer lacks", f"{ids['new_tokens']:,}"),
        ("tokens of a prompt: mean, longest", f"{length['mean']:.1f}, {length['max']:,}"),
        ("parameters", f"{found['parameters']:,}"),
        ("processes", str(found["processes"])),
    ]
    return Table("data and model", ("", "value"), rows)


def _memory(found: Mapping[str, Any]) -> Table:
    names = {"supervised": "supervised training", "rl": "RL update"}
    rows = [
        (names[name], *(_gigabytes(part[kind]) for kind in ("weights", "activations")), _gigabytes(sum(part.values())))
        for name, part in found["memory"].items()
    ]
    rows.append(("keys and values of the rollouts", "", _gigabytes(found["rollout_cache"]), ""))
    header = ("", "weights, gradients, AdamW", "activations of a pass", "together")
    return Table("memory of a process (GiB)", header, rows)


def _step(found: Mapping[str, Any]) -> Table:
    step = found["step"]
    phases = next(iter(step["seconds"].values()))
    rows = [(phase, *(f"{of[phase]:.3g}" for of in step["seconds"].values())) for phase in phases]
    note = "Modelled from counts, not measured (docs/step-model.md): evaluation, rewards and the signal are left out."
    return Table(f"one RL step by phase (seconds, {step['machine']})", ("", *step["seconds"]), rows, note=note)


def _work(found: Mapping[str, Any]) -> Table:
    tokens, steps, disk = found["tokens"], found["steps"], found["disk"]
    hours = found["hours"]
    rows = [
        ("supervised steps", f"{steps['supervised']:,}"),
        ("RL steps, all methods", f"{steps['rl']:,}"),
        *((f"tokens: {name}", f"{count:,.0f}") for name, count in tokens.items()),
        ("hours", "state --tokens-per-second, as a short run shows it" if hours is None else _hours(hours)),
        ("disk (GiB): needed, free", f"{_gigabytes(disk['bytes'])}, {_gigabytes(disk['free'])}"),
    ]
    return Table("work", ("", "value"), rows)


def _warnings(found: Mapping[str, Any]) -> list[str]:
    disk = found["disk"]
    words = ["warning: the disk is too small for it"] if disk["bytes"] > disk["free"] else []
    if found["missing_device"]:
        words.append("warning: device: cuda is not available here, where the run would end at once; seconds are this CPU's")
    return words


def _hours(count: float) -> str:
    return f"{count:,.1f}" if count >= 1 else f"{count:.2g}"


def _gigabytes(count: float) -> str:
    return f"{count / _GIGA:.3g}"
