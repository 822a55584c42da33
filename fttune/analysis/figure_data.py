"""What the paper's figures show, before anything is drawn: the numbers, their n, and what is left out."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fttune.analysis.ratios import Distances, Pairing, compare_depths, tune_to_freeze
from fttune.analysis.select import Result

_MODES = {"tune": "Fine-tuned (T)", "freeze": "Frozen (F)"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Points:
    """One panel: ratios against one quantity."""

    title: str
    y_label: str
    by_images: bool  # x is images per class on a log scale; else distance
    names: tuple[str, ...]  # dataset of each point
    x: tuple[float, ...]
    y: tuple[float, ...]  # ratios
    left_out: str = ""  # pairs that are not shown, and why
    edge: float | None = None  # a dotted line here

    def trend(self) -> tuple[np.ndarray, np.ndarray]:
        """The averages: the geometric mean of the ratios at each x, sorted by x."""
        places = np.unique(self.x)
        logs, x = np.log(self.y), np.array(self.x)
        return places, np.exp([logs[x == place].mean() for place in places])


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """Test accuracy of one spec on one dataset: each seed's, and their mean."""

    panel: str  # the dataset, with the backbone where there are several
    mode: str
    new: str  # how many new layers; a mixed spec written out
    x: tuple[int, ...]  # images per class of each point
    y: tuple[float, ...]  # accuracy of each point
    chance: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """What the figures are drawn from."""

    results: Sequence[Result]
    distances: Distances
    large: float  # images per class where large data begin
    missing: int = 0  # cells that were asked for and have no finished run


def copying_data(evidence: Evidence) -> list[Points]:
    """Fig. 1: R(top 1) over R(top 3) above, over R(top 5) below; tuned left, frozen right."""
    found = {(d.random_top, d.mode): d for d in compare_depths(evidence.results, evidence.distances)}
    deeper = sorted({top for top, _ in found}) or [3, 5]
    top = min((d.top for d in found.values()), default=1)
    return [
        _points(
            found[more, mode].pairing if (more, mode) in found else Pairing(pairs=(), unpaired=()),
            title=title,
            y_label=f"top {top} new / top {more} new",
        )
        for more in deeper
        for mode, title in _MODES.items()
    ]


def tuning_data(evidence: Evidence) -> list[Points]:
    """Fig. 2: T over F with one new layer, against images per class and against distance."""
    pairing = tune_to_freeze(evidence.results, evidence.distances)
    left = _points(pairing, title="By images per class", y_label="tuned / frozen", edge=evidence.large)
    placed = [(pair, pair.distance) for pair in pairing.counted if pair.distance is not None]
    lost = len(pairing.counted) - len(placed)
    right = Points(
        title="By distance",
        y_label="tuned / frozen",
        by_images=False,
        names=tuple(pair.dataset for pair, _ in placed),
        x=tuple(distance for _, distance in placed),
        y=tuple(pair.ratio for pair, _ in placed),
        left_out=", ".join(filter(None, (left.left_out, f"{lost} without a distance" if lost else ""))),
    )
    return [left, right]


def accuracy_data(evidence: Evidence) -> list[Curve]:
    """Fig. 3: every result."""
    several = len({r.backbone for r in evidence.results}) > 1
    groups: dict[tuple[str, int, str, str], list[Result]] = defaultdict(list)
    for r in evidence.results:
        groups[f"{r.dataset}, {r.backbone}" if several else r.dataset, r.random_top, r.mode, r.spec].append(r)
    return [
        Curve(
            panel=panel,
            mode=mode,
            new=spec if mode == "mixed" else f"{random_top} new",
            x=tuple(r.images_per_class for r in here),
            y=tuple(r.test for r in here),
            chance=here[0].chance,
        )
        for (panel, random_top, mode, spec), here in sorted(groups.items())
    ]


def _points(pairing: Pairing, *, title: str, y_label: str, edge: float | None = None) -> Points:
    pairs = pairing.counted
    flagged = len(pairing.pairs) - len(pairs)
    return Points(
        title=title,
        y_label=y_label,
        by_images=True,
        names=tuple(pair.dataset for pair in pairs),
        x=tuple(float(pair.images_per_class) for pair in pairs),
        y=tuple(pair.ratio for pair in pairs),
        left_out=f"{flagged} flagged" if flagged else "",
        edge=edge,
    )
