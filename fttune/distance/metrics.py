"""What is measured of a target, one row each: the paper's four distances (section 3.1, Table 2), between means or how
well sets are told apart; and scores of how well features tell its classes, which need labels and no source.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Literal

import numpy as np

from fttune.errors import DataError, UsageError, unknown

_RESAMPLES = 1000
_PART = 0.8  # of each class's images that a draw of a score takes
_LEAST = 4  # images of either side that can be halved and still train and test

Between = Callable[[np.ndarray, np.ndarray], np.ndarray]  # a mean [D] and means [..., D] to distances [...]
# Images of the source and of the target to train on, the same to test on, a seed; gives the share told apart.
TellApart = Callable[[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray], int], float]
Score = Callable[[np.ndarray, np.ndarray], float]  # features [N, D] and classes [N]


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """One distance with what it rests on."""

    value: float
    low: float
    high: float
    spread: Literal["bootstrap", "range"]  # the 95 % interval over resampled images, or least and most over the draws
    images: int  # of the target
    source_images: int
    repeats: int = 1  # draws


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """One row: what it reads, and what it would be if source and target were one."""

    name: str
    about: str
    # Of the source, of which the second and third need the images; `labels` are the target's own, without a source.
    reads: Literal["means", "features", "pixels", "labels"]
    chance: float | None = None  # of an accuracy
    side: int | None = None  # pixels that it reads; None: what the backbone is shown
    between: Between | None = None
    tell_apart: TellApart | None = None
    score: Score | None = None
    repeats: int = 1

    @property
    def needs_images(self) -> bool:
        """Whether the source's images are needed."""
        return self.reads in ("features", "pixels")

    def check_source(self, *, images: bool) -> None:
        """Raise UsageError when the source's images are needed and are not there."""
        if self.needs_images and not images:
            raise UsageError(f"the {self.name} distance needs the source's images: name them with --source")

    def measure(self, source: np.ndarray, target: np.ndarray, *, source_images: int, seed: int) -> Measured:
        """From a source mean [D] or the source's images, and the target's images, [N, ...]."""
        if self.between:
            low, high = bootstrap(self.between, source, target, seed=seed)
            value = float(self.between(source, target.mean(0)))
            return Measured(
                value=value, low=low, high=high, spread="bootstrap", images=len(target), source_images=source_images
            )
        assert self.tell_apart
        return _told_apart(self.tell_apart, source, target, repeats=self.repeats, seed=seed)


