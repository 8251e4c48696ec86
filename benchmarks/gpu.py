"""Actor update, step and rollout of the four corners on one NVIDIA card: Qwen3 shapes, random weights, bf16, AdamW.

    python benchmarks/gpu.py [--minutes 9] [--out benchmarks/results/gpu-NAME.json]
    python benchmarks/gpu.py --dry-run      # tiny shapes on the CPU: that it runs, no figures

The corners: a group's 32 rows or 2 of them, the prompt repeated in every row or computed once. Beside them stand the two
that compute logits at every position. The paper (arXiv 2604.22169; 64 NPUs, 8B, G = 32) reports 16.60 times less actor time,
a step of 77.00 s instead of 371.54 s, 16.5 % less peak memory and 14.2 % more MFU: these figures stand beside the same ratios
here. A step is the rollout, the old and the reference pass and the update. Cases run in the order of what they tell until the
time is up; each is written as it is done, and one that does not fit the card's memory says so.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that a checkout runs without being installed

import torch
from gpu_cases import Batch, Case, Way, World, build, corners, flops, forward, median_and_peak, positions, step
from harness import Entry, Result, report

from recast_train.model import SidModel
from recast_train.rl.cost import mfu, peak_flops
from recast_train.rollout import ThoughtConfig, ThoughtMarkers, sample_rollouts, sample_thoughts

CASES = [
    *(Case("qwen3-0.6b", 4, prompt, response) for response in (3, 128) for prompt in (512, 2048)),
    *(Case("qwen3-1.7b", 4, prompt, response) for response in (3, 128) for prompt in (512, 2048)),
    *(Case("qwen3-8b", 1, prompt, 3) for prompt in (512, 2048)),
]
DRY_CASES = [Case("tiny", 2, 12, 3), Case("tiny", 2, 12, 5)]
DRY_WORLD = World(text_tokens=50, codes=8, items=40, group_size=4, max_positions=48)
REPEATS = 3
PAPER = (
    "arXiv 2604.22169 (8B, G = 32, 64 NPUs): "
    "actor time 16.60 x, step time 371.54 / 77.00 = 4.83 x, peak memory saved 16.5 %, MFU gained 14.2 %"
)


def measure_case(case: Case, world: World, device: torch.device, left: Callable[[], float]) -> list[dict[str, Any]]:
    """A row for each corner, as long as seconds are left."""
    model = build(case, world, device)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=device.type == "cuda")
    batch, rows = Batch.random(case, world, device), []
    rollout = median_and_peak(lambda: roll_out(model, case, batch, world), device, 1)[0]
    for way in corners(world.group_size):
        if left() <= 0:
            break
        rows.append({"case": str(case), "way": str(way), **asdict(way), **_corner(model, case, batch, way, world, optimiser)})
        if rows[-1]["update_s"] is not None:
            tokens = case.prompts * world.group_size * case.response
            passes = rollout + 2 * rows[-1]["forward_s"] + rows[-1]["update_s"]
            rows[-1] |= {"rollout_s": rollout, "rollout_tokens_per_s": tokens / rollout, "step_s": passes}
    return rows


def roll_out(model: SidModel, case: Case, batch: Batch, world: World) -> None:
    """A group for each prompt: semantic IDs, or as many free texts as rows."""
    generator = torch.Generator().manual_seed(2)
    if case.response == model.levels:
        sample_rollouts(model, batch.prompts, world.group_size, generator)
        return
    whole = batch.prompts.take(torch.arange(case.prompts, device=model.device).repeat_interleave(world.group_size))
    sample_thoughts(model, whole, ThoughtConfig(case.response), ThoughtMarkers(world.text_tokens - 1), generator)


def _corner(model: SidModel, case: Case, batch: Batch, way: Way, world: World, optimiser: Any) -> dict[str, Any]:
    device = model.device
    try:
        update, peak = median_and_peak(lambda: step(model, batch, way, world, optimiser), device, REPEATS)
        passed, _ = median_and_peak(lambda: forward(model, batch, way, world), device, REPEATS)
    except torch.OutOfMemoryError:
        optimiser.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()
        return {"tokens": positions(case, way), "update_s": None, "peak_gib": None, "mfu": None, "forward_s": None}
    used = mfu(flops(model, case, way), update, peak_flops(device))
    return {"tokens": positions(case, way), "update_s": update, "peak_gib": peak, "mfu": used, "forward_s": passed}


def entries(rows: list[dict[str, Any]], group_size: int) -> list[Entry]:
    """What dropping rows, sharing prompts and both save in each case, beside the paper's figures."""
    found = []
    for case in dict.fromkeys(row["case"] for row in rows):
        of = {row["way"]: row for row in rows if row["case"] == case and row["update_s"] is not None}
        full, plain, dropped, shared, both = (
            of.get(str(way))
            for way in (
                Way(group_size, False, True),
                Way(group_size, False),
                Way(2, False),
                Way(group_size, True),
                Way(2, True),
            )
        )
        pairs = (
            ("rows dropped", plain, dropped),
            ("prompt shared", plain, shared),
            ("rows dropped, prompt shared", shared, both),
        )
        for name, before, after in (*pairs, ("both", plain, both), ("both, against full logits", full, both)):
            if before and after:
                found += _ratios(f"{case}: {name}", before, after)
    return found


