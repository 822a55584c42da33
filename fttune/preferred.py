"""Which of the settings that were tried on a cell is preferred: one rule for the search and for its analysis."""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any, TypeVar

Setting = TypeVar("Setting")


def preferred(tried: Mapping[Setting, Sequence[float]], rank: Callable[[Setting], Any]) -> Setting | None:
    """The setting with the highest mean of its values, those of finished trials; None: nothing has finished.

    Only settings with as many values as any are compared, since the others may have had the easy draws. Ties go to the
    lowest rank.
    """
    most = max(map(len, tried.values()), default=0)
    full = [setting for setting, values in tried.items() if most and len(values) == most]
    return max(sorted(full, key=rank), key=lambda setting: fmean(tried[setting]), default=None)
