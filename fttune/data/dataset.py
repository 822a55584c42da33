"""What a dataset is: a row of facts, and a source that opens on this machine."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, Self

from fttune.data.classes import capped, half_of, large, sizes
from fttune.data.readers import Source
from fttune.errors import AbsentDataError, DataError, unknown

# The folder of official downloads, where neither a command nor a sweep file names one.
ROOT = "FTTUNE_DATA"
# The task of a dataset that is no row of the catalog.
YOURS = "yours"
# Options of every dataset: which part of it is used.
_OTHER_CLASSES = {"half", "half_seed", "min_per_class"}  # options that change which classes there are
PARTS = ("half", "half_seed", "min_per_class", "most_per_class")


@dataclass(frozen=True, kw_only=True, slots=True)
class Dataset:
    """One dataset: where its images come from, and how many of each class are held out."""

    name: str
    classes: int  # used; 0: not known before they are looked at
    task: str
    images_per_class: tuple[int, ...]  # training images, the usual splits
    val: int  # images of each class, for selection
    test: int | None  # images of each class; None: the whole official test set
    source: Callable[..., Source]  # called with nothing; of a row that is `rooted`, with a folder and its options
    about: str
    rooted: bool = False  # reads an official download below a folder that the user names
    options: Mapping[str, Any] = field(default_factory=dict)  # of the reader, and PARTS, with the values used
    listed: int | None = None  # classes of the official download; None: those used
    images: int | None = None  # used of the official download, for a plan made before it is here
    overlap: str = ""  # images that a backbone may have been trained on
    download: Callable[[Path], None] | None = None  # fetches the official download into a folder

    @property
    def needed(self) -> int:
        """Images of each class that the largest usual split takes, an official test set apart."""
        return max(self.images_per_class, default=0) + self.val + (self.test or 0)


def left_out(row: Dataset) -> int | None:
    """Test images of each class that a distance leaves out; None: the official test set.

    The row's own number, but 0 of a user's set with a class that has fewer: there the number is a default that nobody
    chose, and no sweep tests on it.
    """
    if row.task != YOURS or row.test is None:
        return row.test
    return row.test if min(sizes(row.source())) >= row.test else 0


class Once:
    """Opens a source once in a process; to another process goes how to open it, not what was read or listed here."""

    def __init__(self, open_source: Callable[[], Source]) -> None:
        self._way, self._open = open_source, cache(open_source)

    def __call__(self) -> Source:
        return self._open()

    def __reduce__(self) -> tuple[type[Self], tuple[Callable[[], Source]]]:
        return type(self), (self._way,)


def kept(row: Dataset) -> Dataset:
    """The row with a source that is opened once: to list a download again may mean to look up a million files."""
    return replace(row, source=Once(row.source))


def opened(row: Dataset, *, root: Path | None = None, options: Mapping[str, Any] | None = None) -> Dataset:
    """The row with a source that needs no arguments: its download below `root` or FTTUNE_DATA, some options changed.

    Raises DataError for an option the dataset has not. That the download is absent is told when the source is called.
    """
    known = {*row.options, *PARTS}
    for name in options or {}:
        if name not in known:
            raise DataError(f"dataset '{row.name}': {unknown('option', name, known)}")
    chosen = {**row.options, **(options or {})}
    classes = 0 if _OTHER_CLASSES & set(options or {}) else row.classes
    return replace(row, source=partial(_open, row, root, chosen), options=chosen, classes=classes, rooted=False)


def _open(row: Dataset, root: Path | None, options: Mapping[str, Any]) -> Source:
    own = {name: value for name, value in options.items() if name not in PARTS}
    try:
        source = row.source(_home(row, root), **own) if row.rooted else row.source(**own)
        return _part(source, row.test, **{name: value for name, value in options.items() if name in PARTS})
    except AbsentDataError:
        raise
    except DataError as error:
        raise DataError(f"dataset '{row.name}': {error}") from None


def _home(row: Dataset, root: Path | None) -> Path:
    if root:
        return root
    if named := os.environ.get(ROOT):
        return Path(named).expanduser()
    raise AbsentDataError(
        f"dataset '{row.name}' needs its images: give --data-root DIR, data.root in the sweep file, or {ROOT}"
    )


def _part(
    source: Source,
    test: int | None,
    *,
    half: str | None = None,
    half_seed: int = 0,
    min_per_class: int | None = None,
    most_per_class: int | None = None,
) -> Source:
    """The part of a source that its options ask for: first the half, then the classes, then the images of each."""
    if half is not None:
        source = half_of(source, half, seed=half_seed)
    if min_per_class is not None:
        source = large(source, min_per_class, test or 0)
    return source if most_per_class is None else capped(source, most_per_class, test)
