"""What the advice is worth: the test accuracy that each policy loses on a dataset that it has not seen.

Each dataset is left out in turn, with every other cut of its images; the table and the smooth model are made from the
others, and what they say of the left-out splits is held against the better of their tuned and frozen networks.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from types import MappingProxyType

from fttune.analysis.bootstrap import interval
from fttune.analysis.published import published_verdict
from fttune.analysis.ratios import Pair
from fttune.analysis.recommend import Table, Verdict, band, recommend
from fttune.analysis.trend import Trend
from fttune.record import RunRecord

TABLE, TREND, TUNE, FREEZE = "table", "smooth model", "always tune", "always freeze"
BY_VAL, ORACLE = "both, val decides", "oracle"
POLICIES = (TABLE, TREND, TUNE, FREEZE, BY_VAL, ORACLE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """One dataset at one number of images per class with one backbone. Accuracies are fractions, means over seeds."""

    dataset: str
    family: str  # equal for datasets of the same images
    images_per_class: int
    backbone: str
    pairs: int
    tuned: float
    frozen: float
    words: Mapping[str, Verdict]  # by policy
    published: bool  # whether the other datasets left the box empty, and the paper's Table 3 spoke
    supported: bool  # whether the split lies within what the smooth model was fitted on

    @property
    def best(self) -> float:
        return max(self.tuned, self.frozen)

    def lost(self, policy: str) -> float:
        """Test accuracy below the better side, a fraction; `Try Freeze or Tune` gets the mean of both."""
        either = (self.tuned + self.frozen) / 2
        return self.best - {Verdict.TUNE: self.tuned, Verdict.FREEZE: self.frozen}.get(self.words[policy], either)


@dataclass(frozen=True, kw_only=True, slots=True)
class Loss:
    """What one policy loses: the mean over datasets of the mean over their splits; cuts of the same images are one."""

    policy: str
    points: float  # percentage points of test accuracy
    low: float | None  # interval over datasets, within 0 and 100; None: every dataset lost alike
    high: float | None
    share: float  # percent of the oracle's accuracy


@dataclass(frozen=True, kw_only=True, slots=True)
class Regret:
    """Every policy over every dataset left out."""

    losses: tuple[Loss, ...]  # in the order of POLICIES; empty with fewer than two datasets
    splits: tuple[Split, ...]
    left_out: tuple[str, ...]  # datasets without a distance, of which the table says nothing

    @property
    def datasets(self) -> int:
        """Cuts of the same images are one."""
        return len({split.family for split in self.splits})

    @property
    def pairs(self) -> int:
        return sum(split.pairs for split in self.splits)


def regret(
    pairs: Sequence[Pair],
    val: Mapping[str, float],
    *,
    image_edges: tuple[float, float],
    distance_edges: tuple[float, float],
    confidence: float,
    families: Mapping[str, str] = MappingProxyType({}),
) -> Regret:
    """Of tune-to-freeze pairs; `val` is the val accuracy of each trial id, `families` are those of `families_of`.

    Flagged pairs are no evidence for the policies, yet they are lost or won like any other: no ratio is taken here.
    """
    placed = [pair for pair in pairs if pair.distance is not None]
    names = sorted({pair.dataset for pair in placed})
    family = {name: families.get(name, name) for name in names}
    splits: list[Split] = []
    for name in names if len(set(family.values())) > 1 else ():
        others = [pair for pair in placed if family[pair.dataset] != family[name]]
        table = recommend(others, (), image_edges=image_edges, distance_edges=distance_edges, confidence=confidence)
        trend = Trend.fit(others, confidence=confidence)
        splits += [_split(some, family[name], val, table, trend) for some in _by_split(placed, name)]
    return Regret(
        losses=tuple(_loss(policy, splits, confidence) for policy in POLICIES) if splits else (),
        splits=tuple(splits),
        left_out=tuple(sorted({pair.dataset for pair in pairs} - set(names))),
    )


def families_of(records: Iterable[RunRecord], names: Mapping[str, str]) -> dict[str, str]:
    """For each dataset a name that it shares with all of the same images: those of one digest, or of one of `names`."""
    found: dict[str, str] = {}
    first: dict[str, str] = {}  # family by digest
    for dataset, images in sorted({(record.dataset, record.data_digest) for record in records}):
        own = found.setdefault(dataset, names.get(dataset, dataset))
        if images and (other := first.setdefault(images, own)) != own:
            found = {name: other if family == own else family for name, family in found.items()}
            first = {key: other if family == own else family for key, family in first.items()}
    return found


def _by_split(pairs: Sequence[Pair], dataset: str) -> list[list[Pair]]:
    found: dict[tuple[int, str], list[Pair]] = {}
    for pair in pairs:
        if pair.dataset == dataset:
            found.setdefault((pair.images_per_class, pair.backbone), []).append(pair)
    return [found[key] for key in sorted(found)]


def _split(pairs: Sequence[Pair], family: str, val: Mapping[str, float], table: Table, trend: Trend) -> Split:
    """A split as the table and the trend of other datasets see it."""
    one = pairs[0]
    distance = one.distance or 0.0
    rows, columns = band(distance, table.distance_edges), band(one.images_per_class, table.image_edges)
    word, expected = table.box(rows, columns).verdict, trend.at(distance, one.images_per_class)
    tuned, frozen = fmean(pair.numerator for pair in pairs), fmean(pair.denominator for pair in pairs)
    learned = {
        TABLE: published_verdict(rows, columns) if word is Verdict.NONE else word,
        TREND: Verdict.BOTH if expected.ratio is None else _better(expected.ratio, 1.0),
    }
    return Split(
        dataset=one.dataset,
        family=family,
        images_per_class=one.images_per_class,
        backbone=one.backbone,
        pairs=len(pairs),
        tuned=tuned,
        frozen=frozen,
        words=learned
        | {TUNE: Verdict.TUNE, FREEZE: Verdict.FREEZE, BY_VAL: _by_val(pairs, val), ORACLE: _better(tuned, frozen)},
        published=word is Verdict.NONE,
        supported=expected.supported,
    )


def _by_val(pairs: Sequence[Pair], val: Mapping[str, float]) -> Verdict:
    return _better(fmean(val[pair.numerator_id] for pair in pairs), fmean(val[pair.denominator_id] for pair in pairs))


def _better(tuned: float, frozen: float) -> Verdict:
    return Verdict.BOTH if tuned == frozen else Verdict.TUNE if tuned > frozen else Verdict.FREEZE


def _loss(policy: str, splits: Sequence[Split], confidence: float) -> Loss:
    names = sorted({split.family for split in splits})
    of_dataset = [[split for split in splits if split.family == name] for name in names]
    lost = [100 * fmean(split.lost(policy) for split in some) for some in of_dataset]
    shares = [fmean(split.lost(policy) / split.best if split.best else 0.0 for split in some) for some in of_dataset]
    low, high = interval(lost, names, [0] * len(names), confidence=confidence)
    if low is None or high is None or low == high:
        low = high = None
    return Loss(
        policy=policy,
        points=fmean(lost),
        low=None if low is None else max(low, 0.0),
        high=None if high is None else min(high, 100.0),
        share=100 * fmean(shares),
    )
