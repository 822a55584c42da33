"""What the asking commands do: print what was logged, or write it to a file."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from fttune import query
from fttune.record import RunRecord
from fttune.terminal import print_aligned, print_json, say


def show_runs(records: Sequence[RunRecord], *, out: Path | None, as_json: bool) -> None:
    """A line for each run; every field of it in a file or as JSON."""
    if out:
        query.save(out, query.to_table(records, RunRecord))
        return say(f"{len(records)} runs: {out}")
    if as_json:
        return print_json([asdict(record) for record in records])
    return print_aligned([query.shown(record) for record in records]) if records else say("no such run")


def show_comparison(found: query.Comparison, *, metric: str, out: Path | None, as_json: bool) -> None:
    """A line for each level; every value of it in a file or as JSON."""
    for note in found.notes:
        say(note)
    if out:
        query.save(out, query.tabulate(found))
        return say(f"{len(found.levels)} rows: {out}")
    if as_json:
        return print_json({"by": found.by, "metric": metric, "levels": [level.row for level in found.levels]})
    return print_aligned(query.level_rows(found)) if found.levels else say("no such run")
