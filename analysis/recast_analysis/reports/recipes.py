"""The recipes that come with a command line, as a table."""

from collections.abc import Mapping

from recast_analysis.reports.report import Report, Table

_HEADER = ("", "what", "command", "time on two cores", "result")


def report(heads: Mapping[str, Mapping[str, str]]) -> Report:
    """A row a recipe, from its first two lines."""
    rows = [(name, *(head[key] for key in ("about", "command", "time", "result"))) for name, head in heads.items()]
    return Report({"recipes": dict(heads)}, [Table("", _HEADER, rows, words=_HEADER)])
