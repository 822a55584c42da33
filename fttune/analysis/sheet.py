"""A table of a report: columns, rows, and the lines under it; as Markdown, as JSON, as HTML."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from fttune.analysis.markup import listed, row, table


@dataclass(frozen=True, kw_only=True, slots=True)
class Measure:
    """A measured number with its spread and what it rests on."""

    value: float
    low: float
    high: float
    spread: str  # what low and high are
    images: int  # of the target
    source_images: int
    repeats: int  # draws of images
    chance: float | None

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}], n = {self.images}"


Value = str | int | float | Measure | None
Row = Mapping[str, Value]  # by column


@dataclass(frozen=True, kw_only=True, slots=True)
class Sheet:
    """One table. A value None prints as a dash; numbers keep four figures; `facts` are for its document alone."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def document(self) -> dict[str, Any]:
        """As JSON-able values: one object for each row, by column."""
        rows = [{column: _plain(row[column]) for column in self.columns} for row in self.rows]
        return {"title": self.title, "rows": rows, "notes": list(self.notes), **self.facts}

    def markdown(self) -> str:
        """As Markdown, columns aligned."""
        shown = [self.columns, *([text(row[column]) for column in self.columns] for row in self.rows)]
        widths = [max(len(row[place]) for row in shown) for place in range(len(self.columns))]
        lines = [_line(row, widths) for row in shown]
        body = [lines[0], _line(["-" * width for width in widths], widths), *lines[1:]]
        nothing = [] if self.rows else ["", "No runs."]
        return "\n".join([f"## {self.title}", "", *body, *nothing, *(f"\n{note}" for note in self.notes)])

    def html(self) -> str:
        """As a part of a page, under a heading that is not given here."""
        rows = [row(_shown(one[column]) for column in self.columns) for one in self.rows]
        return table(self.columns, rows, name=self.title) + listed(self.notes)


def text(value: Value) -> str:
    """A value for people."""
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _plain(value: Value) -> object:
    return asdict(value) if isinstance(value, Measure) else value


def _line(fields: Sequence[str], widths: Sequence[int]) -> str:
    return f"| {' | '.join(field.ljust(width) for field, width in zip(fields, widths, strict=True))} |"


def _shown(value: Value) -> str | int | float | None:
    return str(value) if isinstance(value, Measure) else value
