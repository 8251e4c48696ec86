"""A training step's seconds and bytes from counting: what is computed, moved and sent, over a few constants of a machine."""
