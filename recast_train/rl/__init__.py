"""The RL loop of the real trainer."""
