"""Pages that are made from the code: recipes, the paper's claims, modules. Nothing in them is typed here twice."""

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from recast_analysis.claims.paper import CLAIMS
from recast_sim.commandline.recipe_files import recipe_heads

PACKAGES = ("recast_sim", "recast_train", "analysis/recast_analysis")
NOT_AN_API = ("cli", "commandline")  # their pages are `--help`
# where each claim is measured, and the notebook that shows how, if one does
CLAIM_PAGES = {
    1: (("claims", "laboratory"), "02-regimes-and-learnable-groups"),
    2: (("claims", "learning-results"), "04-budget-curves-and-the-map"),
    3: (("claims", "learning-results"), "04-budget-curves-and-the-map"),
    4: (("claims", "real-study"), None),
    5: (("performance",), "06-audit-your-own-run"),
    6: (("performance",), None),
    7: (("performance",), None),
    8: (("performance",), None),
    9: (("claims",), "05-a-real-recommender"),
    10: (("claims",), "05-a-real-recommender"),
    11: (("claims",), "03-gradient-bias-and-variance"),
    12: (("claims",), None),
}


_API = """# API reference

Made from the docstrings; axis letters such as `_PG` are explained in [CONTRIBUTING](../../CONTRIBUTING.md).
What `recast_sim.signal` exports and the paths of the adapters keep their names. Commands explain themselves with `--help`.
"""


def recipes_page(root: Path) -> str:
    """All recipes, from the two lines that each begins with."""
    parts = [
        "# Recipes",
        "A recipe is a file of settings that comes with the package. It runs by its name; `--copy NAME` of `recast-sim recipes`"
        " or `recast-train recipes` gives a copy to change. Times are on two cores.",
    ]
    for command, package in (("recast-sim", "recast_sim"), ("recast-train", "recast_train")):
        heads = recipe_heads(root / package / "recipes")
        rows = [
            {
                "recipe": f"**{name}**",
                "what": head.about,
                "command": f"`{head.command}`",
                "time": head.time,
                "score to expect": re.sub(r"docs/([\w-]+\.md)", r"[\1](../docs/\1)", head.result),
            }
            for name, head in heads.items()
        ]
        parts += [f"## {command}", _table(rows)]
    return "\n\n".join(parts) + "\n"


def claims_page() -> str:
    """The paper's claims, each with its rule, the page that measures it and the notebook that shows how."""
    rows = []
    for claim in CLAIMS:
        pages, notebook = CLAIM_PAGES[claim.number]
        rows.append(
            {
                "claim": str(claim.number),
                "the paper says": claim.says,
                "its figure": claim.figure,
                "it holds here if": claim.rule,
                "measured on": ", ".join(f"[{page}](../docs/{page}.md)" for page in pages),
                "notebook": f"[{notebook[:2]}](../notebooks/{notebook}.md)" if notebook else "none",
            }
        )
    about = (
        "The claims of arXiv 2604.22169 and the rule by which each is judged. Verdicts with intervals are in"
        " [claims](../docs/claims.md); `recast-report claims RUN...` judges your own runs by the same rules."
    )
    return "\n\n".join(("# The paper's claims", about, _table(rows))) + "\n"


def api_pages(root: Path) -> dict[str, str]:
    """A page for each package, with the modules in it, and one that lists them, by file name."""
    made, lines = {}, []
    for base in (root / package for package in PACKAGES):
        for folder in _packages(base):
            parts = folder.relative_to(base.parent).parts
            name = f"{'-'.join(parts)}.md"
            made[name] = _api_page(folder, base.parent)
            lines.append(f"{'    ' * (len(parts) - 1)}- [{'.'.join(parts)}]({name}): {_first_line(folder)}")
    return made | {"index.md": "\n".join((_API, *lines, ""))}


def _packages(base: Path) -> Iterator[Path]:
    yield base
    for init in sorted(base.rglob("__init__.py")):
        if init.parent != base and not set(init.relative_to(base).parts) & set(NOT_AN_API):
            yield init.parent


def _first_line(folder: Path) -> str:
    """What a package's docstring begins with, without the package's own name."""
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))) or ""
    return re.sub(r"^[a-z_]+: ", "", text.partition("\n")[0])


def _api_page(folder: Path, above: Path) -> str:
    package = ".".join(folder.relative_to(above).parts)
    modules = [file.stem for file in sorted(folder.glob("*.py")) if not file.stem.startswith("_")]
    parts = [f"# {package}", "A part of the [API](index.md).", _directive(package, members=False)]
    for module in modules:
        parts += [f"## {module} {{ #{package}.{module} }}", _directive(f"{package}.{module}", members=True)]
    return "\n\n".join(parts) + "\n"


def _directive(name: str, members: bool) -> str:
    options = "" if members else "\n    options:\n      members: false"
    return f"::: {name}{options}"


def _table(rows: Sequence[Mapping[str, str]]) -> str:
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
