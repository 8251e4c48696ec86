"""Semantic IDs: item embeddings (collaborative, textual or given), residual k-means or RQ-VAE, collisions, report, files."""

from recast_train.semantic_id.collisions import move_to_free, number_inside
from recast_train.semantic_id.embeddings import read_embeddings, sequence_embeddings, svd_embeddings, text_embeddings
from recast_train.semantic_id.given_table import given_table, read_sid_file
from recast_train.semantic_id.make import embed_items, make_sids
from recast_train.semantic_id.quantised import Quantised
from recast_train.semantic_id.residual_kmeans import residual_kmeans
from recast_train.semantic_id.sid_config import RqVaeConfig, SidConfig
from recast_train.semantic_id.sid_error import SemanticIdError
from recast_train.semantic_id.sid_quality import lift, prefix_agreement
from recast_train.semantic_id.sid_table import SidTable, load_sids, save_sids
from recast_train.semantic_id.tokenizer import tokenize_items

__all__ = [
    "Quantised",
    "RqVaeConfig",
    "SemanticIdError",
    "SidConfig",
    "SidTable",
    "embed_items",
    "given_table",
    "lift",
    "load_sids",
    "make_sids",
    "move_to_free",
    "number_inside",
    "prefix_agreement",
    "read_embeddings",
    "read_sid_file",
    "residual_kmeans",
    "save_sids",
    "sequence_embeddings",
    "svd_embeddings",
    "text_embeddings",
    "tokenize_items",
]
