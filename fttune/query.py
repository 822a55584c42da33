"""Asking what was logged: runs as rows, and levels of one axis against each other."""

import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

import pyarrow as pa
from pyarrow import csv, parquet

from fttune.analysis.compare import Comparison
from fttune.analysis.compare import compare as compare_records
from fttune.analysis.select import Setting, choices
from fttune.condition import Condition, meeting
from fttune.errors import ConfigError, UsageError, unknown
from fttune.files import replacing, writing
from fttune.record import RunRecord
from fttune.tracking.fields import DEFAULT
from fttune.tracking.runs import Tracker
from fttune.tracking.table import from_table, to_table

_SHOWN = (
    "trial_id", "dataset", "images_per_class", "backbone", "spec", "seed", "role", "lr", "status", "val_accuracy",
    "test_accuracy", "seconds",
)  # fmt: skip


def find(
    where: Sequence[str] = (), *, experiment: str = "fttune", sweep: str | None = None, uri: str | None = None
) -> list[RunRecord]:
    """The finished trials, done and failed, that meet every condition such as `images_per_class>=20`."""
    conditions = [Condition.parse(text, _types()) for text in where]
    return meeting(Tracker(uri, experiment).records(sweep), conditions)


def runs(
    where: Sequence[str] = (), *, experiment: str = "fttune", sweep: str | None = None, uri: str | None = None
) -> pa.Table:
    """The same as an Arrow table: a row for each trial, a column for each field of a RunRecord.

    And `chosen`: whether it has the setting that a search chose for its cell; null where there was none.
    """
    records = Tracker(uri, experiment).records(sweep)
    chosen = {record.trial_id: choice for record, choice in zip(records, choices(records), strict=True)}
    found = meeting(records, [Condition.parse(text, _types()) for text in where])
    return to_table(found, RunRecord, marks={"chosen": [chosen[record.trial_id] for record in found]})


def compare(
    by: str,
    hold: Sequence[str] = (),
    where: Sequence[str] = (),
    *,
    metric: str = "test_accuracy",
    experiment: str = "fttune",
    sweep: str | None = None,
    uri: str | None = None,
    confidence: float = 0.95,
    unequal: bool = False,
) -> pa.Table:
    """Levels of the axis `by` as an Arrow table: a row for each level in each group that is equal in what is held.

    Runs whose settings were searched for with unequal budgets are paired only with `unequal`.
    """
    found = comparison(
        by,
        hold,
        where,
        metric=metric,
        experiment=experiment,
        sweep=sweep,
        uri=uri,
        confidence=confidence,
        unequal=unequal,
    )
    return tabulate(found)


def comparison(
    by: str,
    hold: Sequence[str],
    where: Sequence[str],
    *,
    metric: str,
    experiment: str,
    sweep: str | None,
    uri: str | None = None,
    confidence: float,
    unequal: bool,
) -> Comparison:
    """The same with what should be known of it; ConfigError for a metric that is none."""
    if metric not in (numbers := _metrics()):
        raise ConfigError(f"compare: {unknown('metric', metric, numbers)}")
    if not 0 < confidence < 1:
        raise ConfigError(f"compare: confidence must lie between 0 and 1, but got {confidence:g}")
    records = find(experiment=experiment, sweep=sweep, uri=uri)
    shown = meeting(records, [Condition.parse(text, _types()) for text in where])
    return compare_records(
        records,
        by=by,
        hold=hold,
        shown={record.trial_id for record in shown},
        metric=metric,
        confidence=confidence,
        defaults=default_settings(experiment=experiment, sweep=sweep, uri=uri),
        unequal=unequal,
    )


def default_settings(*, experiment: str, sweep: str | None = None, uri: str | None = None) -> list[Setting]:
    """The settings that the searches of a sweep, or of all of an experiment, began with, of their files."""
    noted = Tracker(uri, experiment).noted(sweep)
    return [tuple(json.loads(text)) for text in sorted({noted[tag] for tag in noted if tag.startswith(f"{DEFAULT}.")})]


def tabulate(comparison: Comparison) -> pa.Table:
    """A row for each level, a column for each value."""
    return pa.Table.from_pylist([level.row for level in comparison.levels])


def run_rows(table: pa.Table) -> list[dict[str, Any]]:
    """What of runs fits into lines."""
    return [{name: getattr(record, name) for name in _SHOWN} for record in from_table(table, RunRecord)]


def level_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """What of a comparison fits into lines: numbers with their intervals."""
    return [
        {
            **level.held,
            comparison.by: level.level,
            "n": level.runs,
            "datasets": level.datasets,
            "mean": _spread(level.mean, level.low, level.high),
            "pairs": level.pairs or None,
            "difference": _spread(level.difference, level.difference_low, level.difference_high, "+"),
            "given": str(level.given),
        }
        for level in comparison.levels
    ]


def check_suffix(path: Path | None) -> None:
    """UsageError for a file that no table is written to."""
    if path and path.suffix not in (".csv", ".parquet"):
        raise UsageError(f"--out {path}: a table is written as .csv or .parquet")


def save(path: Path, table: pa.Table) -> None:
    """Write a table whole or not at all, as the suffix says: .csv or .parquet."""
    with writing(path.parent), replacing(path) as temporary:
        if path.suffix == ".csv":
            csv.write_csv(_flat(table), temporary)
        else:
            parquet.write_table(table, temporary)


def _flat(table: pa.Table) -> pa.Table:
    """With lists as text, for CSV knows none."""
    for place, field in enumerate(table.schema):
        if pa.types.is_list(field.type):
            texts = [" ".join(values) for values in table.column(place).to_pylist()]
            table = table.set_column(place, field.name, pa.array(texts, pa.string()))
    return table


def _spread(value: float | None, low: float | None, high: float | None, sign: str = "") -> str | None:
    if value is None:
        return None
    interval = "" if low is None or high is None else f" [{low:{sign}.3f}, {high:{sign}.3f}]"
    return f"{value:{sign}.3f}{interval}"


def _types() -> dict[str, type]:
    hints = get_type_hints(RunRecord)
    return {field.name: _kind(hints[field.name]) for field in fields(RunRecord)}


def _kind(hint: Any) -> type:
    kinds = {member if isinstance(member, type) else type(member) for member in get_args(hint) or (hint,)}
    return str if str in kinds else next(iter(kinds - {NoneType}))


def _metrics() -> list[str]:
    """Fields that were measured: numbers that may be absent."""
    hints = get_type_hints(RunRecord)
    return [
        field.name for field in fields(RunRecord) if field.default is None and NoneType in get_args(hints[field.name])
    ]
