"""The policy-gradient loop of the synthetic world."""
