"""Whether a mean log-ratio could be chance: tests that flip whole datasets, adjusted for how many were made.

Seeds and splits of a dataset share its images, so a dataset is one observation. Letters: P pairs, D datasets, M tests.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import bdtr

from fttune.trial import seed_from

EXACT_UP_TO = 16  # datasets: 65,536 ways to flip them are all looked at
DRAWS = 20_000  # ways to flip more datasets


@dataclass(frozen=True, kw_only=True, slots=True)
class Significance:
    """Two-sided tests of no difference over D datasets. A p-value is a fraction."""

    datasets: int
    above: int  # datasets whose own mean log-ratio is above 0
    below: int
    sign_p: float  # of the sign test: how many lie above and below
    flip_p: float  # of the permutation test: also by how much
    least_p: float  # the smallest that so many datasets can give
    exact: bool  # whether every flip was looked at


def significance(values: Sequence[float], datasets: Sequence[str]) -> Significance | None:
    """Both tests of P log-ratios; None where fewer than two datasets leave nothing to flip."""
    sums = dataset_sums(values, datasets)
    if len(sums) < 2:
        return None
    above, below = int((sums > 0).sum()), int((sums < 0).sum())
    return Significance(
        datasets=len(sums),
        above=above,
        below=below,
        sign_p=sign_test(above, below),
        flip_p=flip_test(sums),
        least_p=2.0 ** (1 - len(sums)),
        exact=len(sums) <= EXACT_UP_TO,
    )


def dataset_sums(values: Sequence[float], datasets: Sequence[str]) -> np.ndarray:
    """The sum float64 [D] of each dataset's values [P], in the order of the names: what a flip turns round as one."""
    names, which = np.unique(np.asarray(datasets, str), return_inverse=True)
    return np.bincount(which, np.asarray(values, float), len(names))


def sign_test(above: int, below: int) -> float:
    """How often fair coins fall at least as unevenly, either way; datasets at 0 are left out."""
    return min(1.0, 2 * float(bdtr(min(above, below), above + below, 0.5))) if above + below else 1.0


def flip_test(sums: np.ndarray) -> float:
    """How often turning round the sums [D] at random gives a total at least as far from 0, the given one included.

    Under no difference tuned and frozen are names that may be exchanged within a dataset. All 2^D ways are looked at up
    to EXACT_UP_TO datasets; beyond, DRAWS of them, with the given one counted in, so that p is never 0.
    """
    units, reached = len(sums), abs(sums.sum()) - 1e-9 * np.abs(sums).sum()  # sums in another order differ by rounding
    if units <= EXACT_UP_TO:
        flipped = (np.arange(2**units)[:, None] >> np.arange(units)) & 1
        return float((np.abs((1 - 2 * flipped) @ sums) >= reached).mean())
    rng = np.random.default_rng(seed_from("flips", sorted(map(float, sums))))
    totals = rng.choice([-1.0, 1.0], (DRAWS, units)) @ np.sort(sums)
    return float((1 + (np.abs(totals) >= reached).sum()) / (1 + DRAWS))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) adjustment of M p-values in their order: below a level where the family's error is held at it."""
    values = np.asarray(p_values, float)
    order = np.argsort(values, kind="stable")
    stepped = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)).clip(max=1)
    adjusted = np.empty_like(values)
    adjusted[order] = stepped
    return adjusted.tolist()
