"""Figures computed from run folders: intervals, budget curves, comparisons, trajectories."""
