"""recast_train: the real path. Generative recommenders trained with the same signal module as the simulator."""
