"""Pairs put together: by cell, and as one effect with its interval."""

from collections.abc import Sequence
from statistics import fmean

from fttune.analysis.answer import Effect, Near
from fttune.analysis.bootstrap import interval, mean_ratio
from fttune.analysis.evidence import Finding
from fttune.analysis.ratios import spent

CONFIDENCE = 0.95


def effect(found: Sequence[Finding], confidence: float = CONFIDENCE) -> Effect:
    """Mean ratio and mean difference over the pairs that are not flagged, resampled over datasets, then seeds."""
    counted = [f for f in found if not f.pair.flagged]
    where = ([f.pair.dataset for f in counted], [f.pair.seed for f in counted])
    ratio = mean_ratio([f.pair.log_ratio for f in counted], *where, confidence=confidence) if counted else None
    spread = interval([f.difference for f in counted], *where, confidence=confidence) if counted else (None, None)
    above, below = spent(f.pair for f in found)  # near chance or not, they took it
    return Effect(
        pairs=len(counted),
        flagged=len(found) - len(counted),
        datasets=tuple(sorted(set(where[0]))),
        ratio=ratio.ratio if ratio else None,
        low=ratio.low if ratio else None,
        high=ratio.high if ratio else None,
        difference=fmean(f.difference for f in counted) if counted else None,
        # Accuracies lie in 0..1, which an interval over a few unlike sets does not know.
        difference_low=None if spread[0] is None else max(-1.0, spread[0]),
        difference_high=None if spread[1] is None else min(1.0, spread[1]),
        given=above,
        other_given=below,
    )


def cells(found: Sequence[Finding]) -> list[Near]:
    """Pairs put together by cell: the seeds of one dataset, number of images, network and settings of one source."""
    groups: dict[tuple[object, ...], list[Finding]] = {}
    for f in found:
        key = (f.source, f.pair.dataset, f.pair.images_per_class, f.pair.backbone, f.inputs, f.shared)
        groups.setdefault(key, []).append(f)
    return [_cell(here) for here in groups.values()]


def _cell(here: Sequence[Finding]) -> Near:
    ordered = sorted(here, key=lambda f: f.pair.seed)
    first = ordered[0]
    return Near(
        source=first.source,
        dataset=first.pair.dataset,
        images_per_class=first.pair.images_per_class,
        backbone=first.pair.backbone,
        image_size=first.image_size,
        resize=first.resize,
        distance=first.pair.distance,
        effect=effect(ordered),
        tuned=tuple(f.pair.numerator_id for f in ordered),
        frozen=tuple(f.pair.denominator_id for f in ordered),
    )
