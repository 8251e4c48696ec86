"""What the commands of `recast-train` share."""

from pathlib import Path

RECIPES = Path(__file__).resolve().parents[1] / "recipes"
