"""How sure a mean ratio is: a bootstrap that resamples datasets first, then seeds.

Letters: P pairs, D datasets, K seeds of a dataset at most, B resamples.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fttune.trial import seed_from

RESAMPLES = 4000
_MOST = 2**22  # values that are drawn at once


@dataclass(frozen=True, kw_only=True, slots=True)
class Mean:
    """A geometric mean of ratios with its interval."""

    ratio: float
    low: float | None  # None: one dataset with one seed has nothing to resample
    high: float | None


def mean_ratio(
    log_ratios: Sequence[float], datasets: Sequence[str], seeds: Sequence[int], *, confidence: float
) -> Mean:
    """Exp of the mean log-ratio over P pairs, with its `interval`."""
    low, high = interval(log_ratios, datasets, seeds, confidence=confidence)
    ratio = float(np.exp(np.mean(log_ratios)))
    if low is None or high is None:
        return Mean(ratio=ratio, low=None, high=None)
    return Mean(ratio=ratio, low=float(np.exp(low)), high=float(np.exp(high)))


def interval(
    values: Sequence[float], datasets: Sequence[str], seeds: Sequence[int], *, confidence: float
) -> tuple[float | None, float | None]:
    """A percentile interval of the mean of P values; None where one dataset with one seed has nothing to resample.

    Images per class stay together within a dataset and seed. Equal input gives an equal interval. With two or three
    datasets the interval is too narrow more often than `1 - confidence` says (docs/science.md has measured rates).
    """
    sums, counts, seeds_of = _table(values, datasets, seeds)
    if seeds_of.sum() < 2:
        return None, None
    rng = np.random.default_rng(seed_from("bootstrap", sorted(zip(datasets, seeds, values, strict=True))))
    drawn = rng.integers(len(sums), size=(RESAMPLES, len(sums)))
    blocks = np.array_split(drawn, -(-RESAMPLES * sums.size // _MOST))
    means = np.concatenate([_resample(block, sums, counts, seeds_of, rng) for block in blocks])
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def _resample(
    drawn: np.ndarray, sums: np.ndarray, counts: np.ndarray, seeds_of: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """The mean log-ratio float64 [b] of each row of datasets `drawn` int64 [b, D], with seeds drawn within them."""
    width = sums.shape[1]
    which = (rng.random((*drawn.shape, width)) * seeds_of[drawn][..., None]).astype(np.int64)
    taken = np.arange(width) < seeds_of[drawn][..., None]
    total = np.where(taken, sums[drawn[..., None], which], 0.0).sum((1, 2))
    return total / np.where(taken, counts[drawn[..., None], which], 0).sum((1, 2))


def _table(
    values: Sequence[float], datasets: Sequence[str], seeds: Sequence[int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sums float64 [D, K] and counts int64 [D, K] of values, and the number of seeds int64 [D]."""
    cells: dict[str, dict[int, list[float]]] = {}
    for value, dataset, seed in sorted(zip(values, datasets, seeds, strict=True), key=lambda row: row[1:]):
        cells.setdefault(dataset, {}).setdefault(seed, []).append(value)
    width = max(map(len, cells.values()))
    sums, counts = np.zeros((len(cells), width)), np.zeros((len(cells), width), np.int64)
    for row, of_seed in enumerate(cells.values()):
        for column, some in enumerate(of_seed.values()):
            sums[row, column], counts[row, column] = sum(some), len(some)
    return sums, counts, np.array([len(of_seed) for of_seed in cells.values()])
