"""Comparisons of methods over worlds: settings, the protocol, the map's cells, the quickstart."""
