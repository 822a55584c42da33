"""The smooth model beside the bins: what it expects where each box has its pairs."""

import math
from statistics import fmean

import numpy as np

from fttune.analysis.recommend import Box, Table
from fttune.analysis.sheet import Row, Sheet
from fttune.analysis.trend import Trend

_COLUMNS = ("distance", "images", "at distance", "at images", "table", "smooth", "low", "high", "new low", "new high")


def trend_sheet(trend: Trend, table: Table) -> Sheet:
    """A row for each box with counted pairs, at their mean distance and the geometric mean of their images."""
    terms = ", ".join(trend.terms) or "nothing but their mean"
    return Sheet(
        title="The smooth model beside the table",
        columns=(*_COLUMNS, "outside"),
        rows=tuple(_row(trend, box) for box in table.boxes if box.counted),
        notes=(
            f"Tuned / frozen fitted on {terms}: {trend.pairs} pairs of {trend.datasets} datasets, errors by dataset."
            f" Low and high: {trend.confidence * 100:g} % interval of the mean over datasets at that place; new: of one"
            " more dataset there. Table: the mean ratio of the box.",
        ),
        facts={"slopes": {name: _slope(trend, place) for place, name in enumerate(trend.terms, start=1)}},
    )


def _row(trend: Trend, box: Box) -> Row:
    counted = [pair for pair in box.pairs if not pair.flagged]
    distance = fmean(pair.distance for pair in counted if pair.distance is not None)
    images = math.exp(fmean(math.log(pair.images_per_class) for pair in counted))
    found = trend.at(distance, images)
    values = (box.distance_band, box.image_band, distance, images, box.ratio, found.ratio)
    limits = (found.low, found.high, found.new_low, found.new_high)
    return dict(zip(_COLUMNS, (*values, *limits), strict=True)) | {"outside": found.why or None}


def _slope(trend: Trend, place: int) -> dict[str, float | None]:
    """Of the log-ratio: a coefficient, its standard error and degrees of freedom."""
    if trend.fitted is None:
        return {}
    found = trend.fitted.at(np.eye(1 + len(trend.terms))[place])
    return {"value": found.value, "error": found.error, "freedom": found.freedom}
