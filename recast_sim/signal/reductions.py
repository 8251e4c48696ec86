"""Operations on (P, G) tables that torch does fast: P groups, G rows of a group.

On a CPU, torch writes bool tables and looks for an argmax along a short axis one element at a time. The same comparison written
to a float table and an `amax` use vector instructions: 4 and 10 times faster at G = 32. So masks are 0/1 tables of the
values' own dtype here, and the row of a maximum is read from a second reduction.
"""

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

_PART = 2**17  # values that stay in a core's cache from one operation to the next


def flags(compare: Callable[..., Tensor], values_PG: Tensor, other: float) -> Tensor:
    """1 where a comparison with a number (`torch.gt`, `torch.ne`, ...) holds, else 0, in the values' dtype."""
    return compare(values_PG, other, out=torch.empty_like(values_PG))


def highest(values_of: Callable[..., Tensor], *tables_PG: Tensor) -> tuple[Tensor, Tensor]:
    """The highest of `values_of(*tables)` in each group and the first row that holds it, int64; both (P,). No NaN.

    The values are made of parts of the tables, so that they never leave the cache.
    """
    return _by_parts(lambda *part: _first(torch.amax, values_of(*part)), tables_PG)


def lowest(values_PG: Tensor) -> tuple[Tensor, Tensor]:
    """The lowest value of each group and the first row that holds it, likewise."""
    return _by_parts(lambda part: _first(torch.amin, part), (values_PG,))


def flat_rows(slot_P: Tensor, group_N: Tensor, width: int) -> Tensor:
    """Flat rows p * width + slot of some groups."""
    return torch.add(slot_P.index_select(0, group_N), group_N, alpha=width)


def groups_where(mask_P: Tensor) -> Tensor:
    """Indices of the true entries, int64 (N,)."""
    return mask_P.nonzero().view(-1)


@lru_cache(maxsize=32)
def _count(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.arange(size, dtype=dtype, device=device)


def _by_parts(pick: Callable[..., tuple[Tensor, Tensor]], tables_PG: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    if tables_PG[0].numel() <= _PART:
        return pick(*tables_PG)
    groups = max(1, _PART // tables_PG[0].shape[1])
    parts = zip(*(table_PG.split(groups) for table_PG in tables_PG), strict=True)
    best, row = zip(*(pick(*part) for part in parts), strict=True)
    return torch.cat(best), torch.cat(row)


def _first(extreme: Callable[..., Tensor], values_PG: Tensor) -> tuple[Tensor, Tensor]:
    G, best_P1 = values_PG.shape[1], extreme(values_PG, 1, keepdim=True)
    key_PG = torch.ne(values_PG, best_P1, out=torch.empty_like(values_PG))
    # row g of a tie has the key g, any other row G + g
    torch.add(_count(G, values_PG.dtype, values_PG.device), key_PG, alpha=G, out=key_PG)
    return best_P1.view(-1), key_PG.amin(1).long()
