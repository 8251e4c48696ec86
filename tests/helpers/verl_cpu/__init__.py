"""Whole steps of verl's trainer on a CPU: a platform, a rollout engine, a tiny world, and a launch.

Ray's workers load the first two by `VERL_USE_EXTERNAL_MODULES`.
"""
