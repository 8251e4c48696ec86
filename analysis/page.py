"""One self-contained HTML page of any run folders: tables, figures, provenance, config, glossary. Nothing is fetched.

The text of a run folder is not trusted: jinja2 escapes all of it (`page.html`); only the figures' SVG goes in as it is.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from rich.console import Console
from rich.table import Table
from rich.text import Text

from analysis.drawing.style import Drawn, as_svg
from analysis.figures import run_figures
from analysis.glossary import read_glossary
from analysis.reports.run_kinds import print_again
from recast_sim.runs import Run, RunError, find_runs, read_run

_SCALES = (0.7, 1.4)  # of a figure on a screen: letters below are too small to read, so it scrolls; above they shout
_DESKTOP = 1080  # pixels; the widest figure need not scroll there


@dataclass(frozen=True)
class PageTable:
    """A table as text: title, header, which columns are numbers, rows, a note below."""

    title: str
    header: list[str]
    numeric: list[bool]
    rows: list[list[str]]
    note: str


@dataclass(frozen=True)
class PageFigure:
    """A figure as an SVG element, and its least and largest width in pixels."""

    title: str
    svg: Markup
    least: int
    most: int
    caption: str


@dataclass(frozen=True)
class Section:
    """All of one run on the page."""

    anchor: str
    name: str
    kind: str
    complete: bool
    provenance: dict[str, str]
    parts: list[PageTable | str]
    figures: list[PageFigure]
    left_out: list[str]
    config: dict[str, str]


def make_page(roots: Sequence[Path]) -> str:
    """The page's HTML.

    Raises:
        RunError: a folder that is no run, or a damaged one. A run that was killed is shown as far as it got.
    """
    sections = [_section(root, f"run-{place}") for place, root in enumerate(roots, start=1)]
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template("page.html").render(sections=sections, glossary=read_glossary())


def _section(root: Path, anchor: str) -> Section:
    run = read_run(root)
    figures, left_out = run_figures(root)
    parts: list[PageTable | str] = []
    try:
        parts = _printed(root)
    except RunError as error:
        left_out.append(f"tables: {error}")
    return Section(
        anchor=anchor,
        name=root.resolve().name,
        kind=str(run.manifest["kind"]),
        complete=run.status == "complete",
        provenance=_provenance(run),
        parts=parts,
        figures=[_page_figure(drawn, anchor) for drawn in figures],
        left_out=left_out,
        config=_flat(run.manifest["config"]),
    )


def _page_figure(drawn: Drawn, anchor: str) -> PageFigure:
    least, most = (int(96 * scale * drawn.figure.get_figwidth()) for scale in _SCALES)
    svg = Markup(as_svg(drawn, f"{anchor}-{drawn.name}"))
    return PageFigure(drawn.title, svg, min(least, _DESKTOP), most, drawn.caption)


class _Kept(Console):
    """A console that keeps what is printed instead of printing it."""

    def __init__(self) -> None:
        super().__init__(file=io.StringIO())
        self.parts: list[PageTable | str] = []

    def print(self, *objects: Any, markup: bool | None = None, **options: Any) -> None:
        for thing in objects:
            if isinstance(thing, Table):
                self.parts.append(_page_table(thing))
            elif text := str(thing).strip():
                self.parts.append(text if markup is False else Text.from_markup(text).plain)


def _printed(root: Path) -> list[PageTable | str]:
    console = _Kept()
    print_again(root, console)
    return console.parts


def _page_table(table: Table) -> PageTable:
    columns = [[_plain(cell) for cell in column.cells] for column in table.columns]
    return PageTable(
        title=_plain(table.title),
        header=[_plain(column.header) for column in table.columns],
        numeric=[column.justify == "right" for column in table.columns],
        rows=[list(row) for row in zip(*columns, strict=True)],
        note=_plain(table.caption),
    )


def _plain(cell: Any) -> str:
    return "" if cell is None else Text.from_markup(str(cell)).plain


def _provenance(run: Run) -> dict[str, str]:
    known = run.manifest
    git, hardware, versions = (known.get(key) or {} for key in ("git", "hardware", "versions"))
    changed = len(git.get("diff", "").splitlines())
    commit = git.get("commit", "not in a git checkout")
    return {
        "command": str(known.get("command", "not recorded")),
        "completeness": _completeness(run),
        "seed": str(known["seed"]),
        "git commit": commit + (f", with {changed} lines of uncommitted changes" if changed else ""),
        "started": str(known.get("started", "not recorded")),
        "finished": str(known.get("finished", "not finished")),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "hardware": ", ".join(f"{name} {value}" for name, value in hardware.items()),
        "folder": str(run.path),
    }


def _completeness(run: Run) -> str:
    below = [read_run(path).status for path in find_runs([run.path]) if path != run.path]
    words = "complete" if run.status == "complete" else "not finished: killed, or still running"
    if len(run.steps):
        words += f"; {run.steps['step'][-1]} steps read"
    return words + (f"; {below.count('complete')} of {len(below)} runs below it are complete" if below else "")


def _flat(value: Any, at: str = "") -> dict[str, str]:
    """Dotted keys of a nested config."""
    if isinstance(value, dict) and value:
        parts = (_flat(inner, f"{at}.{name}" if at else str(name)) for name, inner in value.items())
        return {key: text for part in parts for key, text in part.items()}
    return {at: str(value)}
