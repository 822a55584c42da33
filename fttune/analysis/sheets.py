"""All tables of a report: those that every report has, and those of a search."""

from collections.abc import Callable, Mapping

from fttune.analysis.selection import illusion_sheet, search_sheet
from fttune.analysis.sheet import Sheet
from fttune.analysis.tables import TABLES, Findings

# Of reports with runs of a search.
SEARCHES: Mapping[str, Callable[[Findings], Sheet]] = {
    "search": lambda report: search_sheet(report.records, report.defaults),
    "illusion": lambda report: illusion_sheet(report.records),
}


def sheets_of(report: Findings) -> dict[str, Sheet]:
    """The tables of a report, by the name of their files."""
    searched = any(record.role == "search" and record.status == "done" for record in report.records)
    rows = {**TABLES, **(SEARCHES if searched else {})}
    return {name: make(report) for name, make in rows.items()}
