"""What the paper's figures show, before anything is drawn: the numbers, their n, and what is left out."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fttune.analysis.ratios import Distances, Pair, Pairing, compare_depths, tune_to_freeze
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
    pairs: tuple[Pair, ...] = ()  # of each point
    tops: tuple[int, ...] = ()  # how many new layers the two results of a pair have
    flagged: tuple[str, ...] = ()  # a line for each pair that is not shown, and why
    unpaired: tuple[str, ...] = ()  # a line for each result without a fair partner
    unplaced: tuple[str, ...] = ()  # a line for each pair whose dataset has no distance
    edge: float | None = None  # a dotted line here: large data begin

    @property
    def left_out(self) -> str:
        """How many points are not there, by the reason."""
        kinds = {"flagged": self.flagged, "unpaired": self.unpaired, "without a distance": self.unplaced}
        return ", ".join(f"{len(lines)} {kind}" for kind, lines in kinds.items() if lines)

    def trend(self) -> tuple[list[float], list[float]]:
        """The averages: the geometric mean of the ratios at each x, sorted by x."""
        places = sorted(set(self.x))
        logs, x = np.log(self.y), np.array(self.x)
        return places, [float(np.exp(logs[x == place].mean())) for place in places]

    @property
    def document(self) -> dict[str, Any]:
        """All that is drawn, and what is not, as JSON-able values."""
        return asdict(self) | {"average": dict(zip(("x", "y"), self.trend(), strict=True))}


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """Test accuracy of one spec on one dataset: each seed's, and their mean."""

    panel: str  # the dataset, with the backbone where there are several
    dataset: str
    backbone: str
    spec: str
    random_top: int
    mode: str
    new: str  # how many new layers; a mixed spec written out
    x: tuple[int, ...]  # images per class of each point
    y: tuple[float, ...]  # accuracy of each point
    vals: tuple[float, ...]  # val accuracy of each point
    seeds: tuple[int, ...]  # of each point
    trial_ids: tuple[str, ...]  # of each point
    chance: float

    def means(self) -> tuple[list[int], list[float]]:
        """The mean over seeds at each number of images, sorted by it."""
        places, x, y = sorted(set(self.x)), np.array(self.x), np.array(self.y)
        return places, [float(y[x == place].mean()) for place in places]

    @property
    def document(self) -> dict[str, Any]:
        """All that is drawn, as JSON-able values."""
        return asdict(self) | {"average": dict(zip(("x", "y"), self.means(), strict=True))}


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """What the figures are drawn from."""

    results: Sequence[Result]
    distances: Distances
    large: float  # images per class where large data begin
    missing: tuple[str, ...] = ()  # a line for each cell and seed that was asked for and has no finished run
    failed: tuple[str, ...] = ()  # a line for each failed trial


def copying_data(evidence: Evidence) -> list[Points]:
    """Fig. 1: R(top 1) over R(top 3) above, over R(top 5) below; tuned left, frozen right."""
    found = {(d.random_top, d.mode): d for d in compare_depths(evidence.results, evidence.distances)}
    deeper = sorted({top for top, _ in found}) or [3, 5]
    top = min((d.top for d in found.values()), default=1)
    return [
        _points(
            found[more, mode].pairing if (more, mode) in found else Pairing(pairs=(), unpaired=()),
            tops=(top, more),
            title=title,
            y_label=f"top {top} new / top {more} new",
        )
        for more in deeper
        for mode, title in _MODES.items()
    ]


def tuning_data(evidence: Evidence) -> list[Points]:
    """Fig. 2: T over F with one new layer, against images per class and against distance."""
    pairing = tune_to_freeze(evidence.results, evidence.distances)
    left = _points(pairing, tops=(1,), title="By images per class", y_label="tuned / frozen", edge=evidence.large)
    placed = [(pair, pair.distance) for pair in pairing.counted if pair.distance is not None]
    right = Points(
        title="By distance",
        y_label="tuned / frozen",
        by_images=False,
        names=tuple(pair.dataset for pair, _ in placed),
        x=tuple(distance for _, distance in placed),
        y=tuple(pair.ratio for pair, _ in placed),
        pairs=tuple(pair for pair, _ in placed),
        tops=left.tops,
        flagged=left.flagged,
        unpaired=left.unpaired,
        unplaced=tuple(_name(pair) for pair in pairing.counted if pair.distance is None),
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
            dataset=here[0].dataset,
            backbone=here[0].backbone,
            spec=spec,
            random_top=random_top,
            mode=mode,
            new=spec if mode == "mixed" else f"{random_top} new",
            x=tuple(r.images_per_class for r in here),
            y=tuple(r.test for r in here),
            vals=tuple(r.val for r in here),
            seeds=tuple(r.seed for r in here),
            trial_ids=tuple(r.trial_id for r in here),
            chance=here[0].chance,
        )
        for (panel, random_top, mode, spec), here in sorted(groups.items())
    ]


def _points(pairing: Pairing, *, tops: tuple[int, ...], title: str, y_label: str, edge: float | None = None) -> Points:
    pairs = pairing.counted
    return Points(
        title=title,
        y_label=y_label,
        by_images=True,
        names=tuple(pair.dataset for pair in pairs),
        x=tuple(float(pair.images_per_class) for pair in pairs),
        y=tuple(pair.ratio for pair in pairs),
        pairs=pairs,
        tops=tops,
        flagged=tuple(f"{_name(pair)}: {pair.flagged}" for pair in pairing.pairs if pair.flagged),
        unpaired=pairing.unpaired,
        edge=edge,
    )


def _name(pair: Pair) -> str:
    return f"{pair.dataset}/{pair.images_per_class} {pair.backbone} s{pair.seed}"
