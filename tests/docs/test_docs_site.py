"""Pages of the documentation site that are made from code, recipes and notebooks."""

import json
import re
from pathlib import Path

import pytest

from docs.site.assemble import assemble, pages
from docs.site.generated_pages import CLAIM_PAGES, api_pages, claims_page, recipes_page
from docs.site.notebook_page import notebook_page
from recast_analysis.claims.paper import CLAIMS

ROOT = Path(__file__).resolve().parents[2]
PIXEL = "iVBORw0KGgo="


def write_notebook(folder: Path, *cells: dict) -> Path:
    path = folder / "01-short.ipynb"
    path.write_text(json.dumps({"cells": [{"cell_type": "markdown", "source": ["# 01 Short\n", "\n", "About."]}, *cells]}))
    return path


def code(*outputs: dict) -> dict:
    return {"cell_type": "code", "source": ["1 + 1\n", "show()"], "outputs": list(outputs)}


def test_a_notebook_becomes_a_page_with_its_committed_outputs(tmp_path: Path) -> None:
    picture = {"output_type": "execute_result", "data": {"image/png": PIXEL, "text/plain": "<picture>"}}
    table = {"output_type": "execute_result", "data": {"text/markdown": ["| a |\n", "| - |"], "text/plain": "<table>"}}
    text, pictures = notebook_page(write_notebook(tmp_path, code(picture, table, {"output_type": "stream", "text": ["2\n"]})))
    assert text.startswith("# 01 Short\n")
    assert "[01-short.ipynb](01-short.ipynb)" in text
    assert text.endswith(
        "```python\n1 + 1\nshow()\n```\n\n![What the cell above draws](01-short-1.png)\n\n| a |\n| - |\n\n```text\n2\n```\n"
    )
    assert pictures == {"01-short-1.png": b"\x89PNG\r\n\x1a\n"}


def test_an_output_that_no_page_shows_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="01-short: no page shows an output of kind error"):
        notebook_page(write_notebook(tmp_path, code({"output_type": "error", "ename": "E"})))


def test_a_notebook_without_a_title_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "02-none.ipynb"
    path.write_text(json.dumps({"cells": [code()]}))
    with pytest.raises(ValueError, match=r"02-none\.ipynb: the first line is not a title"):
        notebook_page(path)


def test_every_recipe_is_listed_with_its_command() -> None:
    page = recipes_page(ROOT)
    files = [file for package in ("recast_sim", "recast_train") for file in (ROOT / package / "recipes").glob("*.toml")]
    assert len(files) > 10
    assert [file.stem for file in files if f"| **{file.stem}** |" not in page] == []
    assert "| `recast-sim budget` | 7 minutes | [budget.md](../docs/budget.md) |" in page


def test_commands_of_the_pages_name_recipes_by_name_as_an_installed_package_takes_them() -> None:
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))]
    by_name = re.compile(r"(?:^|`)recast-(?:sim (?:budget|map)|train (?:run|study)) ([a-z][a-z0-9-]+)(?=[ `\n])", re.MULTILINE)
    recipes = {file.stem for package in ("sim", "train") for file in (ROOT / f"recast_{package}" / "recipes").glob("*.toml")}
    named = {name for text in texts for name in by_name.findall(text)}
    assert len(named) > 6
    assert named <= recipes
    assert [found for text in texts for found in re.findall(r"recast-\w+ \w+ recast_\w+/recipes/\S+", text)] == []


def test_every_claim_leads_to_its_pages() -> None:
    assert list(CLAIM_PAGES) == [claim.number for claim in CLAIMS]
    page = claims_page()
    assert [claim.number for claim in CLAIMS if f"| {claim.number} | {claim.says} |" not in page] == []
    assert page.count("| none |") == sum(notebook is None for _, notebook in CLAIM_PAGES.values())


def test_every_public_module_has_its_place_in_the_api() -> None:
    made = api_pages(ROOT)
    assert "::: recast_sim.signal.construct\n" in made["recast_sim-signal.md"] + "\n"
    assert "::: recast_analysis.audit.reading.files" in made["recast_analysis-audit-reading.md"]
    assert not [name for name in made if "-cli" in name or "commandline" in name]
    listed = re.findall(r"\(([\w-]+\.md)\): \S", made.pop("index.md"))
    assert sorted(listed) == sorted(made)


def test_pages_lie_where_they_lie_in_the_repository(tmp_path: Path) -> None:
    found = pages(ROOT)
    docs = [name for name in found if name.startswith("docs/") and name.endswith((".md", ".png"))]
    assert len(docs) > 40
    heads = re.compile(rb"\A---\nhide: \[navigation\]\n---\n\n")
    opening = re.compile(rb"\[(!\[[^\]]*\]\(([^)]+)\))\]\(\2\)")
    back = {name: opening.sub(rb"\1", heads.sub(b"", found[name])) if name.endswith(".md") else found[name] for name in docs}
    assert [name for name in docs if back[name] != (ROOT / name).read_bytes()] == []
    assert [name for name in found if name.endswith(".md") and heads.match(found[name])] == ["README.md", "docs/concepts.md"]
    assert b"[![The map: slices](map-slices.png)](map-slices.png)" in found["docs/map.md"]
    assert (
        b"](01-a-group-becomes-a-signal-1.png)](01-a-group-becomes-a-signal-1.png)"
        in (found["notebooks/01-a-group-becomes-a-signal.md"])
    )
    assert b"(01-a-group-becomes-a-signal.md)" in found["notebooks/README.md"]
    (tmp_path / "old.md").write_text("of another time")
    assemble(ROOT, tmp_path)
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()} == set(found)
