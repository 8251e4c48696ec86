"""Constructors in TRL's GRPOTrainer: see docs/trl.md. Needs the extra `trl`."""

from recast_train.adapters.trl.constrained import constrained_rollout
from recast_train.adapters.trl.token_sids import SidLevels, SidScores, SidTokens
from recast_train.adapters.trl.trainer import RecastGRPOTrainer

__all__ = ["RecastGRPOTrainer", "SidLevels", "SidScores", "SidTokens", "constrained_rollout"]
