"""How sure a mean ratio is: a bootstrap over whole datasets, widened for how few they are.

Where all pairs are of one dataset its seeds are resampled instead; the interval then speaks of seeds alone.
Letters: P pairs, U units that are resampled (datasets or seeds), B resamples.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from fttune.trial import seed_from

RESAMPLES = 4000
_MOST = 2**22  # values that are drawn at once
_CUT = math.log(1e6)  # two unlike datasets exclude nothing; a limit of a ratio is cut a millionfold off


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

    Datasets are drawn whole: the spread of their means already holds the noise of their seeds, and drawing seeds again
    would count it twice. None where one dataset with one seed has nothing to resample. Equal input gives an equal
    interval in any order. Measured coverage: docs/science.md.
    """
    sums, counts = _units(values, datasets, seeds)
    if len(sums) < 2:
        return None, None
    rng = np.random.default_rng(seed_from("bootstrap", sorted(zip(datasets, seeds, values, strict=True))))
    inflation, freedom = small_sample(counts / counts.sum())
    mean = sums.sum() / counts.sum()
    half = float(stdtrit(freedom, (1 + confidence) / 2)) * math.sqrt(inflation) * standard_error(sums, counts, rng)
    return float(mean - half), float(mean + half)


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
    return second / expected, expected**2 / squared


def _units(values: Sequence[float], datasets: Sequence[str], seeds: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Sums float64 [U] and counts int64 [U] of values by dataset, or by seed where there is one dataset."""
    names = datasets if len(set(datasets)) > 1 else seeds
    of_unit: dict[str | int, list[float]] = {}
    for value, name in sorted(zip(values, names, strict=True), key=lambda row: (row[1], row[0])):
        of_unit.setdefault(name, []).append(value)
    return np.array([sum(some) for some in of_unit.values()]), np.array([len(some) for some in of_unit.values()])
