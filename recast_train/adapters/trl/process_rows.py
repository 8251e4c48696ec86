"""Which rows of a plan a process hands to TRL, in which micro-batch, and the fillers that keep all processes' counts equal.

Axis letters: P prompts of all processes, G rollouts, N kept rows of all processes, B blocks, W rows of a block, R rows of one
process.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recast_sim.signal import Signal
from recast_train.adapters.trl.contract import Generated

Tokens = list[int]
Row = tuple[Tokens, Tokens, list[int], Sequence[float | None]]  # prompt, completion, mask, log-probabilities


@dataclass(frozen=True)
class Split:
    """A generation batch is spread over `ranks` processes and, on each, over `steps` micro-batches of at most `room` rows."""

    rank: int
    ranks: int
    steps: int
    room: int


@dataclass(frozen=True)
class ProcessLayout:
    """One process's rows.

    Attributes:
        row_R: indices into the plan's N rows, -1 for a filler; micro-batches of equal length one after the other.
        row_scale: rows of all processes, fillers included, over kept rows: it turns a mean over the first into one over the
            second.
        batch_scale: the same of micro-batches and those that hold a kept row.
    """

    row_R: Tensor
    row_scale: float
    batch_scale: float


def lay_out(rows_N: Tensor, group_size: int, prompts: int, split: Split) -> ProcessLayout:
    """Spread flat rows (p * group_size + g, ascending) over processes, the first prompts being rank 0's, and micro-batches.

    A group's rows are a block and stay in one micro-batch; where the widest group is wider than `room`, each row is a block.
    Every process gets as many blocks as the fullest one needs, rounded up to a multiple of `steps`: TRL gathers over processes
    and cuts a batch into equal parts.
    """
    group_N, every_N = rows_N // group_size, torch.arange(len(rows_N))
    fits = int(torch.bincount(group_N, minlength=1).max()) <= split.room
    _, block_N, count_B = torch.unique_consecutive(group_N if fits else every_N, return_inverse=True, return_counts=True)
    first_B, width = count_B.cumsum(0) - count_B, max([1, *count_B.tolist()])
    table_BW = torch.full((len(count_B), width), -1)
    table_BW[block_N, every_N - first_B[block_N]] = every_N
    rank_B = group_N[first_B] * split.ranks // prompts
    blocks = torch.bincount(rank_B, minlength=split.ranks)
    depth = max(1, -(-int(blocks.max()) // split.steps))
    own = torch.full((depth * split.steps, width), -1)
    own[: int(blocks[split.rank])] = table_BW[rank_B == split.rank]
    row_R = own.view(depth, split.steps, width).transpose(0, 1).reshape(-1)  # blocks in turn, so that fillers are spread too
    filled = int(blocks.clamp(max=split.steps).sum())
    return ProcessLayout(row_R, split.ranks * len(row_R) / max(1, len(rows_N)), split.ranks * split.steps / max(1, filled))


def keep(
    generated: Generated, anchors: list[Tokens | None], signal: Signal, split: Split
) -> tuple[Generated, Tensor, ProcessLayout]:
    """This process's kept rows in the form of TRL's `_generate`, their weighted advantages (R, 1) or (R, L), and the layout.

    `generated` and `anchors` (one a group) are this process's, `signal` is over all processes. A filler is masked. Nobody
    sampled an anchor: its log-probabilities are None, which TRL takes for a sampling ratio of 1.
    """
    plan, local = signal.plan, len(anchors)
    layout = lay_out(plan.rows_N, signal.group_size, local * split.ranks, split)
    first = split.rank * local * signal.group_size
    filler: Row = (generated.prompt_ids[0], generated.prompt_ids[0][:1], [0], [None])
    columns = zip((plan.rows_N - first).tolist(), plan.anchor_N.tolist(), strict=True)
    places = [(*divmod(row, signal.group_size), anchor) for row, anchor in columns]
    rows = [filler if n < 0 else _row(generated, anchors, *places[n]) for n in layout.row_R.tolist()]
    prompt_ids, completion_ids, mask, logprobs = map(list, zip(*rows, strict=True))
    kept = generated._replace(prompt_ids=prompt_ids, completion_ids=completion_ids, tool_mask=mask)
    weighted_NL = torch.nn.functional.pad(plan.weights_N[:, None] * plan.advantages_NL, (0, 0, 0, 1))  # the last is a filler's
    return kept._replace(logprobs=generated.logprobs and logprobs), weighted_NL[layout.row_R], layout


def _row(generated: Generated, anchors: list[Tokens | None], group: int, g: int, is_anchor: bool) -> Row:
    first = group * (len(generated.prompt_ids) // len(anchors))
    tokens = anchors[group] if is_anchor else generated.completion_ids[first + g]
    assert tokens is not None  # an anchor is placed only where there is one
    sampled = not is_anchor
    mask = generated.tool_mask[first + g] if sampled and generated.tool_mask else [1] * len(tokens)
    logprobs = generated.logprobs[first + g] if sampled and generated.logprobs else [None] * len(tokens)
    return generated.prompt_ids[first], tokens, mask, logprobs
