"""recast_sim: the laboratory for learning-signal mechanics, and the modules that every part of recast shares.

Import what you need from its modules (`recast_sim.signal`, `recast_sim.catalog`, `recast_sim.runs`, ...); this file
imports nothing, so that reading a run folder never loads torch.
"""
