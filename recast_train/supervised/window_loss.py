"""The supervised loss: the trie-constrained one, so that the model is trained on the distribution that it samples from.

Axis letters: B windows, W items of a window, M items of all windows, T tokens, L levels, D hidden width, C codes of a level.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recast_sim.catalog import Catalog
from recast_train.model import SidModel, on


def window_loss(model: SidModel, catalog: Catalog, window_BW: NDArray[np.int64], smoothing: float = 0.0) -> Tensor:
    """Mean over the windows' items of the NLL of the item's SID, each level over its legal children (nats).

    What a pass consists of is found on the CPU, so that a device is not waited for.
    """
    device, item_M = model.device, np.flatnonzero(window_BW >= 0)
    leaf_BW = torch.from_numpy(catalog.leaf_of_item_I[window_BW.clip(min=0)])
    nodes_BWL = on(model.table("leaf_nodes", index=leaf_BW)[leaf_BW], device)
    at_M = on(torch.from_numpy(item_M), device)
    windows = model.vocabulary.windows(window_BW)
    tokens_BT = on(windows.tokens_BT, device)
    positions_BT = torch.arange(tokens_BT.shape[1], device=device).expand_as(tokens_BT)
    row_BWL = torch.arange(len(window_BW), device=device)[:, None, None]
    matrix = model.output_matrix()
    hidden_BWLD = model.hidden(tokens_BT, positions_BT, None)[row_BWL, on(windows.at_BWL, device)]
    total = hidden_BWLD.new_zeros(())
    for level, logits_BWC in enumerate(model.level_logits(hidden_BWLD.unbind(2), matrix=matrix)):
        parent = nodes_BWL[..., level - 1] if level else torch.zeros_like(nodes_BWL[..., 0])
        logprobs = model.legal_logprobs(logits_BWC, level, parent)
        legal = torch.isfinite(logprobs)
        column = nodes_BWL[..., level] - model.table("first_child", level)[parent]
        target = logprobs.gather(-1, column[..., None])[..., 0]
        spread = logprobs.masked_fill(~legal, 0.0).sum(-1) / legal.sum(-1)
        total = total - ((1 - smoothing) * target + smoothing * spread).flatten()[at_M].sum()
    return total / len(item_M)
