"""Where a user's images lie: how many there are of each class, and how far they are from a backbone's source."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from fttune.analysis.answer import Images
from fttune.backbones import catalog as backbones
from fttune.backbones.source import SourceMean, available, source_mean
from fttune.data.catalog import locate
from fttune.data.dataset import YOURS, Dataset
from fttune.data.store import ImageStore
from fttune.distance.job import DistanceJob
from fttune.distance.sample import MAX_IMAGES, Sample
from fttune.errors import DataError
from fttune.record import DistanceRecord
from fttune.runtime import Runtime
from fttune.sweep.ground import decode
from fttune.terminal import Decoding
from fttune.trial import stored_size

BACKBONE = "efficientnet_lite0"
SIZE = 96  # pixels, unless told: what the shipped runs were made at


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """What `fttune recommend` was asked."""

    target: str
    backbone: str = BACKBONE
    images_per_class: int | None = None  # to train on; None: what the smallest class allows
    image_size: int | None = None  # pixels; None: SIZE, or the nearest that the backbone has a source mean for
    maximum: int = MAX_IMAGES  # images that the distance is measured on, balanced over classes
    root: Path | None = None  # of official downloads
    options: Mapping[str, Any] = field(default_factory=dict)  # how the set is read, which part of it
    skip_corrupt: bool = False
    experiment: str = "fttune"  # of MLflow, whose runs are evidence too
    uri: str | None = None  # of MLflow; None: MLFLOW_TRACKING_URI, or mlflow.db in this folder


@dataclass(frozen=True, kw_only=True, slots=True)
class Placed:
    """The images of a question, counted and measured."""

    row: Dataset
    images: Images
    distance: DistanceRecord
    depth: int  # layers of the backbone


def place_target(question: Question, runtime: Runtime) -> Placed:
    """Count, decode and measure; what cannot be answered is told before anything is decoded, as far as it can be."""
    row = locate(question.target, root=question.root, options=question.options)
    network, mean = backbones.find(question.backbone), _mean(question)
    source = row.source()
    labels = np.array([ref.label for ref in source.images], np.int64)
    count(row, source.classes, labels, [ref.pool for ref in source.images], question.images_per_class)
    store = _store(row, mean.image_size, question, runtime)
    images = count(row, store.classes, store.labels, store.pools, question.images_per_class)
    sample = Sample(
        dataset=row.name,
        data_digest=store.digest,
        test_per_class=images.test,
        backbone=question.backbone,
        weights_digest=mean.weights_digest,
        image_size=mean.image_size,
        resize="crop",
        maximum=question.maximum,
    )
    distance = DistanceJob(sample=sample, source=mean).measure(runtime)
    return Placed(row=row, images=images, distance=distance, depth=network.depth)


def _mean(question: Question) -> SourceMean:
    """The source mean at the size that was asked for, or the usual one; DataError where none is shipped."""
    name, sizes = question.backbone, available(question.backbone)
    if question.image_size:
        backbones.find(name).check_size("--image-size", question.image_size)
    size = question.image_size or min(sizes, key=lambda size: abs(size - SIZE), default=SIZE)
    mean = source_mean(name, size, "crop")
    if mean is None:
        known = ", ".join(map(str, sizes))
        hint = f"sizes shipped: {known}; choose one with --image-size" if known else "it has no place in the table"
        raise DataError(f"no source mean of {name} is shipped at {size} px, so no distance can be measured; {hint}")
    if mean.weights_digest != backbones.weights_digest(name):
        raise DataError(f"the source mean of {name} is of other weights than those on this machine")
    return mean


def _store(row: Dataset, size: int, question: Question, runtime: Runtime) -> ImageStore:
    with Decoding() as progress:
        corrupt = "skip" if question.skip_corrupt else "refuse"
        return decode(row, stored_size(size), "crop", corrupt, runtime.store, progress)


def count(row: Dataset, classes: Sequence[str], labels: np.ndarray, pools: Sequence[str], asked: int | None) -> Images:
    """Images of each class (labels int64 [N], pools [N]) and what is left to train on; DataError where too few are."""
    official = np.array([pool == "test" for pool in pools])
    counts = np.bincount(labels[~official], minlength=len(classes))
    least = int(counts.argmin())
    smallest, own_test = int(counts[least]), bool(official.any())
    _check_smallest(row.name, classes[least], smallest, 2 if own_test else 3)
    val, test = _held_out(row, smallest, own_test)
    images = Images(
        dataset=row.name,
        classes=len(classes),
        images=len(labels),
        smallest=smallest,
        quarter=int(np.quantile(counts, 0.25, method="lower")),
        median=float(np.median(counts)),
        largest=int(counts.max()),
        smallest_class=classes[least],
        val=val,
        test=test,
        fits=smallest - val - (0 if own_test else test or 0),
    )
    if asked and asked > images.fits:
        raise DataError(
            f"--images-per-class {asked}: class '{images.smallest_class}' has {smallest} images, which leaves at most"
            f" {images.fits} to train on"
        )
    return replace(images, asked=asked)


def _check_smallest(dataset: str, name: str, have: int, needed: int) -> None:
    if have < needed:
        test = "one for val and one to test on" if needed == 3 else "one for val"
        raise DataError(
            f"dataset '{dataset}', class '{name}': has {have} image{'' if have == 1 else 's'}, but must have {needed}:"
            f" one to train on, {test}; add some, or leave small classes out with --option min_per_class={needed}"
        )


def _held_out(row: Dataset, smallest: int, own_test: bool) -> tuple[int, int | None]:
    """Images of each class for val and test: the row's own, but a sixth and a third of a class that is small.

    A catalog's numbers are kept while an image is left to train on. The defaults of a user's set are for classes
    twice their sum, so that a class of sixteen is not left with one image to train on.
    """
    test = 0 if own_test or row.test is None else row.test
    enough = (2 if row.task == YOURS else 1) * (row.val + test)
    if smallest > enough:
        return row.val, row.test
    return min(row.val, max(1, smallest // 6)), min(test, max(1, smallest // 3)) if test else row.test
