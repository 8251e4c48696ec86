"""The pages of the documentation site: `python -m docs.site.assemble FOLDER`, which `make docs` runs before mkdocs.

A page of the site stands at the path that it has in the repository, so links between files hold in both places.
"""

import re
import shutil
import sys
from pathlib import Path

from docs.site.generated_pages import api_pages, claims_page, recipes_page
from docs.site.notebook_page import notebook_page

ROOT = Path(__file__).resolve().parents[2]
ALONE = ("README.md", "docs/concepts.md")  # pages that are alone in their tab
COPIED = (
    "*.md",
    "docs/*.md",
    "docs/*.png",
    "docs/concepts/*.png",
    "docs/site/*.css",
    "notebooks/*.md",
    "notebooks/*.ipynb",
    "benchmarks/results/*.md",
    "analysis/recast_analysis/glossary.md",
    "analysis/recast_analysis/notebook.py",
    "recast_train/adapters/verl/recast/*.yaml",
)


def pages(root: Path) -> dict[str, bytes]:
    """The content of each page and picture, by its path in the site."""
    found = {path.relative_to(root).as_posix(): path.read_bytes() for pattern in COPIED for path in root.glob(pattern)}
    made = {"reference/recipes.md": recipes_page(root), "reference/claims.md": claims_page()}
    made |= {f"reference/api/{name}": text for name, text in api_pages(root).items()}
    for path in sorted(root.glob("notebooks/*.ipynb")):
        made[f"notebooks/{path.stem}.md"], pictures = notebook_page(path)
        found |= {f"notebooks/{name}": picture for name, picture in pictures.items()}
    found |= {name: _to_page(name, text) for name, text in found.items() if name.endswith(".md")}
    return found | {name: _pictures_open(text.encode()) for name, text in made.items()}


def _to_page(name: str, markdown: bytes) -> bytes:
    """Links to notebooks lead to their pages; a page that is alone in its tab needs no list of the tab's pages."""
    alone = b"---\nhide: [navigation]\n---\n\n" if name in ALONE else b""
    return alone + _pictures_open(re.sub(rb"(\]\([^)\s]+)\.ipynb\)", rb"\1.md)", markdown))


def _pictures_open(markdown: bytes) -> bytes:
    """A click on a picture, which a page shows as wide as its text, opens it whole."""
    return re.sub(rb"!\[[^\]]*\]\(([^)\s]+\.png)\)", rb"[\g<0>](\1)", markdown)


def assemble(root: Path, folder: Path) -> None:
    """Write the pages into `folder`, which is emptied first."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, content in pages(root).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


if __name__ == "__main__":
    assemble(ROOT, Path(sys.argv[1]))
