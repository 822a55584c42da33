"""Levels of one axis against each other, everything else held equal: `tune` against `freeze`, 25 images against 5.

A run counts once for its level; a difference is taken within pairs of runs that are equal in every setting, image and
seed but for the axis and what follows from it.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Any

from fttune.analysis.bootstrap import interval
from fttune.analysis.contenders import AXES, Cells, Contender, contenders, key, parted
from fttune.analysis.given import NOTHING, Given, given
from fttune.analysis.select import Setting, cell_of, searched
from fttune.errors import ConfigError, unknown
from fttune.record import RunRecord
from fttune.trial import SEARCHED
from fttune.ways import is_convex

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
    given: Given  # what the runs took, and the searches that chose their settings

    @property
    def row(self) -> dict[str, Any]:
        """Flat values, the held ones first."""
        values = asdict(self)
        spent = {f"given_{name}": value for name, value in values.pop("given").items()}
        return {**values.pop("held"), **values, **spent}


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """The levels in order within each group, and what should be known of them."""

    by: str
    levels: tuple[Level, ...]
    notes: tuple[str, ...]


def compare(
    records: Sequence[RunRecord],
    *,
    by: str,
    hold: Sequence[str] = (),
    shown: Collection[str] | None = None,
    metric: str = "test_accuracy",
    confidence: float,
    defaults: Collection[Setting] = (),
    unequal: bool = False,
) -> Comparison:
    """Mean of a metric at each level of `by`, with a bootstrap interval over datasets and their seeds.

    Of a cell where several settings were tried the one that val prefers counts (`select`), unless they are what is
    compared; runs pair only with as many settings, trials, steps and images of search, on as many draws, unless
    `unequal`. Where there was a search, groups tell apart the settings `chosen` and those of the sweeps' files
    (`defaults`). Only trials with an id in `shown` are compared (None: all), but a search chose among all of its own.
    ConfigError for an axis that is none.
    """
    _check_axes(by, hold)
    cells = {cell: one for cell, one in searched(records).items() if one.prevails}
    asked = [record for record in records if shown is None or record.trial_id in shown]
    runs = [run for run in contenders(records, asked, by, defaults, cells) if getattr(run.record, metric) is not None]
    apart = parted(runs, by) and not unequal
    if unequal:
        runs = [replace(run, budget=()) if run.chosen else run for run in runs]
    groups = [_levels(held, some, by, metric, confidence) for held, some in _groups(runs, by, hold)]
    lone = sum(level.runs - level.pairs for levels in groups for level in levels[1:])
    failed = sum(record.status != "done" for record in asked)
    unfinished = 0 if by in SEARCHED else _unfinished(cells, asked)
    solved = sorted({run.record.mode for run in runs if is_convex(run.record.way)}) if by == "mode" else []
    pruned = sum(record.pruned_step is not None for record in asked) if by in SEARCHED else 0
    notes = {
        f"cells whose search is not at its end: its choice is not repeated yet: {unfinished}": unfinished,
        "searches of unequal budgets, whose runs are not paired unless --unequal says so": apart,
        f"no steps, but solved to the end, its regularisation chosen on val: {', '.join(solved)}": len(solved),
        f"failed runs, left out: {failed}": failed,
        f"runs that a pruner ended before their last step, left out: {pruned}": pruned,
        f"runs without a partner that is equal in all but {by}, in the means and in no difference: {lone}": lone,
    }
    return Comparison(
        by=by,
        levels=tuple(level for levels in groups for level in levels),
        notes=tuple(note for note, number in notes.items() if number),
    )


def _check_axes(by: str, hold: Sequence[str]) -> None:
    for axis in (by, *hold):
        if axis not in AXES:
            raise ConfigError(f"compare: {unknown('axis', axis, AXES)}")
    if by in hold:
        raise ConfigError(f"compare: {by} is compared, so it cannot be held")


def _groups(runs: Sequence[Contender], by: str, hold: Sequence[str]) -> list[tuple[dict[str, Value], list[Contender]]]:
    """Runs that are equal in what is held, in the order of that."""
    names = (*hold, *(("setting",) if any(run.setting for run in runs) else ()))
    groups: dict[tuple[Value, ...], list[Contender]] = defaultdict(list)
    for run in runs:
        held = [run.setting or "only" if axis == "setting" else _held(run.record, axis, by) for axis in names]
        groups[tuple(held)].append(run)
    return [(dict(zip(names, place, strict=True)), groups[place]) for place in sorted(groups, key=_sortable)]


def _unfinished(cells: Cells, asked: Sequence[RunRecord]) -> int:
    here = {cell_of(record) for record in asked}
    return sum(cells[cell].chosen not in cells[cell].repeats for cell in cells.keys() & here)


def _held(record: RunRecord, axis: str, by: str) -> Value:
    """A spec holds the number of new layers alone where modes are compared, the mode where numbers are."""
    if axis == "spec" and by in ("mode", "random_top"):
        return f"R {record.random_top}" if by == "mode" else record.mode
    return getattr(record, axis)


def _levels(
    held: Mapping[str, Value], runs: Sequence[Contender], by: str, metric: str, confidence: float
) -> list[Level]:
    found: dict[Value, dict[str, tuple[tuple[object, ...], RunRecord]]] = defaultdict(dict)  # by trial id
    spent: dict[Value, dict[object, Given]] = defaultdict(dict)
    for run in runs:
        level = getattr(run.record, by)
        found[level][run.record.trial_id] = (key(run, by), run.record)
        spent[level][run.record.trial_id] = given(run.record)
        if run.setting == "chosen":  # what is given by the file needs no search
            spent[level][cell_of(run.record)] = run.given
    first, *_ = order = sorted(found, key=_rank)
    # What takes no steps was given settings of another kind, so it is held against a partner whatever that was given.
    firsts = dict(found[first].values())
    partners = firsts | {(None, *place[1:]): record for place, record in firsts.items()}
    taken = {name: sum(spent[name].values(), NOTHING) for name in order}
    return [
        _level(held, name, [*found[name].values()], partners if name != first else {}, metric, confidence, taken[name])
        for name in order
    ]


def _level(
    held: Mapping[str, Value],
    name: Value,
    runs: Sequence[tuple[tuple[object, ...], RunRecord]],
    first: Mapping[tuple[object, ...], RunRecord],
    metric: str,
    confidence: float,
    spent: Given,
) -> Level:
    records = [record for _, record in runs]
    partners = {record.trial_id: first[place] for place, record in runs if place in first}
    low, high = _interval(records, lambda record: getattr(record, metric), confidence)
    if metric.endswith("accuracy") and low is not None and high is not None:
        low, high = max(low, 0.0), min(high, 1.0)  # Student's t knows no ends, a fraction has two
    paired = sorted((record for record in records if record.trial_id in partners), key=lambda record: record.trial_id)
    differences = {r.trial_id: getattr(r, metric) - getattr(partners[r.trial_id], metric) for r in paired}
    below, above = _interval(paired, lambda record: differences[record.trial_id], confidence)
    return Level(
        held=held,
        level=name,
        runs=len(records),
        datasets=len({record.dataset for record in records}),
        mean=fmean(getattr(record, metric) for record in records),
        low=low,
        high=high,
        pairs=len(paired),
        difference=fmean(differences.values()) if paired else None,
        difference_low=below,
        difference_high=above,
        trial_ids=tuple(sorted(record.trial_id for record in records)),
        given=spent,
    )


def _interval(
    records: Sequence[RunRecord], value: Callable[[RunRecord], float], confidence: float
) -> tuple[float | None, float | None]:
    rows = ([value(r) for r in records], [r.dataset for r in records], [r.seed for r in records])
    return interval(*rows, confidence=confidence) if records else (None, None)


def _rank(value: Value) -> tuple[int, Value]:
    return (_ORDER.index(value), 0) if isinstance(value, str) and value in _ORDER else (len(_ORDER), value)


def _sortable(place: tuple[Value, ...]) -> tuple[tuple[bool, Value], ...]:
    return tuple((isinstance(value, str), value) for value in place)
