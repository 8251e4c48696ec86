"""Rollouts of the real trainer: i.i.d., beam and stochastic beam down the trie, after an optional thought."""

from recast_train.rollout.rollout_config import RolloutConfig, ThoughtConfig
from recast_train.rollout.rollouts import Part, Rollouts, importance_weights
from recast_train.rollout.sample import sample_rollouts
from recast_train.rollout.thought import ThoughtMarkers, Thoughts, free_logprobs, sample_thoughts

__all__ = [
    "Part",
    "RolloutConfig",
    "Rollouts",
    "ThoughtConfig",
    "ThoughtMarkers",
    "Thoughts",
    "free_logprobs",
    "importance_weights",
    "sample_rollouts",
    "sample_thoughts",
]
