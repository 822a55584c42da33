"""Which images are trained on, chosen by and tested on; every draw is a rank by hash, so none depends on another.

Letters: N images, C classes, n training images of each class.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fttune.errors import DataError, FttuneError
from fttune.trial import digest


class SealedTest:
    """The test images: their number can be asked at any time, which they are only once."""

    def __init__(self, rows: np.ndarray) -> None:
        self._rows: np.ndarray | None = rows
        self._count = len(rows)

    def __len__(self) -> int:
        return self._count

    def open(self) -> np.ndarray:
        """Rows int64; FttuneError the second time, because a test set read twice starts to select."""
        if self._rows is None:
            raise FttuneError("the test set must be read once in a trial, but it was opened before")
        rows, self._rows = self._rows, None
        return rows


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """Disjoint rows of a dataset. Val and test are the same for every seed and every size of the training subset."""

    train: np.ndarray  # int64 [n * C], sorted
    val: np.ndarray  # int64 [val * C], sorted
    test: SealedTest
    digest: str  # of all three


def make_split(
    *,
    dataset: str,
    classes: Sequence[str],
    labels: np.ndarray,
    keys: Sequence[str],
    pools: Sequence[str],
    images_per_class: int,
    val: int,
    test: int | None,
    seed: int,
    fold: tuple[int, int] | None = None,
) -> Split:
    """Hold out `test` and `val` images of each class, draw `images_per_class` of the rest.

    With `fold` (k, K) the images of val and of the subset are one, of which part k of K takes the place of val and the
    others are trained on: parts of each class differ by one image at most.

    Where the dataset has an official test set (pool `test`), test images come from it alone, all of them when `test` is
    None, and the others from the rest. The subset of n images lies inside that of n + 1. `labels` int64 [N]. Raises
    DataError naming the class, what it has and what is needed.
    """
    held, rest = _hold_out(dataset, classes, labels, keys, pools, test)
    train: list[int] = []
    chosen: list[int] = []
    for label, name in enumerate(classes):
        rows = rest[label]
        _check(dataset, name, len(rows), images_per_class, val)
        drawn, kept = _ranked(rows[val:], keys, "subset", seed)[:images_per_class], rows[:val]
        if fold:
            drawn, kept = _fold([*drawn, *kept], keys, seed, *fold)
        chosen += kept
        train += drawn
    test_rows = np.sort(np.array([row for rows in held for row in rows], np.int64))
    parts = [np.sort(np.array(rows, np.int64)) for rows in (train, chosen)]
    told = digest([sorted(str(keys[row]) for row in rows) for rows in (*parts, test_rows)])
    return Split(train=parts[0], val=parts[1], test=SealedTest(test_rows), digest=told)


def train_and_val(
    *,
    dataset: str,
    classes: Sequence[str],
    labels: np.ndarray,
    keys: Sequence[str],
    pools: Sequence[str],
    val: int,
    test: int | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Every image outside the test set that `make_split` would seal: the others to train on, and `val` of each class.

    Rows int64, sorted. Raises DataError naming a class that has too few.
    """
    _, rest = _hold_out(dataset, classes, labels, keys, pools, test)
    for name, rows in zip(classes, rest, strict=True):
        _check(dataset, name, len(rows), 1, val)
    chosen = [row for rows in rest for row in rows[:val]]
    train = [row for rows in rest for row in rows[val:]]
    return np.sort(np.array(train, np.int64)), np.sort(np.array(chosen, np.int64))


def non_test(
    *,
    dataset: str,
    classes: Sequence[str],
    labels: np.ndarray,
    keys: Sequence[str],
    pools: Sequence[str],
    test: int | None,
    maximum: int | None,
) -> np.ndarray:
    """Rows int64 of images outside the test set, at most `maximum` (None: all), as balanced as the classes allow.

    `test` is the number that `make_split` is given; 0 holds nothing out. Raises DataError naming a class with fewer.
    """
    _, rest = _hold_out(dataset, classes, labels, keys, pools, test)
    ranked = [_ranked(rows, keys, "distance", 0) for rows in rest]
    longest = max(map(len, ranked), default=0)
    in_turn = [rows[place] for place in range(longest) for rows in ranked if place < len(rows)]
    return np.sort(np.array(in_turn[:maximum], np.int64))


def _hold_out(
    dataset: str,
    classes: Sequence[str],
    labels: np.ndarray,
    keys: Sequence[str],
    pools: Sequence[str],
    test: int | None,
) -> tuple[list[list[int]], list[list[int]]]:
    """Test rows and other rows of each class, in the order of holding out."""
    official = "test" in pools
    if test is None and not official:
        raise DataError(f"dataset '{dataset}' has no test set of its own: say how many images per class with test: N")
    held: list[list[int]] = []
    rest: list[list[int]] = []
    for label, name in enumerate(classes):
        rows = _ranked(np.flatnonzero(labels == label).tolist(), keys, "holdout", 0)
        own = [row for row in rows if pools[row] == "test"] if official else rows
        if test is not None and len(own) < test:
            raise DataError(f"dataset '{dataset}', class '{name}': has {len(own)} images to test on, needs {test}")
        held.append(own[:test])
        rest.append([row for row in rows if pools[row] != "test"] if official else rows[test:])
    return held, rest


def _check(dataset: str, name: str, have: int, images_per_class: int, val: int) -> None:
    if have >= images_per_class + val:
        return
    fits = have - val
    advice = f"images_per_class: {fits} would fit" if fits > 0 else "hold out fewer for val and test"
    raise DataError(
        f"dataset '{dataset}', class '{name}': has {have} images outside the test set, "
        f"needs {images_per_class} to train on and {val} for val; {advice}"
    )


def _fold(rows: Sequence[int], keys: Sequence[str], seed: int, part: int, parts: int) -> tuple[list[int], list[int]]:
    """The rows of one class without those of part `part` of `parts`, counted from 1; and these."""
    ranked = _ranked(rows, keys, "fold", seed)
    held = ranked[part - 1 :: parts]
    return [row for row in ranked if row not in held], held


def _ranked(rows: Sequence[int], keys: Sequence[str], purpose: str, seed: int) -> list[int]:
    """Rows in the order of a hash of their keys: the same whatever the order of the listing."""
    return sorted(rows, key=lambda row: hashlib.sha256(f"{purpose}\0{seed}\0{keys[row]}".encode()).digest())
