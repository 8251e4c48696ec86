"""Dumps of rollouts, read in bounded memory: formats, columns, semantic IDs in text, groups."""
