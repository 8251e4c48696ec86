"""Bridges to the trainers that researchers already use; each needs its extra. Importing this loads none of them."""
