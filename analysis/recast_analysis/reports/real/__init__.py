"""Reports of the real trainer: one run, a study, a search, agreement with the simulator."""