def _ratios(name: str, before: dict[str, Any], after: dict[str, Any]) -> list[Entry]:
    made = [
        Entry(f"claim {claim}: {name}: {label}", before[key] / after[key], "x")
        for claim, key, label in ((5, "update_s", "actor time"), (6, "step_s", "step time"))
    ]
    if before["peak_gib"]:
        made.append(Entry(f"claim 7: {name}: peak memory saved", 100 * (1 - after["peak_gib"] / before["peak_gib"]), "%"))
    if before["mfu"]:
        made.append(Entry(f"claim 8: {name}: MFU gained", 100 * (after["mfu"] / before["mfu"] - 1), "%"))
    return made


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9.0, help="no case or corner begins after this time")
    parser.add_argument("--out", type=Path, help="JSON file, written after every case; a Markdown table goes beside it")
    parser.add_argument("--dry-run", action="store_true", help="tiny shapes on the CPU")
    options = parser.parse_args(arguments)
    if not options.dry_run and not torch.cuda.is_available():
        print("gpu.py: torch sees no NVIDIA card; run it where there is one, or with --dry-run", file=sys.stderr)
        return 2
    device = torch.device("cpu" if options.dry_run else "cuda")
    if options.dry_run:
        torch.set_num_threads(1)
    cases, world = (DRY_CASES, DRY_WORLD) if options.dry_run else (CASES, World())
    end, rows, notes = time.monotonic() + 60 * options.minutes, [], []
    for case in cases:
        if time.monotonic() >= end:
            notes.append(f"{case}: not run, the time was up")
            continue
        try:
            rows += measure_case(case, world, device, lambda: end - time.monotonic())
        except torch.OutOfMemoryError:
            notes.append(f"{case}: does not fit the card's memory")
        if device.type == "cuda":
            torch.cuda.empty_cache()
        result = _result(rows, world, device, notes)
        if options.out:
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps({"gpu": result}, indent=1) + "\n")
            options.out.with_suffix(".md").write_text(report(result) + "\n")
        print(f"{case}: done, {end - time.monotonic():.0f} s left", flush=True)
    print(report(_result(rows, world, device, notes)))
    return 0


def _result(rows: list[dict[str, Any]], world: World, device: torch.device, notes: list[str]) -> dict[str, Any]:
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU, dry run: no figure of a GPU"
    settings = {**asdict(world), "repeats": REPEATS, "precision": "bf16" if device.type == "cuda" else "fp32", "card": card}
    shown = ("case", "way", "tokens", "update_s", "forward_s", "rollout_s", "step_s", "rollout_tokens_per_s", "peak_gib", "mfu")
    table: list[Mapping[str, Any]] = [{key: "" if (value := row.get(key)) is None else value for key in shown} for row in rows]
    return Result(entries(rows, world.group_size), table, settings, [card, PAPER, *notes]).json()


if __name__ == "__main__":
    sys.exit(main())
