"""recast's sampler, looking for finished rollouts more often than every 2 seconds, which are most of a tiny step."""
# pyright: reportMissingImports=false

from typing import Any

from recast_train.adapters.verl.sampler import RecastReplayBuffer


class QuickReplayBuffer(RecastReplayBuffer):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.poll_interval = 0.2
