"""Each mode held against freeze in pairs: what a way to adapt gains, and what it took."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import groupby
from statistics import fmean

from fttune.analysis.compare import Level, compare
from fttune.analysis.select import Setting
from fttune.analysis.sheet import Row, Sheet, Value
from fttune.record import RunRecord
from fttune.ways import is_convex

_COLUMNS = (
    "images per class", "new layers", "setting", "mode", "runs", "datasets", "accuracy", "against", "pairs",
    "difference", "low", "high", "steps", "seconds a run", "given",
)  # fmt: skip


def modes_sheet(records: Sequence[RunRecord], confidence: float, defaults: Collection[Setting] = ()) -> Sheet:
    """The mean test accuracy of each mode, and its mean difference to freeze over fair pairs with its interval.

    Of cells that were searched at their choices and, beside these, at the settings of the sweeps' files (`defaults`).
    """
    held = ("images_per_class", "spec")
    found = compare(records, by="mode", hold=held, confidence=confidence, defaults=defaults)
    runs = {record.trial_id: record for record in records}
    return Sheet(
        title="Every mode against freeze",
        columns=tuple(
            name for name in _COLUMNS if name != "setting" or any("setting" in one.held for one in found.levels)
        ),
        rows=tuple(_rows(found.levels, runs)),
        notes=(
            "The difference is the mean over pairs of runs that share images, views, steps, order of batches and"
            f" budgets of search; low and high: its {confidence * 100:g} % interval over datasets, then seeds.",
            "Given is what all runs of a mode took, with the searches that chose their settings. Where some were"
            " searched, setting tells what was chosen from what the sweep's file gives (default) and what was the only"
            " one.",
            "What has no steps is solved to the end; its seconds are all that its budget says.",
            *(f"{note[0].upper()}{note[1:]}." for note in found.notes),
        ),
    )


def _rows(levels: Sequence[Level], runs: Mapping[str, RunRecord]) -> Iterator[Row]:
    """Those of a group stand together, the one that the others are held against first."""
    for _, group in groupby(levels, key=lambda level: tuple(level.held.values())):
        first, *others = group
        yield _row(first, None, runs)
        yield from (_row(level, first.level, runs) for level in others)


def _row(level: Level, against: Value, runs: Mapping[str, RunRecord]) -> Row:
    here = [runs[name] for name in level.trial_ids]
    seconds = [run.seconds for run in here if run.seconds is not None]
    steps = sorted({run.steps for run in here if not is_convex(run.way)})
    return {
        "images per class": level.held["images_per_class"],
        "new layers": level.held["spec"],
        "setting": level.held.get("setting"),
        "mode": level.level,
        "runs": level.runs,
        "datasets": level.datasets,
        "accuracy": level.mean,
        "against": against,
        "pairs": level.pairs if against else None,
        "difference": level.difference,
        "low": level.difference_low,
        "high": level.difference_high,
        "steps": ", ".join(map(str, steps)) or "none",
        "seconds a run": fmean(seconds) if seconds else None,
        "given": str(level.given),
    }
