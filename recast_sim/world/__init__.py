"""The synthetic world: environment, policies, their rollouts, base training, calibration and exact metrics."""
