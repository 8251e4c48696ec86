"""Comparisons of methods over worlds: settings, the protocol and its tuning, the map's cells."""
