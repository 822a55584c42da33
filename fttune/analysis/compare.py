"""Levels of one axis against each other, everything else held equal: `tune` against `freeze`, 25 images against 5.

A run counts once for its level; a difference is taken within pairs of runs that are equal in every setting, image and
seed but for the axis and what follows from it.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from fttune.analysis.bootstrap import interval
from fttune.analysis.select import SEARCHED, Result, select
from fttune.errors import ConfigError, unknown
from fttune.record import RunRecord
from fttune.ways import is_convex

# What a comparison may be of; each with the fields that differ where it differs.
AXES: Mapping[str, tuple[str, ...]] = {
    "dataset": ("data_digest", "classes", "train_images", "val_images", "test_images"),
    "images_per_class": ("train_images",),
    "backbone": ("spec", "depth", "weights_digest"),
    "spec": ("mode", "random_top"),
    "mode": ("spec", "way"),
    "random_top": ("spec",),
    "seed": (),
    **dict.fromkeys(SEARCHED, ()),
    **dict.fromkeys(("momentum", "batch_size", "bn", "views", "resize", "biases", "dropout"), ()),
    "steps": ("lr_drop_steps", "report_every"),
    "image_size": (),
}
_EQUAL = (
    *AXES, "way", "depth", "lr_drop_steps", "report_every", "data_digest", "weights_digest", "classes", "train_images",
    "val_images", "test_images",
)  # fmt: skip
# Of modes; the first that is there is what others are held against. The ways follow by name.
_ORDER = ("scratch", "freeze", "mixed", "tune")

Value = str | int | float


@dataclass(frozen=True, kw_only=True, slots=True)
class Level:
    """One level of the axis among runs that are equal in what is held."""

    held: Mapping[str, Value]
    level: Value
    runs: int
    datasets: int
    mean: float
    low: float | None  # None: a single seed of a single dataset has no interval
    high: float | None
    pairs: int  # runs that have a partner at the first level
    difference: float | None  # mean over the pairs of this level less the first; None at the first and without pairs
    difference_low: float | None
    difference_high: float | None
    trial_ids: tuple[str, ...]

    @property
    def row(self) -> dict[str, Any]:
        """Flat values, the held ones first."""
        values = asdict(self)
        return {**values.pop("held"), **values}


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """The levels in order within each group, and what should be known of them."""

    by: str
    levels: tuple[Level, ...]
    notes: tuple[str, ...]


def compare(
    records: Sequence[RunRecord], *, by: str, hold: Sequence[str] = (), metric: str = "test_accuracy", confidence: float
) -> Comparison:
    """Mean of a metric at each level of `by`, with a bootstrap interval over datasets and their seeds.

    Of a cell where several settings were tried the one that val prefers counts (`select`), unless they are what is
    compared; runs pair only with as many settings tried. ConfigError for an axis that is none.
    """
    for axis in (by, *hold):
        if axis not in AXES:
            raise ConfigError(f"compare: {unknown('axis', axis, AXES)}")
    if by in hold:
        raise ConfigError(f"compare: {by} is compared, so it cannot be held")
    runs = [run for run in _chosen(records, by) if getattr(run.record, metric) is not None]
    groups: dict[tuple[Value, ...], list[_Run]] = defaultdict(list)
    for run in runs:
        groups[tuple(_held(run.record, axis, by) for axis in hold)].append(run)
    levels: list[Level] = []
    lone = 0
    for place in sorted(groups, key=_sortable):
        here = _levels(dict(zip(hold, place, strict=True)), groups[place], by, metric, confidence)
        lone += sum(level.runs - level.pairs for level in here[1:])
        levels += here
    failed = sum(record.status != "done" for record in records)
    solved = sorted({run.record.mode for run in runs if is_convex(run.record.way)}) if by == "mode" else []
    notes = {
        f"no steps, but solved to the end, its regularisation chosen on val: {', '.join(solved)}": len(solved),
        f"failed runs, left out: {failed}": failed,
        f"runs without a partner that is equal in all but {by}, in the means and in no difference: {lone}": lone,
    }
    return Comparison(by=by, levels=tuple(levels), notes=tuple(note for note, number in notes.items() if number))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Run:
    record: RunRecord
    budget: tuple[object, ...]  # settings tried, and the setting where that was one


def _chosen(records: Sequence[RunRecord], by: str) -> list[_Run]:
    done = [record for record in records if record.status == "done"]
    if by in SEARCHED:
        return [_Run(record=r, budget=tuple(getattr(r, name) for name in SEARCHED if name != by)) for r in done]
    results = {result.trial_id: result for result in select(done)}
    return [_Run(record=r, budget=_budget(results[r.trial_id])) for r in done if r.trial_id in results]


def _budget(result: Result) -> tuple[object, ...]:
    return (result.tried, *(result.setting if result.tried == 1 else ()))


def _held(record: RunRecord, axis: str, by: str) -> Value:
    """A spec holds the number of new layers alone where modes are compared, the mode where numbers are."""
    if axis == "spec" and by in ("mode", "random_top"):
        return f"R {record.random_top}" if by == "mode" else record.mode
    return getattr(record, axis)


def _levels(held: Mapping[str, Value], runs: Sequence[_Run], by: str, metric: str, confidence: float) -> list[Level]:
    found: dict[Value, dict[tuple[object, ...], RunRecord]] = defaultdict(dict)
    for run in runs:
        found[getattr(run.record, by)][_key(run, by)] = run.record
    first, *_ = order = sorted(found, key=_rank)
    # What takes no steps was given settings of another kind, so it is held against a partner whatever that was given.
    partners = found[first] | {(None, *key[1:]): record for key, record in found[first].items()}
    return [_level(held, name, found[name], partners if name != first else {}, metric, confidence) for name in order]


def _level(
    held: Mapping[str, Value],
    name: Value,
    runs: Mapping[tuple[object, ...], RunRecord],
    first: Mapping[tuple[object, ...], RunRecord],
    metric: str,
    confidence: float,
) -> Level:
    keys = sorted(runs.keys() & first.keys(), key=repr)
    records = list(runs.values())
    low, high = _interval(records, lambda record: getattr(record, metric), confidence)
    if metric.endswith("accuracy") and low is not None and high is not None:
        low, high = max(low, 0.0), min(high, 1.0)  # Student's t knows no ends, a fraction has two
    differences = {runs[key].trial_id: getattr(runs[key], metric) - getattr(first[key], metric) for key in keys}
    paired = [runs[key] for key in keys]
    below, above = _interval(paired, lambda record: differences[record.trial_id], confidence)
    return Level(
        held=held,
        level=name,
        runs=len(records),
        datasets=len({record.dataset for record in records}),
        mean=fmean(getattr(record, metric) for record in records),
        low=low,
        high=high,
        pairs=len(keys),
        difference=fmean(differences.values()) if keys else None,
        difference_low=below,
        difference_high=above,
        trial_ids=tuple(sorted(record.trial_id for record in records)),
    )


def _interval(
    records: Sequence[RunRecord], value: Callable[[RunRecord], float], confidence: float
) -> tuple[float | None, float | None]:
    rows = ([value(r) for r in records], [r.dataset for r in records], [r.seed for r in records])
    return interval(*rows, confidence=confidence) if records else (None, None)


def _key(run: _Run, by: str) -> tuple[object, ...]:
    """Equal for runs that may be held against each other."""
    free = {by, *AXES[by], *SEARCHED}
    return (
        None if is_convex(run.record.way) else run.budget,
        *(getattr(run.record, name) for name in _EQUAL if name not in free),
    )


def _rank(value: Value) -> tuple[int, Value]:
    return (_ORDER.index(value), 0) if isinstance(value, str) and value in _ORDER else (len(_ORDER), value)


def _sortable(place: tuple[Value, ...]) -> tuple[tuple[bool, Value], ...]:
    return tuple((isinstance(value, str), value) for value in place)
