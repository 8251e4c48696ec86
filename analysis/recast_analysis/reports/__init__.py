"""One file a kind of run: its tables and figures, from the folder alone."""
