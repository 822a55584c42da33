"""What was measured before any training, against what training then gained: ranks over datasets."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from fttune.analysis.agreement import spearman
from fttune.analysis.ratios import Pair
from fttune.analysis.sheet import Row, Sheet, Value
from fttune.record import DistanceRecord, RunRecord

SCORES = ("logme", "hscore")  # larger is more transferable
MEASURES = (*SCORES, "cosine")
OUTCOMES = ("log tuned / frozen", "frozen accuracy", "tuned accuracy")
_Group = tuple[str, int, str]  # backbone, image size, resize
_Place = tuple[str, str, int, str, str, str]  # dataset, backbone, image size, resize, digests of images and weights


@dataclass(frozen=True, kw_only=True, slots=True)
class Foretold:
    """How well the order of a measure is the order of an outcome."""

    measure: str
    outcome: str
    datasets: int
    spearman: float | None  # None for fewer than three datasets, or where one side ties them all


def foretold_sheet(distances: Sequence[DistanceRecord], pairs: Sequence[Pair], records: Sequence[RunRecord]) -> Sheet:
    """A row for each dataset and backbone with a score and a pair of runs; the rank correlations under it."""
    rows = _rows(distances, pairs, records)
    ranks = [(group, foretold([row for row in rows if _group(row) == group])) for group in sorted({*map(_group, rows)})]
    sizes = Counter(str(backbone) for (backbone, *_), _ in ranks)
    return Sheet(
        title="Scores and what was gained",
        columns=("dataset", "backbone", "image size", "resize", *MEASURES, "pairs", *OUTCOMES),
        rows=tuple(rows),
        notes=(
            *(() if rows else ("No score was measured: distance.metrics takes logme and hscore.",)),
            "LogME and H-score say before any training how well features tell the classes: larger is more transferable."
            " Means over the pairs with one new layer that the table rests on, all images per class.",
            *(f"{_name(group, sizes)}: {_told(one)}" for group, found in ranks for one in found),
        ),
        facts={"ranks": [_fact(group, one) for group, found in ranks for one in found]},
    )


def foretold(rows: Sequence[Row]) -> list[Foretold]:
    """Every measure against every outcome, over the datasets of one backbone that have both."""
    return [_foretold(measure, outcome, rows) for measure in MEASURES for outcome in OUTCOMES]


def _foretold(measure: str, outcome: str, rows: Sequence[Row]) -> Foretold:
    both = [(x, y) for row in rows if (x := row[measure]) is not None and (y := row[outcome]) is not None]
    x, y = np.array(both, dtype=np.float64).reshape(-1, 2).T
    return Foretold(measure=measure, outcome=outcome, datasets=len(both), spearman=spearman(x, y))


def _rows(distances: Sequence[DistanceRecord], pairs: Sequence[Pair], records: Sequence[RunRecord]) -> list[Row]:
    """Of datasets with a score, since without one there is nothing to hold against what was gained.

    What was measured on other images, with other weights or at another size speaks of no pair here.
    """
    places = {record.trial_id: _place(record) for record in records}
    gained: dict[_Place, list[Pair]] = defaultdict(list)
    for pair in pairs:
        if not pair.flagged:
            gained[places[pair.numerator_id]].append(pair)
    measured: dict[_Place, dict[str, float]] = defaultdict(dict)
    for record in sorted(distances, key=lambda record: (record.images, record.id)):
        if record.metric in MEASURES:
            measured[_place(record)][record.metric] = record.value
    known = sorted(place for place, values in measured.items() if {*values} & {*SCORES})
    return [_row(place, measured[place], gained[place]) for place in known]


def _place(record: RunRecord | DistanceRecord) -> _Place:
    size = record.image_size, record.resize
    return record.dataset, record.backbone, *size, record.data_digest, record.weights_digest


def _row(place: _Place, values: Mapping[str, float], pairs: Sequence[Pair]) -> Row:
    outcomes: list[Value] = [None, None, None]
    if pairs:
        outcomes = [
            fmean(pair.log_ratio for pair in pairs),
            fmean(pair.denominator for pair in pairs),
            fmean(pair.numerator for pair in pairs),
        ]
    row: dict[str, Value] = {"dataset": place[0], "backbone": place[1], "image size": place[2], "resize": place[3]}
    row |= {measure: values.get(measure) for measure in MEASURES} | {"pairs": len(pairs)}
    return row | dict(zip(OUTCOMES, outcomes, strict=True))


def _group(row: Row) -> _Group:
    """Within which datasets are ranked: scores of features of another network, or of other sizes, are other scores."""
    return str(row["backbone"]), int(str(row["image size"])), str(row["resize"])


def _name(group: _Group, sizes: Mapping[str, int]) -> str:
    backbone, size, resize = group
    return backbone if sizes[backbone] == 1 else f"{backbone} at {size} px, {resize}"


def _told(one: Foretold) -> str:
    rho = "not defined" if one.spearman is None else f"{one.spearman:.3f}"
    return f"order by {one.measure} and by {one.outcome}: Spearman {rho} over {one.datasets} datasets."


def _fact(group: _Group, one: Foretold) -> dict[str, str | int | float | None]:
    return {
        **dict(zip(("backbone", "image_size", "resize"), group, strict=True)),
        "measure": one.measure,
        "outcome": one.outcome,
        "datasets": one.datasets,
        "spearman": one.spearman,
    }
