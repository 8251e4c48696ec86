"""Supervised training of a recommender: which windows a step sees, the loss, and the loop."""

from recast_train.supervised.sft_config import SftConfig

__all__ = ["SftConfig"]
