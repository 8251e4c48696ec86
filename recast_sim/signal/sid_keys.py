"""SIDs as one integer each, so that two of them are compared by one operation and not level by level.

The first level stands in the highest bits, and above each level one bit stays 0. The exclusive or of two keys is then the
smaller the longer the prefix they share, and rounding it to a float cannot carry it over the border of a level.

Axes: P prompts, G rollouts, S SIDs in a response, T targets of a prompt, L levels.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Packing:
    """How codes of L levels become keys: `bits` a level, codes counted from `lowest`, which is 0 but for negative ones."""

    lowest: int
    bits: int
    levels: int

    @classmethod
    def of(cls, *codes: Tensor) -> "Packing | None":
        """The packing that fits all these integer codes (..., L); None where 62 bits do not hold it, or there is no code."""
        levels = codes[0].shape[-1]
        if any(table.numel() == 0 or table.is_floating_point() for table in codes):
            return None
        lows, highs = zip(*(_ends(table.contiguous()) for table in codes), strict=True)
        lowest = min(0, *lows)
        bits = (max(highs) - lowest).bit_length() + 1
        return cls(lowest, bits, levels) if bits * levels <= 62 else None

    def keys(self, codes: Tensor, mask: Tensor | None = None) -> Tensor:
        """int64 keys (...) of codes (..., L). Where a mask is false the key shares nothing with any other."""
        key = self._level(codes, 0)
        for level in range(1, self.levels):
            key = torch.add(self._level(codes, level), key, alpha=1 << self.bits)  # one pass, where a shift and an or are two
        return key if mask is None else key.masked_fill(~mask, 1 << self.bits * self.levels)

    def difference(self, key_PGS: Tensor, key_PT: Tensor) -> Tensor:
        """The least exclusive or with any of a prompt's targets: float32 (P, G, S), 0 for an equal SID.

        A prefix of j levels is shared where it is below `border(j)`.
        """
        least = key_PGS ^ key_PT[:, 0, None, None]
        other = torch.empty_like(least)
        for target in range(1, key_PT.shape[1]):
            torch.bitwise_xor(key_PGS, key_PT[:, target, None, None], out=other)
            torch.minimum(least, other, out=least)
        return least.float()

    def border(self, shared: int) -> float:
        """See `difference`."""
        return 2.0 ** (self.bits * (self.levels - shared))

    def _level(self, codes: Tensor, level: int) -> Tensor:
        column = codes[..., level].long()
        return column - self.lowest if self.lowest else column


def _ends(codes: Tensor) -> tuple[int, int]:
    """A lower bound of all codes, and the highest."""
    if codes.dtype == torch.int64 and int(codes.view(torch.int32).amin()) >= 0:
        return 0, int(codes.amax())  # no half is negative, so no code is; a third of the time of the lowest int64
    low, high = codes.aminmax()
    return int(low), int(high)
