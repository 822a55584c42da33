"""Half of a dataset's classes: a source network is trained on one random half, transferred to the other.

As Yosinski et al. 2014 split ImageNet (paper, section 4): each half is drawn from a seed and keeps the order of the
classes, so that class 0 is the first that was drawn into it.
"""

from dataclasses import replace
from functools import cached_property
from typing import Literal

import numpy as np

from fttune.data.catalog import Dataset
from fttune.data.readers import ImageRef, Source
from fttune.trial import digest

Side = Literal["a", "b"]


def half_of(count: int, side: Side, seed: int = 0) -> list[int]:
    """The classes of one half of `count`, ascending: `a` is drawn, `b` is the rest."""
    # The published halves come from numpy's legacy stream, seeded with a list.
    drawn = np.random.RandomState([seed]).choice(np.arange(count), count // 2, replace=False)
    return sorted(drawn.tolist()) if side == "a" else sorted(set(range(count)) - set(drawn.tolist()))


def halved(row: Dataset, side: Side, name: str) -> Dataset:
    """The row of one half of a dataset's classes."""
    classes = row.classes // 2 if side == "a" else row.classes - row.classes // 2
    return replace(row, name=name, classes=classes, source=lambda: HalfSource(row.source(), side))


class HalfSource:
    """The images of one half of a source's classes, labelled anew from 0."""

    def __init__(self, whole: Source, side: Side, seed: int = 0) -> None:
        self._whole, self._seed = whole, seed
        self._side: Side = side

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self._whole.classes[label] for label in self._kept)

    @property
    def images(self) -> tuple[ImageRef, ...]:
        return self._images

    @cached_property
    def _images(self) -> tuple[ImageRef, ...]:
        anew = {label: place for place, label in enumerate(self._kept)}
        return tuple(replace(ref, label=anew[ref.label]) for ref in self._refs.values())

    def fingerprint(self) -> str:
        return digest([self._whole.fingerprint(), self._side, self._seed])

    def read(self, ref: ImageRef) -> bytes:
        return self._whole.read(self._refs[ref.key])

    @cached_property
    def _kept(self) -> list[int]:
        return half_of(len(self._whole.classes), self._side, self._seed)

    @cached_property
    def _refs(self) -> dict[str, ImageRef]:
        """The whole source's images of these classes, by key, as the whole source labels them."""
        kept = set(self._kept)
        return {ref.key: ref for ref in self._whole.images if ref.label in kept}
