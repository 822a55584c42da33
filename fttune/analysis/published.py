"""The paper's own tables, shipped as data."""

import json
from functools import lru_cache
from importlib.resources import files
from typing import Any

from fttune.analysis.recommend import BANDS, DISTANCE_EDGES, IMAGE_EDGES, Verdict, band


@lru_cache(maxsize=1)
def tables() -> dict[str, Any]:
    """Tables 1 (datasets and splits), 2 (distances) and 3 (recommendations) as printed, and their source."""
    return json.loads(files("fttune.analysis").joinpath("published.json").read_text())


def published_verdict(distance_band: str, image_band: str) -> Verdict:
    """What the paper's Table 3 says for a box; its M x H box rests on no run of the paper's."""
    return Verdict(tables()["table3"][distance_band][BANDS.index(image_band)])


def published_runs(distance_band: str, image_band: str) -> int:
    """How many of the paper's own splits lie in a box, by its Tables 1 and 2; 0 of distance M and images H."""
    splits = {row["dataset"]: row["train"] for row in tables()["table1"]}
    return sum(
        (band(row["cosine"], DISTANCE_EDGES), band(images, IMAGE_EDGES)) == (distance_band, image_band)
        for row in tables()["table2"]
        for images in splits[row["dataset"]]
    )


def nearest(distance: float) -> tuple[str, float]:
    """The dataset of the paper's Table 2 with the nearest cosine distance, and that distance."""
    row = min(tables()["table2"], key=lambda row: abs(row["cosine"] - distance))
    return row["dataset"], row["cosine"]
