"""Least squares whose errors hold when observations of one cluster go together, also with few clusters.

Letters: N observations, T terms, G clusters.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_WHOLE = 1e-8  # what a direction keeps of its residual when one cluster alone determines it


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A linear combination of the coefficients."""

    value: float
    error: float  # standard error
    freedom: float | None  # degrees of freedom; None: a cluster alone determines it, so no error can be told


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LeastSquares:
    """Coefficients with the CR2 variance of Bell and McCaffrey (2002) and Satterthwaite's degrees of freedom.

    The working model is independence: with no dependence within clusters the variance is unbiased, with any it is
    consistent, and the degrees of freedom tell how many clusters a combination really rests on (Pustejovsky and
    Tipton 2018).
    """

    coefficients: np.ndarray  # float64 [T]
    residuals: np.ndarray  # float64 [N]
    inverse: np.ndarray  # float64 [T, T], of X'X
    scores: np.ndarray  # float64 [G, T], X' times the residuals of each cluster, both adjusted
    adjusted: tuple[
        np.ndarray, ...
    ]  # float64 [N of the cluster, T], rows of X adjusted for what the cluster determines
    products: tuple[np.ndarray, ...]  # float64 [T, T], X' times `adjusted` of each cluster
    determined: bool  # whether some direction rests on one cluster alone

    @classmethod
    def fit(cls, terms: np.ndarray, values: np.ndarray, clusters: Sequence[str]) -> "LeastSquares":
        """From terms float64 [N, T] of full rank, values float64 [N] and the cluster of each."""
        inverse = np.linalg.inv(terms.T @ terms)
        coefficients = inverse @ terms.T @ values
        residuals = values - terms @ coefficients
        names = np.asarray(clusters, str)
        rows = [names == name for name in np.unique(names)]
        parts = [_adjust(terms[row], inverse) for row in rows]
        return cls(
            coefficients=coefficients,
            residuals=residuals,
            inverse=inverse,
            scores=np.array([part.T @ residuals[row] for part, row in zip(parts, rows, strict=True)]),
            adjusted=tuple(parts),
            products=tuple(terms[row].T @ part for part, row in zip(parts, rows, strict=True)),
            determined=bool(max(_held(terms[row], inverse)[-1] for row in rows) > 1 - _WHOLE),
        )

    def at(self, combination: np.ndarray) -> Estimate:
        """The combination [T] of the coefficients."""
        along = self.inverse @ combination
        error = float(np.sqrt(((self.scores @ along) ** 2).sum()))
        value = float(combination @ self.coefficients)
        if self.determined:
            return Estimate(value=value, error=error, freedom=None)
        own = np.array([((part @ along) ** 2).sum() for part in self.adjusted])
        shared = np.array([product @ along for product in self.products])
        form = np.diag(own) - shared @ self.inverse @ shared.T  # G x G, whose trace squared over that of its square
        return Estimate(value=value, error=error, freedom=float(np.trace(form) ** 2 / (form**2).sum()))


def _held(terms: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    """What share of its own residuals a cluster determines, by direction, rising; float64 [T] within 0 and 1."""
    _, triangle = np.linalg.qr(terms)
    return np.linalg.eigvalsh(triangle @ inverse @ triangle.T)


def _adjust(terms: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    """(I - H)^(-1/2) X of one cluster, where H = X inverse X'; nothing is kept of what it determines alone."""
    basis, triangle = np.linalg.qr(terms)
    held, directions = np.linalg.eigh(triangle @ inverse @ triangle.T)
    left = 1 - held
    scale = np.where(left > _WHOLE, 1 / np.sqrt(np.maximum(left, _WHOLE)), 0.0)
    return basis @ (directions * scale) @ directions.T @ triangle
