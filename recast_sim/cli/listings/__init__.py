"""Commands that list what comes with recast: its constructors, its recipes."""
