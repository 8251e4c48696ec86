"""The semantic IDs of a recipe: embeddings by its `[sids]`, tokenized, with agreement on train and held-out interactions."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recast_train.data import Dataset, train_matrix
from recast_train.semantic_id.embeddings import (
    order_of_rows,
    read_embeddings,
    sequence_embeddings,
    spread_unknown,
    svd_embeddings,
    text_embeddings,
)
from recast_train.semantic_id.given_table import table_of_file
from recast_train.semantic_id.sid_config import SidConfig
from recast_train.semantic_id.sid_error import SemanticIdError
from recast_train.semantic_id.sid_quality import agreements
from recast_train.semantic_id.sid_table import SidTable
from recast_train.semantic_id.tokenizer import tokenize_items


def make_sids(
    config: SidConfig, dataset: Dataset, seed: int, on_epoch: Callable[[int, int], None] = lambda *_: None
) -> SidTable:
    """The table of a data set, with its item ids. Held-out interactions enter the report alone, never the codes.

    Raises:
        SemanticIdError: see embed_items and tokenize_items, or table_of_file where the recipe gives a table.
    """
    train_UI = train_matrix(dataset)
    if config.path is not None:
        table = table_of_file(config.path, dataset.items, config.collisions or "keep")
        report = agreements(table.codes_IL, train_UI, heldout_matrix(dataset))
        return replace(table, report=table.report | report)
    embeddings_ID, unknown = spread_unknown(embed_items(config, dataset, train_UI, seed), seed)
    table = tokenize_items(
        embeddings_ID,
        config.sizes,
        seed,
        train_UI,
        heldout_matrix(dataset),
        method=config.method,
        collisions=config.collisions or "level",
        rqvae=config.rqvae if config.method == "rqvae" else None,
        on_epoch=on_epoch,
    )
    said = None if config.embeddings_file is None else order_of_rows(config.embeddings_file)
    report = table.report | ({"order_of_rows": said} if said else {}) | {"items_without_embedding": unknown}
    return replace(table, report=report, items=tuple(dataset.items))


def embed_items(config: SidConfig, dataset: Dataset, train_UI: sparse.csr_array, seed: int) -> NDArray[np.float64]:
    """Item embeddings (I, D) by the recipe; nothing from validation or test enters those that are made here.

    Raises:
        SemanticIdError: titles are wanted and the data has none, or a model or file that cannot be used.
    """
    if config.embeddings_file is not None:
        return read_embeddings(config.embeddings_file, dataset.items)
    if config.embeddings == "svd":
        return svd_embeddings(train_UI, config.dim, seed)
    if config.embeddings == "sequence":
        return sequence_embeddings(dataset, config.dim, seed)
    if not dataset.titles:
        raise SemanticIdError("sids.embeddings: 'text' needs titles, and the data has none; use 'svd' or 'file'")
    return text_embeddings(dataset.titles, config.text_model)


def heldout_matrix(dataset: Dataset) -> sparse.csr_array:
    """Binary (U, I) matrix of the validation and test splits; a repeated interaction counts once."""
    length_U = np.diff(dataset.offset_U1)
    user_M = np.repeat(np.arange(dataset.n_users), length_U)
    place_M = np.arange(len(dataset.item_M)) - dataset.offset_U1[user_M]
    kept_M = place_M >= dataset.train_end_U[user_M]
    pairs = np.unique(np.stack([user_M[kept_M], dataset.item_M[kept_M]]), axis=1)
    shape = (dataset.n_users, dataset.n_items)
    return sparse.csr_array((np.ones(pairs.shape[1]), (pairs[0], pairs[1])), shape=shape)
