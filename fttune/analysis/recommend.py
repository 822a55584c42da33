"""The recommendation table (Table 3 of the paper): a verdict with its evidence for each distance and image count."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from fttune.analysis.bootstrap import mean_ratio
from fttune.analysis.ratios import Pair
from fttune.record import DistanceRecord

BANDS = ("L", "M", "H")
IMAGE_EDGES = (21.0, 100.0)  # images per class where M and H begin (section 4)
DISTANCE_EDGES = (0.2, 0.4)  # cosine distance where M and H begin (section 4)


class Verdict(StrEnum):
    """The paper's words, and one for a box without any pair."""

    FREEZE = "Freeze"
    TUNE = "Tune"
    BOTH = "Try Freeze or Tune"
    NONE = "No evidence"


@dataclass(frozen=True, kw_only=True, slots=True)
class Box:
    """One field of the table."""

    distance_band: str
    image_band: str
    verdict: Verdict
    ratio: float | None  # geometric mean of T / F over the counted pairs
    low: float | None
    high: float | None
    pairs: tuple[Pair, ...]  # counted and flagged
    datasets: tuple[str, ...]  # of the counted pairs

    @property
    def counted(self) -> int:
        return sum(not pair.flagged for pair in self.pairs)

    @property
    def flagged(self) -> int:
        return len(self.pairs) - self.counted

    @property
    def thin(self) -> bool:
        """Whether it all rests on one dataset."""
        return len(self.datasets) == 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """Nine boxes, and what could not be placed in them or might lie in another."""

    boxes: tuple[Box, ...]  # by distance, then images
    image_edges: tuple[float, float]
    distance_edges: tuple[float, float]
    confidence: float
    unplaced: tuple[str, ...]  # datasets whose distance is not known
    straddling: tuple[str, ...]  # datasets whose distance interval reaches over an edge

    def box(self, distance_band: str, image_band: str) -> Box:
        return self.boxes[3 * BANDS.index(distance_band) + BANDS.index(image_band)]


def band(value: float, edges: Sequence[float]) -> str:
    """L, M or H; bands are half-open, an edge belongs to the band above it."""
    return BANDS[bisect_right(edges, value)]


def recommend(
    pairs: Sequence[Pair],
    distances: Sequence[DistanceRecord],
    *,
    image_edges: tuple[float, float] = IMAGE_EDGES,
    distance_edges: tuple[float, float] = DISTANCE_EDGES,
    confidence: float = 0.95,
) -> Table:
    """Sort tune-to-freeze pairs into boxes and judge each by its interval."""
    placed: dict[tuple[str, str], list[Pair]] = {}
    for pair in pairs:
        if pair.distance is not None:
            key = (band(pair.distance, distance_edges), band(pair.images_per_class, image_edges))
            placed.setdefault(key, []).append(pair)
    return Table(
        boxes=tuple(_judge(d, i, placed.get((d, i), []), confidence) for d in BANDS for i in BANDS),
        image_edges=image_edges,
        distance_edges=distance_edges,
        confidence=confidence,
        unplaced=tuple(sorted({pair.dataset for pair in pairs if pair.distance is None})),
        straddling=tuple(
            sorted({r.dataset for r in distances if band(r.low, distance_edges) != band(r.high, distance_edges)})
        ),
    )


def _judge(distance_band: str, image_band: str, pairs: Sequence[Pair], confidence: float) -> Box:
    counted = [pair for pair in pairs if not pair.flagged]
    ratio = low = high = None
    if counted:
        logs = [pair.log_ratio for pair in counted]
        mean = mean_ratio(logs, [p.dataset for p in counted], [p.seed for p in counted], confidence=confidence)
        ratio, low, high = mean.ratio, mean.low, mean.high
    return Box(
        distance_band=distance_band,
        image_band=image_band,
        verdict=verdict(ratio, low, high),
        ratio=ratio,
        low=low,
        high=high,
        pairs=tuple(pairs),
        datasets=tuple(sorted({pair.dataset for pair in counted})),
    )


def verdict(ratio: float | None, low: float | None, high: float | None) -> Verdict:
    """Tune when the interval of T / F lies above 1, Freeze when below; without an interval nothing is excluded."""
    if ratio is None:
        return Verdict.NONE
    if low is not None and low > 1:
        return Verdict.TUNE
    return Verdict.FREEZE if high is not None and high < 1 else Verdict.BOTH
