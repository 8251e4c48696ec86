"""Did RL do anything: scores of two models on the same prompts, anybody's or our own; learning told from sharpening."""
