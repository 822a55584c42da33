"""What was measured before any training, against what training then gained: ranks over datasets."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from fttune.analysis.agreement import spearman
from fttune.analysis.ratios import Pair
from fttune.analysis.sheet import Row, Sheet, Value
from fttune.record import DistanceRecord

SCORES = ("logme", "hscore")  # larger is more transferable
MEASURES = (*SCORES, "cosine")
OUTCOMES = ("log tuned / frozen", "frozen accuracy", "tuned accuracy")


@dataclass(frozen=True, kw_only=True, slots=True)
class Foretold:
    """How well the order of a measure is the order of an outcome."""

    measure: str
    outcome: str
    datasets: int
    spearman: float | None  # None for fewer than three datasets, or where one side ties them all


def foretold_sheet(distances: Sequence[DistanceRecord], pairs: Sequence[Pair]) -> Sheet:
    """A row for each dataset and backbone with a score and a pair of runs; the rank correlations under it."""
    rows = _rows(distances, pairs)
    ranks = {backbone: foretold([r for r in rows if r["backbone"] == backbone]) for backbone in _backbones(rows)}
    return Sheet(
        title="Scores and what was gained",
        columns=("dataset", "backbone", *MEASURES, "pairs", *OUTCOMES),
        rows=tuple(rows),
        notes=(
            *(() if rows else ("No score was measured: distance.metrics takes logme and hscore.",)),
            "LogME and H-score say before any training how well features tell the classes: larger is more transferable."
            " Means over the pairs with one new layer that the table rests on, all images per class.",
            *(f"{backbone}: {_told(one)}" for backbone, found in ranks.items() for one in found),
        ),
        facts={"ranks": [{"backbone": b, **_fact(one)} for b, found in ranks.items() for one in found]},
    )


def foretold(rows: Sequence[Row]) -> list[Foretold]:
    """Every measure against every outcome, over the datasets of one backbone that have both."""
    return [_foretold(measure, outcome, rows) for measure in MEASURES for outcome in OUTCOMES]


def _foretold(measure: str, outcome: str, rows: Sequence[Row]) -> Foretold:
    both = [(x, y) for row in rows if (x := row[measure]) is not None and (y := row[outcome]) is not None]
    x, y = np.array(both, dtype=np.float64).reshape(-1, 2).T
    return Foretold(measure=measure, outcome=outcome, datasets=len(both), spearman=spearman(x, y))


def _rows(distances: Sequence[DistanceRecord], pairs: Sequence[Pair]) -> list[Row]:
    """Of datasets with a score, since without one there is nothing to hold against what was gained."""
    measured: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for record in sorted(distances, key=lambda record: (record.images, record.id)):
        if record.metric in MEASURES:
            measured[record.dataset, record.backbone][record.metric] = record.value
    gained: dict[tuple[str, str], list[Pair]] = defaultdict(list)
    for pair in pairs:
        if not pair.flagged:
            gained[pair.dataset, pair.backbone].append(pair)
    known = sorted(place for place, values in measured.items() if {*values} & {*SCORES})
    return [_row(place, measured[place], gained[place]) for place in known]


def _row(place: tuple[str, str], values: Mapping[str, float], pairs: Sequence[Pair]) -> Row:
    outcomes: list[Value] = [None, None, None]
    if pairs:
        outcomes = [
            fmean(pair.log_ratio for pair in pairs),
            fmean(pair.denominator for pair in pairs),
            fmean(pair.numerator for pair in pairs),
        ]
    row: dict[str, Value] = {"dataset": place[0], "backbone": place[1]}
    row |= {measure: values.get(measure) for measure in MEASURES} | {"pairs": len(pairs)}
    return row | dict(zip(OUTCOMES, outcomes, strict=True))


def _backbones(rows: Sequence[Row]) -> list[str]:
    return sorted({str(row["backbone"]) for row in rows})


def _told(one: Foretold) -> str:
    rho = "not defined" if one.spearman is None else f"{one.spearman:.3f}"
    return f"order by {one.measure} and by {one.outcome}: Spearman {rho} over {one.datasets} datasets."


def _fact(one: Foretold) -> dict[str, str | int | float | None]:
    return {
        "measure": one.measure,
        "outcome": one.outcome,
        "datasets": one.datasets,
        "spearman": one.spearman,
    }
