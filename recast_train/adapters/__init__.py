"""Bridges to the trainers that researchers already use; each needs its extra."""
