"""Interactions of public formats, split in time and turned into next-item prompts, and the fetch of ML-100K."""

from recast_train.data.atomic import DataError, read_atomic, read_titles
from recast_train.data.interactions import (
    PAD,
    Dataset,
    Prompts,
    Split,
    build_sequences,
    k_core,
    load_ml100k,
    prompts,
    split_by_time,
    train_matrix,
)
from recast_train.data.ml100k import fetch_ml100k

__all__ = [
    "PAD",
    "DataError",
    "Dataset",
    "Prompts",
    "Split",
    "build_sequences",
    "fetch_ml100k",
    "k_core",
    "load_ml100k",
    "prompts",
    "read_atomic",
    "read_titles",
    "split_by_time",
    "train_matrix",
]
