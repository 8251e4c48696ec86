"""A made-up reward that some rollouts of a random model get, and a structural score without ties among the others."""

import zlib
from typing import Any


def compute_score(data_source: str, solution_str: str, ground_truth: str, extra_info: Any = None, **_: Any) -> dict[str, float]:
    number = zlib.crc32(f"{solution_str} {ground_truth}".encode())
    hit = number % 4 == 0
    return {"score": float(hit), "structural": 1.0 if hit else number % 997 / 1000}
