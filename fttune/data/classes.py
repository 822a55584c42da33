"""Parts of a source: half of its classes, those large enough, at most so many images of each."""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np

from fttune.data.layout import check_choice, check_count
from fttune.data.readers import ImageRef, Source
from fttune.errors import DataError


class Part:
    """Some classes of a source, numbered anew in their order, and some of the images of these."""

    def __init__(
        self, whole: Source, kept: Sequence[int], images: Iterable[ImageRef], *, too_small: tuple[str, ...] = ()
    ) -> None:
        numbers = {label: number for number, label in enumerate(sorted(kept))}
        self.whole = whole
        self.too_small = too_small  # classes left out for want of images
        self._originals = {ref.key: ref for ref in images if ref.label in numbers}
        self._images = tuple(
            ImageRef(key=ref.key, label=numbers[ref.label], pool=ref.pool) for ref in self._originals.values()
        )
        self.classes = tuple(whole.classes[label] for label in numbers)

    @property
    def images(self) -> tuple[ImageRef, ...]:
        return self._images

    def fingerprint(self) -> str:
        told = hashlib.sha256("\n".join((self.whole.fingerprint(), *self.classes)).encode())
        for ref in self._images:
            told.update(f"\n{ref.key}".encode())
        return told.hexdigest()

    def read(self, ref: ImageRef) -> bytes:
        return self.whole.read(self._originals[ref.key])


def half_of(source: Source, name: str, *, seed: int = 0) -> Part:
    """Half `a` or `b` of the classes, drawn as Yosinski et al. 2014 did: numpy's legacy generator with the list [seed].

    Their script reads the seed as a list, and RandomState([0]) is another stream than RandomState(0).
    """
    check_choice("half", name, ("a", "b"))
    check_count("half_seed", seed, 0)
    count = len(source.classes)
    if count < 4:
        raise DataError(f"half: must leave two classes on either side, but there are {count}")
    drawn = np.random.RandomState([seed]).choice(np.arange(count), count // 2, replace=False)
    in_a = set(drawn.tolist())
    return Part(source, [label for label in range(count) if (label in in_a) == (name == "a")], source.images)


def large(source: Source, minimum: int, test: int = 0) -> Part:
    """The classes with at least `minimum` images (Table 1: "insufficient training data").

    Of a source with a test set of its own, `test` of them must be in it and the others outside.
    """
    check_count("min_per_class", minimum, 1)
    counts = sizes(source)
    official = np.bincount([ref.label for ref in source.images if ref.pool == "test"], minlength=len(counts))
    if official.any():
        test = min(test, minimum - 1)  # something must be left to train on
        counts = [
            int(min(count - held + test, held + minimum - test)) for count, held in zip(counts, official, strict=True)
        ]
    kept = [label for label, count in enumerate(counts) if count >= minimum]
    if len(kept) < 2:
        raise DataError(
            f"min_per_class: at least two classes must have {minimum} images, but the two largest have"
            f" {' and '.join(map(str, sorted(counts)[-2:]))}"
        )
    left_out = tuple(name for label, name in enumerate(source.classes) if label not in set(kept))
    return Part(source, kept, source.images, too_small=left_out)


def too_small(source: Source) -> tuple[str, ...]:
    """The classes that a source leaves out for want of images."""
    return (*source.too_small, *too_small(source.whole)) if isinstance(source, Part) else ()


def capped(source: Source, most: int, test: int | None = None) -> Part:
    """At most `most` images of each class outside the official test set and `test` in it (None: all of it).

    Which ones is decided by a hash of their keys.
    """
    check_count("most_per_class", most, 1)
    places: dict[tuple[int, bool], list[ImageRef]] = {}
    for ref in source.images:
        places.setdefault((ref.label, ref.pool == "test"), []).append(ref)
    limits = {False: most, True: test}
    kept = {ref.key for place, refs in places.items() for ref in sorted(refs, key=_rank)[: limits[place[1]]]}
    return Part(source, range(len(source.classes)), (ref for ref in source.images if ref.key in kept))


def sizes(source: Source) -> list[int]:
    """Images of each class."""
    return np.bincount([ref.label for ref in source.images], minlength=len(source.classes)).tolist()


def _rank(ref: ImageRef) -> bytes:
    return hashlib.sha256(f"capped\0{ref.key}".encode()).digest()
