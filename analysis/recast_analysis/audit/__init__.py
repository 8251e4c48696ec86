"""Audit of rollouts that another run dumped: regimes, waste, spread of hit rates, duplicates, invalid SIDs, actor savings."""
