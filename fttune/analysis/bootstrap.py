"""How sure a mean ratio is: a bootstrap over datasets and over their seeds, widened for how few there are.

Letters: P pairs, U units that are resampled (the datasets, or the seeds of one dataset), B resamples.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from fttune.trial import seed_from

RESAMPLES = 4000
_MOST = 2**22  # values that are drawn at once
_CUT = math.log(1e6)  # two unlike datasets exclude nothing; a limit of a ratio is cut a millionfold off

Units = tuple[np.ndarray, np.ndarray]  # sums float64 [U] and counts int64 [U] of the values in each unit


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
    return Mean(ratio=ratio, low=limit(low), high=limit(high))


def limit(log_ratio: float) -> float:
    """A limit of an interval as a ratio, finite and above 0."""
    return math.exp(min(max(log_ratio, -_CUT), _CUT))


def interval(
    values: Sequence[float], datasets: Sequence[str], seeds: Sequence[int], *, confidence: float
) -> tuple[float | None, float | None]:
    """The mean of P values, plus and minus Student's t times a corrected bootstrap standard error.

    Datasets are drawn whole, since the spread of their means already holds the noise of their seeds. Seeds are drawn
    within each dataset too, and the wider interval counts: two datasets may agree by chance better than their own seeds
    do, and where there is one dataset seeds are all there is. None where one dataset with one seed has nothing to
    resample. Equal input gives an equal interval in any order. Measured coverage: docs/science.md.
    """
    rng = np.random.default_rng(seed_from("bootstrap", sorted(zip(datasets, seeds, values, strict=True))))
    of_dataset: dict[str, list[tuple[float, int]]] = {}
    for value, dataset, seed in sorted(zip(values, datasets, seeds, strict=True), key=lambda row: (row[1:], row[0])):
        of_dataset.setdefault(dataset, []).append((value, seed))
    whole = [_units((value, name) for name, rows in of_dataset.items() for value, _ in rows)]
    within = [_units(rows) for rows in of_dataset.values()]
    halves = [half for half in (_half_width(level, confidence, rng) for level in (whole, within)) if half is not None]
    if not halves:
        return None, None
    mean, half = float(np.mean(sorted(values))), max(halves)
    return mean - half, mean + half


def _half_width(groups: Sequence[Units], confidence: float, rng: np.random.Generator) -> float | None:
    """Of the mean over all groups where each is resampled within itself; None where no group has two units."""
    total = sum(counts.sum() for _, counts in groups)
    variance = freedom = 0.0
    for sums, counts in groups:
        if len(sums) > 1:
            inflation, own = small_sample(counts / counts.sum())
            variance += inflation * (standard_error(sums, counts, rng) * counts.sum() / total) ** 2
            freedom += own
    return float(stdtrit(freedom, (1 + confidence) / 2)) * math.sqrt(variance) if freedom else None


def standard_error(sums: np.ndarray, counts: np.ndarray, rng: np.random.Generator) -> float:
    """The spread of the mean over B draws of U units with replacement, from sums float64 [U] and counts int64 [U].

    A draw moves the mean by what its units lie above it, each as heavy as it is in the mean. Uncorrected: with few
    units too small by the square root of the first of `small_sample`.
    """
    above = (sums - counts * (sums.sum() / counts.sum())) / counts.sum()
    units = len(above)
    blocks = -(-RESAMPLES * units // _MOST)
    sizes = [len(block) for block in np.array_split(np.arange(RESAMPLES), blocks)]
    return float(np.concatenate([above[rng.integers(units, size=(size, units))].sum(1) for size in sizes]).std())


def small_sample(weights: np.ndarray) -> tuple[float, float]:
    """By what the bootstrap's variance is too small, and the degrees of freedom, of a mean with weights [U] of sum 1.

    With equal weights U / (U - 1) and U - 1. In general, for independent units of one variance: the ratio of the mean's
    variance to what is expected of sum w^2 (y - mean)^2, and Satterthwaite's match of that quadratic form to a
    chi-squared (Bell and McCaffrey 2002; Imbens and Kolesar 2016). A heavy unit costs freedom.
    """
    second, third, fourth, fifth = (float((weights**power).sum()) for power in (2, 3, 4, 5))
    expected = float((weights**2 * (1 - 2 * weights + second)).sum())
    squared = second**4 + 2 * second * fourth - 4 * second**2 * third + 2 * third**2
    squared += fourth * (1 + 2 * second) - 4 * fifth
    freedom = expected**2 / squared  # between 1 and U - 1, but for rounding where one weight is nearly all
    return second / expected, min(max(freedom, 1.0), len(weights) - 1.0)


def _units(rows: Iterable[tuple[float, str | int]]) -> Units:
    """Of values and the unit of each."""
    of_unit: dict[str | int, list[float]] = {}
    for value, name in rows:
        of_unit.setdefault(name, []).append(value)
    return np.array([sum(some) for some in of_unit.values()]), np.array([len(some) for some in of_unit.values()])
