"""Whether two distances put datasets in the same order: measured, since it need not be so."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np

_LEAST = 3  # datasets that an order can be spoken of

Values = Mapping[str, Mapping[str, float]]  # metric: dataset: distance


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """Two metrics over the datasets that both have."""

    metrics: tuple[str, str]
    datasets: int
    spearman: float | None  # rank correlation; None for fewer than three datasets, or where one metric ties them all
    reversed: tuple[tuple[str, str], ...]  # pairs of datasets that the metrics put in opposite orders


def agreements(values: Values) -> list[Agreement]:
    """Every pair of metrics, in the order given."""
    return [_agreement(one, other, values) for one, other in combinations(values, 2)]


def spearman(x: np.ndarray, y: np.ndarray) -> float | None:
    """The correlation of ranks, ties sharing the mean of theirs; None where it is not defined."""
    if len(x) < _LEAST or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    return float(np.corrcoef(_ranks(x), _ranks(y))[0, 1])


def _agreement(one: str, other: str, values: Values) -> Agreement:
    shared = sorted(values[one].keys() & values[other].keys())
    x, y = (np.array([values[metric][name] for name in shared]) for metric in (one, other))
    apart = [
        (shared[a], shared[b]) for a, b in combinations(range(len(shared)), 2) if (x[a] - x[b]) * (y[a] - y[b]) < 0
    ]
    return Agreement(metrics=(one, other), datasets=len(shared), spearman=spearman(x, y), reversed=tuple(apart))


def _ranks(values: np.ndarray) -> np.ndarray:
    below = (values[None, :] < values[:, None]).sum(1)
    equal = (values[None, :] == values[:, None]).sum(1)
    return below + (equal - 1) / 2
