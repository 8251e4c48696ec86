"""The supervised loss: the trie-constrained one, so that the model is trained on the distribution that it samples from.

Axis letters: B windows, W items of a window, T tokens, I items, L levels, D hidden width, C codes of a level.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recast_sim.catalog import Catalog
from recast_train.model import SidModel


def window_loss(model: SidModel, catalog: Catalog, window_BW: NDArray[np.int64], smoothing: float = 0.0) -> Tensor:
    """Mean over the windows' items of the NLL of the item's SID, each level over its legal children (nats)."""
    item_BW = torch.from_numpy(window_BW).to(model.device)
    real_BW, leaf_I = item_BW >= 0, torch.from_numpy(catalog.leaf_of_item_I).to(model.device)
    leaf_BW = leaf_I[item_BW.clamp(min=0)]
    windows = model.vocabulary.windows(window_BW)
    tokens_BT = windows.tokens_BT.to(model.device)
    positions_BT = torch.arange(tokens_BT.shape[1], device=model.device).expand_as(tokens_BT)
    row_BWL = torch.arange(len(window_BW), device=model.device)[:, None, None]
    matrix = model.output_matrix()
    hidden_BWLD = model.hidden(tokens_BT, positions_BT, None)[row_BWL, windows.at_BWL.to(model.device)]
    nodes_BWL = model.table("leaf_nodes")[leaf_BW]
    total = hidden_BWLD.new_zeros(())
    for level, logits_BWC in enumerate(model.level_logits(hidden_BWLD.unbind(2), matrix=matrix)):
        parent = nodes_BWL[..., level - 1] if level else torch.zeros_like(leaf_BW)
        logprobs = model.legal_logprobs(logits_BWC, level, parent)
        legal = torch.isfinite(logprobs)
        column = nodes_BWL[..., level] - model.table("first_child", level)[parent]
        target = logprobs.gather(-1, column[..., None])[..., 0]
        spread = logprobs.masked_fill(~legal, 0.0).sum(-1) / legal.sum(-1)
        total = total - ((1 - smoothing) * target + smoothing * spread)[real_BW].sum()
    return total / real_BW.sum()