def cosine(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """`1 - s.t / (|s| |t|)` for a source mean [D] and target means [..., D]; the paper's section 3.1.

    The paper prints it without the square roots of the norms; its Table 2 only fits the true cosine. Between means of
    non-negative activations it lies in [0, 1]. 1 where a mean is zero.
    """
    norms = np.linalg.norm(source) * np.linalg.norm(target, axis=-1)
    return 1 - np.divide(target @ source, norms, out=np.zeros_like(norms), where=norms > 0)


def mmd(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """`|s - t|`: the maximum mean discrepancy with a linear kernel, not squared, as in the paper's Table 2."""
    return np.linalg.norm(target - source, axis=-1)


def bootstrap(between: Between, source: np.ndarray, target: np.ndarray, *, seed: int) -> tuple[float, float]:
    """The 95 % interval of a metric over resampled target images [N, D], about its value; the source mean stays fixed.

    Resampling adds noise to the mean, and noise only adds to a distance: near zero every resampled distance is larger
    than the measured one. So the percentiles are moved by the distance of their median from the measured value.
    """
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(len(target), np.full(len(target), 1 / len(target)), size=_RESAMPLES)
    low, median, high = np.percentile(between(source, (counts @ target) / len(target)), [2.5, 50, 97.5])
    moved = float(between(source, target.mean(0))) - median
    return float(max(0, low + moved)), float(high + moved)


def halved(source: np.ndarray, target: np.ndarray, *, seed: int) -> tuple[tuple[np.ndarray, ...], ...]:
    """Equally many images of source and target, drawn by `seed`: a half of each to train on, the other to test on.

    Both sides are drawn alike, so that of a set against itself no image is trained on as one side and tested as the
    other, which would push the accuracy far below chance.
    """
    count = min(len(source), len(target))
    if count < _LEAST:
        raise DataError(f"telling apart needs at least {_LEAST} images of source and target, but got {count}")
    drawn = [images[np.random.default_rng(seed).permutation(len(images))[:count]] for images in (source, target)]
    return tuple(images[: count // 2] for images in drawn), tuple(images[count // 2 :] for images in drawn)


def _told_apart(tell: TellApart, source: np.ndarray, target: np.ndarray, *, repeats: int, seed: int) -> Measured:
    def once(draw: int) -> float:
        train, test = halved(source, target, seed=draw)
        return tell((train[0], train[1]), (test[0], test[1]), draw)

    draws = np.random.SeedSequence(seed).generate_state(repeats)
    values = [once(int(draw)) for draw in draws]
    used = min(len(source), len(target))
    return Measured(
        value=float(np.mean(values)),
        low=min(values),
        high=max(values),
        spread="range",
        images=used,
        source_images=used,
        repeats=repeats,
    )


def scored(score: Score, features: np.ndarray, labels: np.ndarray, *, repeats: int, seed: int) -> Measured:
    """A score of features [N, D] and classes [N]; least and most over draws of four fifths of each class, and of all.

    DataError where there are fewer than two classes, or fewer than two images of one.
    """
    counts = np.unique(labels, return_counts=True)[1]
    if len(counts) < 2 or counts.min() < 2:
        raise DataError(
            f"a score needs two classes with two images each, but got {len(counts)} classes, the smallest with"
            f" {counts.min()}"
        )
    value = score(features, labels)
    values = [value]
    for draw in np.random.SeedSequence(seed).generate_state(repeats):
        rng = np.random.default_rng(int(draw))
        places = [rng.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]
        kept = np.concatenate([place[: max(2, round(_PART * len(place)))] for place in places])
        values.append(score(features[kept], labels[kept]))
    return Measured(
        value=value,
        low=min(values),
        high=max(values),
        spread="range",
        images=len(labels),
        source_images=0,
        repeats=repeats,
    )


def _later(target: str) -> Callable[..., float]:
    """A function `module:name` of this package, its module imported at the first call."""
    module, _, name = target.partition(":")

    def call(*given: object) -> float:
        return getattr(import_module(f"fttune.distance.{module}"), name)(*given)

    return call


_ROWS = (
    Metric(name="cosine", about="cosine distance of mean features", reads="means", between=cosine),
    Metric(name="mmd", about="Euclidean distance of mean features", reads="means", between=mmd),
    Metric(
        name="svm",
        about="held-out accuracy of a linear SVM on features",
        reads="features",
        chance=0.5,
        tell_apart=_later("linear_svm:accuracy"),
        repeats=5,
    ),
    Metric(
        name="cnn",
        about="held-out accuracy of a small network on pixels",
        reads="pixels",
        chance=0.5,
        side=32,
        tell_apart=_later("quick_net:accuracy"),
        repeats=3,
    ),
    Metric(
        name="logme",
        about="log maximum evidence of the labels given the features; larger is more transferable",
        reads="labels",
        score=_later("scores:logme"),
        repeats=5,
    ),
    Metric(
        name="hscore",
        about="H-score with shrunk covariance; larger is more transferable",
        reads="labels",
        score=_later("scores:hscore"),
        repeats=5,
    ),
)
METRICS: dict[str, Metric] = {row.name: row for row in _ROWS}
SCORES = tuple(row.name for row in _ROWS if row.score)


def find(name: str) -> Metric:
    """The row of a distance or score; UsageError with the nearest name when there is none."""
    if name not in METRICS:
        raise UsageError(unknown("metric", name, METRICS))
    return METRICS[name]
