"""What figures and tables share: style, panels, words."""
