"""What trials took: each backbone and layer spec on each device, and tuned against frozen within pairs."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import median

from fttune.analysis.ratios import Pair
from fttune.analysis.sheet import Row, Sheet
from fttune.record import RunRecord

_COLUMNS = (
    "backbone",
    "spec",
    "mode",
    "device",
    "trials",
    "seconds",
    "least",
    "most",
    "images/s",
    "hours",
    "GPU-hours",
)

_SEARCHES = "What a search tried, some of it ended early, counts in trials and hours alone."


def costs_sheet(records: Sequence[RunRecord], pairs: Sequence[Pair]) -> Sheet:
    """Seconds are medians of whole trials; `pairs` are tuned over frozen."""
    groups: dict[tuple[str, int, str, str, str], list[RunRecord]] = defaultdict(list)
    for record in records:
        if record.status == "done" and record.seconds is not None:
            key = (record.backbone, record.random_top, record.mode, record.spec, record.device)
            groups[key].append(record)
    rows = tuple(_row(here) for _, here in sorted(groups.items()))
    return Sheet(
        title="What it cost",
        columns=(*_COLUMNS, "peak MB"),
        rows=rows,
        notes=(
            *_gaps(records, pairs),
            "Where views allow, frozen layers are computed once for all trials that share them, so most take less.",
            "Seconds, images/s and peak MB are medians, least and most the range of seconds; hours are summed.",
            *([_SEARCHES] if any(record.role for here in groups.values() for record in here) else []),
            *(["Trials that shared a GPU are each counted as if they had it alone."] if _on_gpu(rows) else []),
        ),
    )


def _row(here: Sequence[RunRecord]) -> Row:
    one, whole = here[0], [record for record in here if not record.role and record.pruned_step is None]
    seconds = [record.seconds or 0.0 for record in whole]
    hours = sum(record.seconds or 0.0 for record in here) / 3600
    return {
        "backbone": one.backbone,
        "spec": one.spec,
        "mode": one.mode,
        "device": one.device or None,
        "trials": len(here),
        "seconds": _median(seconds),
        "least": min(seconds, default=None),
        "most": max(seconds, default=None),
        "images/s": _whole(_median(record.images_per_second for record in whole)),
        "hours": hours,
        "GPU-hours": hours if one.device not in ("", "cpu") else None,
        "peak MB": _median(record.peak_memory_mb for record in whole),
    }


def _gaps(records: Sequence[RunRecord], pairs: Sequence[Pair]) -> list[str]:
    """How much longer tuned trials took than their frozen partners; pairs over two kinds of device tell nothing."""
    known = {record.trial_id: record for record in records}
    gaps: dict[str, list[float]] = defaultdict(list)
    for pair in pairs:
        tuned, frozen = known[pair.numerator_id], known[pair.denominator_id]
        if tuned.seconds and frozen.seconds and tuned.device == frozen.device:
            gaps[pair.backbone].append(tuned.seconds / frozen.seconds)
    return [
        f"{backbone}: a tuned trial took {median(found):.3g} times as long as its frozen partner (median of"
        f" {len(found)} pairs with one new layer, from {min(found):.3g} to {max(found):.3g})."
        for backbone, found in sorted(gaps.items())
    ]


def _on_gpu(rows: Iterable[Row]) -> bool:
    return any(row["GPU-hours"] is not None for row in rows)


def _median(values: Iterable[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return median(found) if found else None


def _whole(value: float | None) -> float | None:
    """Thousands are told without a fraction."""
    return round(value) if value is not None and value >= 1000 else value
