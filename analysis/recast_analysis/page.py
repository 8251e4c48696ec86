"""One self-contained HTML page of any run folders: tables, figures, provenance, config, glossary. Nothing is fetched.

The text of a run folder is not trusted: jinja2 escapes all of it (`page.html`); only the figures' SVG goes in as it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from recast_analysis.drawing.style import Drawn, as_svg
from recast_analysis.figures import run_figures
from recast_analysis.glossary import read_glossary
from recast_analysis.reports.report import Report, Table
from recast_analysis.reports.run_kinds import find_report
from recast_analysis.result_lines import result_lines, smoke_words
from recast_sim.printable import printable
from recast_sim.runs import Run, RunError, find_runs, read_run
from recast_sim.runs.reader import fits_its_kind, read_manifest

_SCALES = (0.7, 1.4)  # of a figure on a screen: letters below are too small to read, so it scrolls; above they shout
_VALUE = 10_000  # letters of a value or note; a command line may be long
_DESKTOP = 1080  # pixels; the widest figure need not scroll there


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
    result: list[str]
    provenance: dict[str, str]
    parts: Sequence[Table | str]
    figures: list[PageFigure]
    left_out: list[str]
    config: dict[str, str]


def make_page(roots: Sequence[Path]) -> str:
    """The page's HTML. A run that was killed is shown as far as it got, one that cannot be read by the reason why.

    Raises:
        RunError: none of the folders is a run that can be read.
    """
    sections, faults = [], []
    for place, root in enumerate(roots, start=1):
        try:
            sections.append(_section(root, f"run-{place}"))
        except RunError as error:
            faults.append(error)
            sections.append(_unreadable(root, f"run-{place}", str(error)))
    if len(faults) == len(sections):
        raise faults[0]
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template("page.html").render(sections=sections, glossary=read_glossary())


def _unreadable(root: Path, anchor: str, why: str) -> Section:
    provenance = {"folder": printable(str(root)), "completeness": f"not readable: {printable(why, _VALUE)}"}
    return Section(anchor, printable(root.resolve().name), "not readable", False, [], provenance, (), [], [], {})


def _section(root: Path, anchor: str) -> Section:
    run = read_run(root)
    report = find_report(root)
    figures, left_out = run_figures(root, report)
    if isinstance(report, str):
        left_out.append(f"tables: {report}")
    parts = report.parts if isinstance(report, Report) else ()
    kind, config = run.manifest["kind"], run.manifest["config"]
    with fits_its_kind(root):
        lines = result_lines(kind, report.summary) if isinstance(report, Report) else []
        smoke = smoke_words(kind, config)
        return Section(
            anchor=anchor,
            name=printable(root.resolve().name),
            kind=printable(kind),
            complete=run.status == "complete",
            result=[printable(words, _VALUE) for words in (smoke, *lines) if words],
            provenance={name: printable(value, _VALUE) for name, value in _provenance(run).items()},
            parts=[part if isinstance(part, Table) else printable(part, _VALUE, lines=True) for part in parts],
            figures=[_page_figure(drawn, anchor) for drawn in figures],
            left_out=[printable(words, _VALUE) for words in left_out],
            config={printable(key): printable(value, _VALUE) for key, value in _flat(config).items()},
        )


def _page_figure(drawn: Drawn, anchor: str) -> PageFigure:
    least, most = (int(96 * scale * drawn.figure.get_figwidth()) for scale in _SCALES)
    svg = Markup(as_svg(drawn, f"{anchor}-{drawn.name}"))
    return PageFigure(printable(drawn.title), svg, min(least, _DESKTOP), most, printable(drawn.caption, _VALUE))


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
    below = [_status(path) for path in find_runs([run.path]) if path != run.path]
    words = "complete" if run.status == "complete" else "not finished: killed, or still running"
    if len(run.steps):
        words += f"; {run.steps['step'][-1]} steps read"
    return words + (f"; {below.count('complete')} of {len(below)} runs below it are complete" if below else "")


def _status(path: Path) -> str:
    try:
        return read_manifest(path)["status"]
    except RunError:
        return "not readable"


def _flat(value: Any, at: str = "") -> dict[str, str]:
    """Dotted keys of a nested config."""
    if isinstance(value, dict) and value:
        parts = (_flat(inner, f"{at}.{name}" if at else str(name)) for name, inner in value.items())
        return {key: text for part in parts for key, text in part.items()}
    return {at: str(value)}
