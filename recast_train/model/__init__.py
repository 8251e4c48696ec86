"""The generative recommender: a causal LM over semantic-ID tokens, its vocabulary, and how both are built, read and written."""

from recast_train.model.build import build_model
from recast_train.model.model_config import CHAT, ModelConfig, TrainError, require
from recast_train.model.pretrained import save_pretrained
from recast_train.model.sid_model import SidModel
from recast_train.model.vocabulary import (
    BOS_TOKEN,
    PAD_TOKEN,
    SPECIAL_TOKENS,
    PromptTokens,
    Vocabulary,
    beside,
    on,
    sid_vocabulary,
    tokenise_histories,
)

__all__ = [
    "BOS_TOKEN",
    "CHAT",
    "PAD_TOKEN",
    "SPECIAL_TOKENS",
    "ModelConfig",
    "PromptTokens",
    "SidModel",
    "TrainError",
    "Vocabulary",
    "beside",
    "build_model",
    "on",
    "require",
    "save_pretrained",
    "sid_vocabulary",
    "tokenise_histories",
]
