"""How the command line speaks: one JSON document or a table on stdout, everything else on stderr."""

import json
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from fttune.record import CurvePoint
from fttune.text import inert

Row = dict[str, Any]


def print_json(document: Any) -> None:
    """One JSON document on stdout; values JSON has no form for are written as text."""
    sys.stdout.write(json.dumps(document, indent=2, default=str) + "\n")


def print_rows(rows: Sequence[Row], *, as_json: bool = False) -> None:
    """Rows as a table, numbers to the right; or as a JSON list."""
    if as_json:
        return print_json(list(rows))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for place, (name, value) in enumerate(rows[0].items() if rows else ()):
        # The first names the row: it is never cut.
        width = None if place else max(len(_text(row[name])) for row in rows)
        justify = "right" if isinstance(value, int | float) else "left"
        table.add_column(name.replace("_", " "), justify=justify, min_width=width)
    for row in rows:
        table.add_row(*(_text(value) for value in row.values()))
    return Console(highlight=False, markup=False, emoji=False).print(table)


def print_aligned(rows: Sequence[Row]) -> None:
    """Rows as lines that are never cut or broken, for a wide terminal or the next program; numbers to the right."""
    names = list(rows[0])
    lines = [[name.replace("_", " ") for name in names], *([_text(row[name]) for name in names] for row in rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(names))]
    right = [all(isinstance(row[name], int | float | None) for row in rows) for name in names]
    for line in lines:
        fields = zip(line, widths, right, strict=True)
        print("  ".join(text.rjust(width) if number else text.ljust(width) for text, width, number in fields).rstrip())


def print_facts(facts: Row, *, as_json: bool = False) -> None:
    """Names and values, one line each; or as one JSON object."""
    if as_json:
        return print_json(facts)
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name.replace('_', ' '):<{width}}  {_text(value)}")
    return None


def print_lines(lines: Sequence[str]) -> None:
    """Lines on stdout."""
    print("\n".join(map(inert, lines)))


def say(line: str) -> None:
    """A line for the person at the terminal, on stderr."""
    print(inert(line), file=sys.stderr, flush=True)


_MANY = 10_000  # images from which decoding is long enough to be told of


class Decoding:
    """Shows images being decoded: a bar for each dataset, or a line for each tenth where stderr is no terminal."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        self._progress = Progress(
            *columns, console=self._console, disable=not self._console.is_terminal, transient=True
        )
        self._tasks: dict[str, TaskID] = {}
        self._tenths: dict[str, int] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def __call__(self, dataset: str, done: int, total: int) -> None:
        if dataset not in self._tasks:
            self._tasks[dataset] = self._progress.add_task(inert(f"decoding {dataset}"), total=total)
        self._progress.update(self._tasks[dataset], completed=done)
        tenth = 10 * done // max(1, total)
        if not self._console.is_terminal and total >= _MANY and tenth > self._tenths.get(dataset, 0):
            say(f"decoding {dataset}: {done:,} of {total:,} images")
        self._tenths[dataset] = tenth


class Stepping:
    """Shows one long training: a line for each report, and a bar where stderr is a terminal."""

    def __init__(self, name: str, steps: int) -> None:
        self._console = Console(stderr=True, highlight=False)
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        self._progress = Progress(
            *columns, console=self._console, disable=not self._console.is_terminal, transient=True
        )
        self._task = self._progress.add_task(f"training {name}", total=steps)
        self._steps, self._begun = steps, False

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def at(self, step: int) -> None:
        if self._begun:
            self._progress.update(self._task, completed=step)
            return
        self._begun = True
        # Steps of an earlier process would count as this one's speed.
        self._progress.reset(self._task, completed=step)
        if step:
            self._say(f"goes on after step {step:,}")

    def point(self, point: CurvePoint) -> None:
        place = f"step {point.step:,} of {self._steps:,}"
        self._say(f"{place}  loss {point.train_loss:.4f}  val loss {point.val_loss:.4f}  val {point.val_accuracy:.3f}")

    def _say(self, line: str) -> None:
        self._console.print(inert(line), soft_wrap=True, markup=False)


def _text(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return inert(", ".join(value)) or "-"
    return f"{value:.4g}" if isinstance(value, float) else inert(str(value))
