"""What goes where in an MLflow run: the params, metrics and tags of a trial or a distance measurement.

The record itself travels whole, as JSON in tags, because MLflow's own fields cannot give it back exactly: they know
no None, clip infinity, and keep the metrics of an earlier failed attempt. Params and metrics show the same numbers to
people and to MLflow's search.
"""

import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, TypeVar

from fttune.errors import StoreError
from fttune.record import CurvePoint, DistanceRecord, RunRecord
from fttune.trial import HParams, Trial, draw_name

Row = TypeVar("Row", RunRecord, DistanceRecord)

KIND = "fttune.kind"  # trial, sweep or distance
TRIAL_ID = "fttune.trial_id"
DISTANCE_ID = "fttune.distance_id"  # first 16 digits of the digest of DistanceRecord.id
STATUS = "fttune.status"  # running, stopped, done or failed; always the last thing written
ERROR = "fttune.error"
TRACEBACK = "fttune.traceback"
RECORD = "fttune.record"
DEFAULT = "fttune.default"  # of a sweep that searches: the setting of its file, as JSON, under its digest
SPACE = "fttune.space"  # of a sweep that searches: in what, as JSON
NETWORK = "fttune.network"  # of a trial whose network is kept: how it did on val, its logged model, its bytes

# MLflow cuts a longer tag silently at 8000 characters (5000 before version 2.11).
_TAG_LENGTH = 5000

_CELL = ("dataset", "images_per_class", "backbone", "spec", "mode", "depth", "random_top", "seed")
_PARAMS = (*_CELL, *HParams.__slots__)
_DISTANCE_PARAMS = ("dataset", "backbone", "source", "metric", "image_size", "resize")

# The learning curve owns the name `val_accuracy`.
_RENAMED = {"val_accuracy": "best_val_accuracy", "val_mean_class_accuracy": "best_val_mean_class_accuracy"}


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepRun:
    """The parent run of a sweep."""

    sweep: str
    run_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialRun:
    """The run of a trial, as far as it is logged."""

    run_id: str
    step: int  # the highest of its curve; -1 where there is none
    done: bool


def sweep_tag(sweep: str) -> str:
    """The tag, set to `true`, on every run that a sweep asked for."""
    return f"fttune.sweep.{sweep}"


def keeps_tag(sweep: str) -> str:
    """The tag, set to `true`, on the run of every network that a sweep keeps."""
    return f"fttune.keeps.{sweep}"


def trial_params(trial: Trial) -> dict[str, str]:
    """The params of a trial's run; equal to `record_params` of its record, since MLflow lets nobody change them."""
    cell, hparams = trial.cell, trial.hparams
    values = {
        "dataset": cell.dataset,
        "images_per_class": cell.images_per_class,
        "backbone": cell.backbone,
        "spec": cell.spec,
        "mode": cell.mode,
        "depth": cell.spec.depth,
        "random_top": cell.spec.random,
        "seed": trial.seed,
        **{name: getattr(hparams, name) for name in HParams.__slots__},
        "lr_drop_steps": ",".join(map(str, hparams.lr_drop_steps)),
    }
    return {name: printable(str(value)) for name, value in values.items()}


def record_params(record: RunRecord | DistanceRecord) -> dict[str, str]:
    """The params of the run of a record."""
    names = _PARAMS if isinstance(record, RunRecord) else _DISTANCE_PARAMS
    return {name: printable(str(getattr(record, name))) for name in names}


def record_name(record: RunRecord) -> str:
    """The same as `Trial.name` of the record's trial."""
    fold = (record.fold, record.folds) if record.fold and record.folds else None
    return f"{record.dataset}/{record.images_per_class} {record.label} {draw_name(record.seed, fold)}"


def record_metrics(record: RunRecord | DistanceRecord) -> dict[str, float]:
    """Every number that was measured; what is None has no metric."""
    params = record_params(record)
    values = {name: value for name, value in asdict(record).items() if name not in params}
    return {_RENAMED.get(name, name): float(v) for name, v in values.items() if isinstance(v, int | float)}


def record_tags(record: RunRecord | DistanceRecord) -> dict[str, str]:
    """Every text that was noted, and the record itself in pieces (`unpack`)."""
    known = {*record_params(record), "trial_id", "status", "error"}
    texts = {name: v for name, v in asdict(record).items() if isinstance(v, str) and name not in known}
    return {name: printable(text) for name, text in texts.items()} | _pack(record)


def curve_metrics(point: CurvePoint) -> dict[str, float]:
    """The three values of a curve point."""
    return {name: value for name, value in asdict(point).items() if name != "step"}


def unpack(kind: type[Row], tags: Mapping[str, str]) -> Row:
    """The record that `record_tags` put into tags, exact in every field."""
    text, number = "", 0
    while piece := tags.get(f"{RECORD}.{number}"):
        text, number = text + piece, number + 1
    try:
        # A shorter record leaves pieces of a longer one behind it; they begin after the end of its JSON.
        row, _ = json.JSONDecoder().raw_decode(text)
    except ValueError:
        raise StoreError(f"the tags {RECORD}.* must hold a record as JSON, but hold '{text[:60]}'") from None
    return revive(kind, row)


def revive(kind: type[Row], row: Mapping[str, Any]) -> Row:
    """A record from its fields by name, for rows that another version of fttune wrote.

    A field it did not know takes its default, and StoreError names one that has none; a field unknown here is left out.
    """
    missing = [f.name for f in fields(kind) if f.name not in row and f.default is MISSING]
    if missing:
        raise StoreError(f"a {kind.__name__} must have '{missing[0]}', but only has: {', '.join(row)}")
    return kind(**{field.name: row[field.name] for field in fields(kind) if field.name in row})


def printable(text: str, length: int = _TAG_LENGTH) -> str:
    """Text that every database takes: without lone surrogates and NUL, and cut to its last `length` characters."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")[-length:]


def _pack(record: RunRecord | DistanceRecord) -> dict[str, str]:
    text = json.dumps(asdict(record))
    starts = range(0, len(text), _TAG_LENGTH)
    return {f"{RECORD}.{number}": text[start : start + _TAG_LENGTH] for number, start in enumerate(starts)}
