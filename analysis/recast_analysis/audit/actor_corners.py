"""What the actor would read in each of four corners: all rows of a group or a pair, prompts repeated for each row or shared.

For a group of n rows with prompt length P and response lengths R_i, the actor reads

    repeated    n P + sum of R_i                  as verl and TRL feed it
    shared      P + sum of (R_i - 1)              the prompt once; a response's last token is predicted, never read

and the same with n = 2 and responses of the group's mean length for the pair. A group is kept for a pair where it has a miss: a
group without a hit is given one (which takes a target), one of hits alone has no negative.
"""

from typing import Any

import polars as pl

LEAST = 2  # rows that a pair takes


def actor_corners(table: pl.DataFrame) -> dict[str, Any] | None:
    """Lengths read in the four corners, each with the factor saved against all rows with repeated prompts.

    None where the lengths of prompts and responses are not both known.
    """
    if not {"prompt_length", "response_length"} <= set(table.columns):
        return None
    n, prompts, responses = pl.col("rows"), pl.col("prompt_length"), pl.col("response_length")
    kept = (n >= LEAST) & (pl.col("hits") < n)
    prompt, response = prompts / n, responses / n
    corners = table.select(
        all_rows_repeated=(prompts + responses).sum(),
        all_rows_shared=(prompt + (responses - n).clip(0)).sum(),
        pair_repeated=(LEAST * (prompt + response)).filter(kept).sum(),
        pair_shared=(prompt + LEAST * (response - 1).clip(0)).filter(kept).sum(),
    ).row(0, named=True)
    base = corners["all_rows_repeated"]
    return {
        **table.select(
            mean_prompt=prompts.sum() / n.sum(),
            mean_response=responses.sum() / n.sum(),
            groups_with_a_pair=kept.mean(),
        ).row(0, named=True),
        "lengths": corners,
        "factors": {name: base / length if length else None for name, length in corners.items()},
    }
