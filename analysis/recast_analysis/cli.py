"""`recast-report`: tables and figures of run folders."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from recast_analysis.audit.audit_error import AuditError
from recast_analysis.audit.audit_report import report as audit_report
from recast_analysis.audit.audit_report import write_audit
from recast_analysis.audit.reading.dump_groups import read_groups
from recast_analysis.claims import claims_page, read_evidence
from recast_analysis.drawing.style import save_figure
from recast_analysis.figures import run_figures
from recast_analysis.page import make_page
from recast_analysis.reports.real.agreement import report as agreement_report
from recast_analysis.reports.report import Report
from recast_analysis.reports.run_kinds import find_report, run_report
from recast_analysis.show import readable_runs, runs_table
from recast_analysis.terminal import print_report
from recast_sim.commandline import Common, Paths, Positional, progress, run_command
from recast_sim.printable import printable
from recast_sim.runs import RunError, find_runs, write_text
from recast_sim.runs.reader import fits_its_kind


@dataclass(frozen=True)
class Show(Common):
    """Show run folders: what they are, and where they ended.

    Attributes:
        runs: run folders, or folders that hold some.
    """

    runs: Paths = ()


def show(command: Show) -> None:
    summaries, unread = readable_runs(find_runs(_named(command.runs)))
    if command.json:
        print(json.dumps(summaries))
        for words in unread:
            print(printable(words), file=sys.stderr)
    else:
        print_report(Report({}, [runs_table(summaries), *unread]))


@dataclass(frozen=True)
class Tables(Common):
    """What the command of a finished run printed, again.

    Attributes:
        runs: run folders.
    """

    runs: Paths = ()


def tables(command: Tables) -> None:
    for path in _named(command.runs):
        print_report(run_report(path))


@dataclass(frozen=True)
class Figures(Common):
    """Draw all figures that run folders have data for, as PNG and PDF, and say which are left out and why.

    Attributes:
        runs: run folders, whole or killed. Their figures go to --out, below the name of the run where there are several;
            default the folder figures/ of each run.
    """

    runs: Paths = ()


def figures(command: Figures) -> None:
    paths, written = _named(command.runs), {}
    for path in paths:
        folder = path / "figures" if command.out is None else command.out / (path.resolve().name if len(paths) > 1 else "")
        if folder in written:
            raise RunError(f"runs: two are called {folder.name!r}; draw them one by one, each with an --out of its own")
        drawn, left_out = run_figures(path, find_report(path))
        written[folder] = {"figures": [str(save_figure(one, folder)) for one in drawn], "left_out": left_out}
    if command.json:
        print(json.dumps(list(written.values())))
        return
    for found in written.values():
        print(*map(printable, [*found["figures"], *(f"left out: {words}" for words in found["left_out"])]), sep="\n")


@dataclass(frozen=True)
class Html(Common):
    """One self-contained HTML page of run folders: tables, figures, provenance, config, glossary. --out default report.html.

    Attributes:
        runs: run folders, whole or killed.
    """

    runs: Paths = ()


def html(command: Html) -> None:
    file = command.out or Path("report.html")
    write_text(file, make_page(_named(command.runs)))
    print(json.dumps({"page": str(file)}) if command.json else file)


@dataclass(frozen=True)
class ClaimsPage(Common):
    """The paper's twelve claims against run folders and benchmark results, as Markdown: on the terminal, or in --out.

    Attributes:
        runs: folders of `recast-sim claims`, quickstart, budget, `recast-train study` and run; results files of the
            benchmarks (.json).
    """

    runs: Paths = ()


def claims(command: ClaimsPage) -> None:
    sources = read_evidence(_named(command.runs))
    if command.json:
        print(json.dumps([{"path": str(s.path), "world": s.world, "rows": s.rows, "note": s.note} for s in sources]))
    elif command.out is None:
        print(claims_page(sources), end="")
    else:
        write_text(command.out, claims_page(sources))


def _named(runs: tuple[Path, ...]) -> tuple[Path, ...]:
    if not runs:
        raise RunError("runs: none given; name at least one run folder")
    return runs


@dataclass(frozen=True)
class Agree(Common):
    """Hold a real study beside a simulated budget run: does the laboratory predict it?

    Attributes:
        real: folder of `recast-train study`.
        simulated: folder of `recast-sim budget` with settings of the same labels.
    """

    real: Positional[Path] = Path()
    simulated: Positional[Path] = Path()


def agree(command: Agree) -> None:
    with fits_its_kind(command.real):
        found = agreement_report(command.real, command.simulated)
    _show(found, command.json)


def _show(report: Report, as_json: bool) -> None:
    if as_json:
        print(json.dumps(report.summary, allow_nan=False))
    else:
        print_report(report)


@dataclass(frozen=True)
class Audit(Common):
    """Audit rollouts that another run dumped: verl's JSON lines, TRL's completions, or a plain table.

    Attributes:
        dumps: files, or folders that hold nothing else; told apart by content.
        hit_above: a reward above it is a hit.
        columns: what a dump's own names do not say, as ROLE=COLUMN: step, group, prompt, completion, reward (a+b adds two,
            unless one is called so), target, prompt_tokens, response_tokens.
        items: file of the SIDs that exist: a JSON object of item to SID, or an SID a line.
    """

    dumps: Paths = ()
    hit_above: float = 0.5
    columns: tuple[str, ...] = ()
    items: Path | None = None


def audit(command: Audit) -> None:
    with progress() as report:
        groups = read_groups(command.dumps, command.hit_above, command.columns, command.items, report)
    found = audit_report(groups)
    if command.out is not None:
        write_audit(command.out, found.summary, groups.table)
        print("figure:", *found.save_figures(command.out), file=sys.stderr)
    _show(found, command.json)


def main() -> None:
    commands = {
        "show": (Show, show),
        "tables": (Tables, tables),
        "figures": (Figures, figures),
        "html": (Html, html),
        "claims": (ClaimsPage, claims),
        "agree": (Agree, agree),
        "audit": (Audit, audit),
    }
    about = "Tables, figures and pages of run folders; audits of rollouts that other tools dumped."
    sys.exit(run_command("recast-report", about, commands, (RunError, AuditError, OSError)))
