"""The project's terms, from glossary.md beside this file: the one place that documents and pages take them from."""

import re
from pathlib import Path

FILE = Path(__file__).with_name("glossary.md")


def read_glossary() -> dict[str, str]:
    """What each term means, without markup, in the order of the file."""
    lines = FILE.read_text(encoding="utf-8").splitlines()
    found = (re.fullmatch(r"- \*\*(.+?)\*\*: (.+)", line) for line in lines)
    return {line[1]: line[2].replace("**", "") for line in found if line}
