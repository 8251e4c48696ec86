"""Semantic IDs: item embeddings, collaborative or textual, and the residual k-means that turns them into codes."""

from recast_train.semantic_id.embeddings import SemanticIdError, minilm_embeddings, svd_embeddings
from recast_train.semantic_id.residual_kmeans import (
    SidTable,
    load_sids,
    prefix_agreement,
    save_sids,
    tokenize_items,
)

__all__ = [
    "SemanticIdError",
    "SidTable",
    "load_sids",
    "minilm_embeddings",
    "prefix_agreement",
    "save_sids",
    "svd_embeddings",
    "tokenize_items",
]
