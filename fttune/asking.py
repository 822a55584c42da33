"""What the asking commands do: print what was logged, or write it to a file."""

from pathlib import Path

import pyarrow as pa

from fttune import query
from fttune.terminal import print_aligned, print_json, say


def show_runs(table: pa.Table, *, out: Path | None, as_json: bool) -> None:
    """A line for each run; every field of it in a file or as JSON."""
    if out:
        query.save(out, table)
        return say(f"{len(table)} runs: {out}")
    if as_json:
        return print_json(table.to_pylist())
    return print_aligned(query.run_rows(table)) if len(table) else say("no such run")


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
