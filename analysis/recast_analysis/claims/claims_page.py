"""The claims page: for each of the twelve the paper's figure, ours in each world, interval, command, verdict. Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from recast_analysis.claims.curves import training_rows
from recast_analysis.claims.measurement import FAILS, FEWEST, HOLDS, NOT_PAPERS, OPEN, WHERE, Row, interval_words, with_where
from recast_analysis.claims.paper import CLAIMS, Claim
from recast_analysis.claims.real_runs import run_rows, study_rows
from recast_analysis.claims.simulated import claims_rows
from recast_analysis.claims.systems import benchmark_rows, read_benchmarks
from recast_analysis.measures.trajectories import read_trajectories
from recast_sim.runs.reader import fits_its_kind, read_manifest

SIMULATOR, REAL, BENCHMARK = "simulator", "real run", "benchmark"
NOT_MEASURED = "not measured here"
_READERS = {
    "claims": (SIMULATOR, claims_rows),
    "real-study": (REAL, study_rows),
    "real": (REAL, run_rows),
    **dict.fromkeys(("quickstart", "budget"), (SIMULATOR, lambda root: training_rows(read_trajectories(root)))),
}
_RULES = f"""\
Each measurement is judged by the rule that stands above the table of its claim. "{HOLDS}": the rule is met, in all measurements
of that world. "{WHERE}": it is met here and not in all of them, or partly, as the rule says. "{OPEN}": it is not met, but the
interval holds the paper's own figure as well, or there are fewer than {FEWEST} seeds. "{FAILS}": neither. Intervals are 95 %,
over seeds (worlds); of a study's test scores over seeds and users. "{NOT_PAPERS}": sampled Pass@1 gets no verdict; the
paper's is the first beam's, greedy, and temperature alone moves the sampled one."""


@dataclass(frozen=True)
class Evidence:
    """A run folder or results file, the world it belongs to, and what it says; `note` where it says nothing."""

    path: Path
    world: str
    command: str
    rows: list[Row]
    note: str = ""


def read_evidence(paths: Sequence[Path]) -> list[Evidence]:
    """What each path says on the claims; verdicts are over all sources of a world.

    Raises:
        RunError: a path that is neither a run folder nor a results file of the benchmarks.
    """
    sources = [_source(path) for path in paths]
    for world in (SIMULATOR, REAL, BENCHMARK):
        with_where(row for source in sources if source.world == world for row in source.rows)
    return sources


def _source(path: Path) -> Evidence:
    if path.suffix == ".json":
        commands = dict.fromkeys(str(result.get("command", "not recorded")) for result in read_benchmarks(path).values())
        return Evidence(path, BENCHMARK, "; ".join(commands), benchmark_rows(path))
    manifest = read_manifest(path)
    command = str(manifest.get("command", "not recorded"))
    if manifest["kind"] not in _READERS:
        kinds = ", ".join(_READERS)
        return Evidence(path, "", command, [], f"a run of kind {manifest['kind']!r} speaks to no claim; {kinds} do")
    world, read = _READERS[manifest["kind"]]
    if manifest["status"] != "complete":
        return Evidence(path, world, command, [], "left out: the run is not finished; go on with --resume")
    with fits_its_kind(path):
        return Evidence(path, world, command, read(path))


def claims_page(sources: Sequence[Evidence]) -> str:
    """The page: a summary of the twelve, a section for each, and the sources."""
    lines = ["# The paper's claims", "", "Claims of arXiv 2604.22169 against what was measured here.", "", _RULES, ""]
    worlds = (SIMULATOR, REAL, BENCHMARK)
    lines += [*_table_head("claim", "paper", *worlds)]
    for claim in CLAIMS:
        cells = (_overall([row for row, _, _ in _of(sources, claim, world)]) for world in worlds)
        lines.append(_line(f"{claim.number}. {claim.says}", claim.figure, *cells))
    for claim in CLAIMS:
        lines += ["", *_section(sources, claim)]
    lines += ["", "## Sources", "", *_table_head("", "folder or file", "world", "command", "")]
    lines += [_line(f"[{at}]", str(s.path), s.world, f"`{s.command}`", s.note) for at, s in enumerate(sources, start=1)]
    return "\n".join(lines) + "\n"


def _section(sources: Sequence[Evidence], claim: Claim) -> list[str]:
    head = [f"## {claim.number}. {claim.says}", "", f"Paper: {claim.figure}. Met where {claim.rule}.", ""]
    found = [row for world in (SIMULATOR, REAL, BENCHMARK) for row in _of(sources, claim, world)]
    if not found:
        return [*head, f"{NOT_MEASURED[0].upper()}{NOT_MEASURED[1:]}."]
    table = _table_head("world", "paper", "ours", "what was measured", "verdict", "source")
    return [
        *head,
        *table,
        *(_line(w, row["paper"], interval_words(row), row["setting"], row["verdict"], f"[{at}]") for row, w, at in found),
    ]


def _of(sources: Sequence[Evidence], claim: Claim, world: str) -> list[tuple[Row, str, int]]:
    return [
        (row, world, at)
        for at, source in enumerate(sources, start=1)
        if source.world == world
        for row in source.rows
        if row["claim"] == claim.number
    ]


def _overall(rows: Sequence[Row]) -> str:
    """A world's verdict on a claim: one word where its measurements agree, else how many say what."""
    verdicts = [row["verdict"] for row in rows]
    if len(set(verdicts)) < 2:
        return verdicts[0] if verdicts else NOT_MEASURED
    return ", ".join(f"{word} {verdicts.count(word)}" for word in (HOLDS, WHERE, OPEN, FAILS) if word in verdicts)


def _table_head(*names: str) -> list[str]:
    return [_line(*names), "|" + "---|" * len(names)]


def _line(*cells: str) -> str:
    """A row of a Markdown table: no cell ends it, and none holds a tag."""
    safe = (" ".join(cell.split()).replace("|", "\\|").replace("<", "&lt;") for cell in cells)
    return f"| {' | '.join(safe)} |"
