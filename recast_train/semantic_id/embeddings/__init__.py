"""Item embeddings, collaborative, textual or given: what semantic IDs are made of."""

from recast_train.semantic_id.embeddings.collaborative import sequence_embeddings, spread_unknown, svd_embeddings
from recast_train.semantic_id.embeddings.embedding_files import order_of_rows, read_embeddings
from recast_train.semantic_id.embeddings.text import text_embeddings

__all__ = ["order_of_rows", "read_embeddings", "sequence_embeddings", "spread_unknown", "svd_embeddings", "text_embeddings"]
