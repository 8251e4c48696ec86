"""From the hits that a log of rollouts holds to the next run: group size, signal, prompts and seeds, tokens."""
