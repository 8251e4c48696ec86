"""Whole runs and studies: the stages from data to evaluation, and the recipe that describes them."""
