"""The recommendation table (Table 3 of the paper): a verdict with its evidence for each distance and image count."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from fttune.analysis.bootstrap import mean_ratio
from fttune.analysis.ratios import Pair
from fttune.analysis.significance import Significance, holm, significance
from fttune.errors import ConfigError
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
    significance: Significance | None = None  # tests by dataset; None: fewer than two datasets
    sign_holm: float | None = None  # p-values adjusted for all boxes of the table that were tested
    flip_holm: float | None = None

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

    @property
    def tested(self) -> int:
        """Boxes with a significance test: what its p-values are adjusted for."""
        return sum(box.significance is not None for box in self.boxes)

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
    """Sort tune-to-freeze pairs into boxes and judge each by its interval; ConfigError on bands that do not rise."""
    for name, edges in {"image_bands": image_edges, "distance_bands": distance_edges}.items():
        if not 0 < edges[0] < edges[1]:
            raise ConfigError(
                f"analysis.{name}: medium must begin above 0 and high above medium, but got {list(edges)}"
            )
    placed: dict[tuple[str, str], list[Pair]] = {}
    for pair in pairs:
        if pair.distance is not None:
            key = (band(pair.distance, distance_edges), band(pair.images_per_class, image_edges))
            placed.setdefault(key, []).append(pair)
    return Table(
        boxes=_adjusted([_judge(d, i, placed.get((d, i), []), confidence) for d in BANDS for i in BANDS]),
        image_edges=image_edges,
        distance_edges=distance_edges,
        confidence=confidence,
        unplaced=tuple(sorted({pair.dataset for pair in pairs if pair.distance is None})),
        straddling=tuple(
            sorted(
                {
                    r.dataset
                    for r in distances
                    if r.metric == "cosine" and band(r.low, distance_edges) != band(r.high, distance_edges)
                }
            )
        ),
    )


def _judge(distance_band: str, image_band: str, pairs: Sequence[Pair], confidence: float) -> Box:
    counted = [pair for pair in pairs if not pair.flagged]
    logs, datasets = [pair.log_ratio for pair in counted], [pair.dataset for pair in counted]
    ratio = low = high = None
    if counted:
        mean = mean_ratio(logs, datasets, [pair.seed for pair in counted], confidence=confidence)
        ratio, low, high = mean.ratio, mean.low, mean.high
    return Box(
        distance_band=distance_band,
        image_band=image_band,
        verdict=verdict(ratio, low, high),
        ratio=ratio,
        low=low,
        high=high,
        pairs=tuple(pairs),
        datasets=tuple(sorted(set(datasets))),
        significance=significance(logs, datasets),
    )


def _adjusted(boxes: Sequence[Box]) -> tuple[Box, ...]:
    """The boxes with Holm's p-values over all that were tested."""
    tests = [box.significance for box in boxes if box.significance]
    signs, flips = iter(holm([test.sign_p for test in tests])), iter(holm([test.flip_p for test in tests]))
    return tuple(
        replace(box, sign_holm=next(signs), flip_holm=next(flips)) if box.significance else box for box in boxes
    )


def verdict(ratio: float | None, low: float | None, high: float | None) -> Verdict:
    """Tune when the interval of T / F lies above 1, Freeze when below; without an interval nothing is excluded."""
    if ratio is None:
        return Verdict.NONE
    if low is not None and low > 1:
        return Verdict.TUNE
    return Verdict.FREEZE if high is not None and high < 1 else Verdict.BOTH


def markdown(table: Table) -> str:
    """The nine boxes as Markdown, three lines each, within 100 columns: verdict, mean ratio with interval, counts."""
    head = ["distance \\ images", *(f"{name} {span}" for name, span in spans(table.image_edges, whole=True))]
    rows = [head]
    for name, span in spans(table.distance_edges, whole=False):
        boxes = [cell(table.box(name, images)) for images in BANDS]
        rows += [list(row) for row in zip((f"{name} {span}", "", ""), *boxes, strict=True)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(head))]
    lines = [" | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) for row in rows]
    rule = " | ".join("-" * width for width in widths)
    return "\n".join(f"| {line} |" for line in [lines[0], rule, *lines[1:]])


def cell(box: Box) -> tuple[str, str, str]:
    """`Tune*`, `1.120 [1.031, 1.254]`, `n=6/3, 2 flagged`: `*` where thin, n = counted pairs / datasets."""
    interval = "" if box.low is None or box.high is None else f" [{_short(box.low)}, {_short(box.high)}]"
    ratio = "" if box.ratio is None else f"{box.ratio:.3f}{interval}"
    flagged = f", {box.flagged} flagged" if box.flagged else ""
    return f"{box.verdict}{'*' if box.thin else ''}", ratio, f"n={box.counted}/{len(box.datasets)}{flagged}"


def _short(ratio: float) -> str:
    return f"{ratio:.3f}" if ratio < 1000 else f"{ratio:.0e}"


def spans(edges: tuple[float, float], *, whole: bool) -> list[tuple[str, str]]:
    """Each band with its range; `whole` numbers start at 1, others at 0."""
    low, high = edges
    if whole:
        return [("L", f"1-{low - 1:g}"), ("M", f"{low:g}-{high - 1:g}"), ("H", f">={high:g}")]
    return [("L", f"0-{low:g}"), ("M", f"{low:g}-{high:g}"), ("H", f">={high:g}")]
