"""Conformance of anybody's advantages and losses: golden vectors, choices with a name, faults with a minimal case.

Python and numpy alone, so that it runs beside any trainer. docs/conform.md.
"""
