"""The paper's own tables, shipped as data."""

import json
from functools import lru_cache
from importlib.resources import files
from typing import Any

from fttune.analysis.recommend import BANDS, Verdict


@lru_cache(maxsize=1)
def tables() -> dict[str, Any]:
    """Tables 1 (datasets and splits), 2 (distances) and 3 (recommendations) as printed, and their source."""
    return json.loads(files("fttune.analysis").joinpath("published.json").read_text())


def published_verdict(distance_band: str, image_band: str) -> Verdict:
    """What the paper's Table 3 says for a box; its M x H box rests on no run of the paper's."""
    return Verdict(tables()["table3"][distance_band][BANDS.index(image_band)])
