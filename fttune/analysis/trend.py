"""A smooth model beside the bins: the log of tuned / frozen, linear in the cosine distance and in log images per class.

    trend = Trend.fit(pairs)
    trend.at(0.31, 20)    # Expected(ratio=1.08, low=1.02, high=1.15, ..., supported=True)

Datasets are what is sampled: pairs of one dataset go together in its errors (`LeastSquares`), and a dataset has one
distance, so as many distances are known as datasets. That is why the model has no more terms. Plain least squares in
numpy: scikit-learn's gives the same coefficients without any error, and costs every report its import.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from fttune.analysis.bootstrap import limit
from fttune.analysis.least_squares import LeastSquares
from fttune.analysis.ratios import Pair

DISTANCE, IMAGES = "distance", "log images per class"
_LEVERAGE = 1 + 1e-9  # rounding, where a measured place is asked for


@dataclass(frozen=True, kw_only=True, slots=True)
class Expected:
    """What the model expects of tuned / frozen test accuracy at one place."""

    ratio: float | None  # None: no pair to fit
    low: float | None  # interval of the mean over datasets at this place; None: fewer than two datasets
    high: float | None
    new_low: float | None  # interval that one more dataset at this place falls into, its own deviation included
    new_high: float | None
    supported: bool  # whether the place lies within what was measured, with a slope over distance
    why: str  # why it is not supported; empty when it is


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Trend:
    """The fitted model, and what it rests on."""

    fitted: LeastSquares | None  # None: no pair
    terms: tuple[str, ...]  # of DISTANCE and IMAGES, those that no single dataset determines
    places: np.ndarray  # float64 [P, 2], distance and log images per class of the counted pairs
    between: float  # variance of a dataset's mean about the model
    datasets: int
    pairs: int
    confidence: float

    @classmethod
    def fit(cls, pairs: Sequence[Pair], *, confidence: float = 0.95) -> "Trend":
        """From tune-to-freeze pairs; flagged ones and those without a distance are left out."""
        counted = [pair for pair in pairs if not pair.flagged and pair.distance is not None]
        places = np.array([(pair.distance, math.log(pair.images_per_class)) for pair in counted], float).reshape(-1, 2)
        names = np.array([pair.dataset for pair in counted], str)
        terms = _terms(places, names)
        logs = np.array([pair.log_ratio for pair in counted], float)
        fitted = LeastSquares.fit(_design(places, terms), logs, names.tolist()) if counted else None
        return cls(
            fitted=fitted,
            terms=terms,
            places=places,
            between=_between(fitted.residuals, names, terms) if fitted else math.nan,
            datasets=len(set(names)),
            pairs=len(counted),
            confidence=confidence,
        )

    def at(self, distance: float, images_per_class: float) -> Expected:
        """At a cosine distance and a number of images per class, 1 or more."""
        place, why = np.array([[distance, math.log(images_per_class)]]), self._unsupported(distance, images_per_class)
        if self.fitted is None:
            return Expected(ratio=None, low=None, high=None, new_low=None, new_high=None, supported=False, why=why)
        here = self.fitted.at(_design(place, self.terms)[0])
        low = high = new_low = new_high = None
        if here.freedom is not None:
            own = self.datasets - 1 - (DISTANCE in self.terms)
            low, high = self._around(here.value, here.error, here.freedom)
            new_low, new_high = self._around(
                here.value, math.hypot(here.error, math.sqrt(self.between)), min(here.freedom, own)
            )
        ratio = math.exp(here.value)
        return Expected(ratio=ratio, low=low, high=high, new_low=new_low, new_high=new_high, supported=not why, why=why)

    def _around(self, value: float, error: float, freedom: float) -> tuple[float, float]:
        half = float(stdtrit(freedom, (1 + self.confidence) / 2)) * error
        return limit(value - half), limit(value + half)

    def _unsupported(self, distance: float, images_per_class: float) -> str:
        """Why a place lies outside what was measured; empty when it does not."""
        if self.fitted is None:
            return "no counted pair with a distance"
        if DISTANCE not in self.terms:
            return f"no slope over distance: it takes three datasets at different distances, not {self.datasets}"
        (nearest, fewest), (farthest, most) = self.places.min(0), self.places.max(0)
        if not nearest <= distance <= farthest:
            return f"distance {distance:.3f} is outside the measured {nearest:.3f} to {farthest:.3f}"
        if not fewest <= math.log(images_per_class) <= most:
            measured = f"{math.exp(fewest):.0f} to {math.exp(most):.0f}"
            return f"{images_per_class:g} images per class are outside the measured {measured}"
        if self._leverage(np.array([[distance, math.log(images_per_class)]])) > _LEVERAGE * self._leverage(self.places):
            return "no dataset was measured at such a distance with so many images per class"
        return ""

    def _leverage(self, places: np.ndarray) -> float:
        """The largest over the places [N, 2]: past that of every measured one, a place lies outside their ellipse."""
        rows, known = (_design(some, (DISTANCE, IMAGES)) for some in (places, self.places))
        return float(((rows @ np.linalg.pinv(known.T @ known)) * rows).sum(1).max())


def _design(places: np.ndarray, terms: Sequence[str]) -> np.ndarray:
    """Rows float64 [N, 1 + T] of an intercept and the terms asked for, of places [N, 2]."""
    columns = {DISTANCE: places[:, 0], IMAGES: places[:, 1]}
    return np.column_stack([np.ones(len(places)), *(columns[term] for term in terms)])


def _terms(places: np.ndarray, names: np.ndarray) -> tuple[str, ...]:
    """The terms that the rest determines whichever dataset is left out; outcomes have no say in it."""
    kept: tuple[str, ...] = ()
    for term in (DISTANCE, IMAGES):
        ranks = [np.linalg.matrix_rank(_design(places[names != name], (*kept, term))) for name in np.unique(names)]
        kept = (*kept, term) if ranks and min(ranks) == len(kept) + 2 else kept
    return kept


def _between(residuals: np.ndarray, names: np.ndarray, terms: Sequence[str]) -> float:
    """The variance of datasets' mean residuals, less the freedom that the intercept and distance took."""
    means = [residuals[names == name].mean() for name in np.unique(names)]
    return float(np.square(means).sum() / max(1, len(means) - 1 - (DISTANCE in terms)))
