"""The datasets fttune knows, one row each; any folder of class folders is one more, without a row."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from fttune.data.embedded import Digits, Glyphs, Photos
from fttune.data.readers import FolderSource, Source
from fttune.errors import DataError, unknown

# Installed packages add rows under this entry-point group: NAME = "module:ROW", where ROW is a `Dataset`.
GROUP = "fttune.datasets"


@dataclass(frozen=True, kw_only=True, slots=True)
class Dataset:
    """One dataset: where its images come from, and how many of each class are held out."""

    name: str
    classes: int  # used
    task: str
    images_per_class: tuple[int, ...]  # training images, the usual splits
    val: int  # images of each class, for selection
    test: int | None  # images of each class; None: the whole official test set
    source: Callable[[], Source]
    about: str
    layout: Callable[..., Source] | None = None  # (root, **options): reads the official download; None: no root needed
    options: Mapping[str, Any] = field(default_factory=dict)  # what a sweep may change of the layout, with defaults
    drop_small: bool = False  # classes too small for the largest split, val and test are left out
    listed: int | None = None  # classes before that; None: the same
    images: int | None = None  # of the official download, for a plan made before it is here
    overlap: str = ""  # which images a backbone may have been trained on
    download: Callable[[Path], None] | None = None  # fetches the official download into a root


_ROWS = (
    Dataset(
        name="digits",
        classes=10,
        task="handwritten digits",
        images_per_class=(1, 5, 25, 100),
        val=5,
        test=40,
        source=Digits,
        about="scikit-learn's 8 x 8 digits",
    ),
    Dataset(
        name="glyphs",
        classes=26,
        task="printed letters",
        images_per_class=(1, 5, 25),
        val=4,
        test=15,
        source=Glyphs,
        about="A to Z from matplotlib's fonts, test fonts never trained on",
    ),
    Dataset(
        name="photos",
        classes=12,
        task="materials and textures",
        images_per_class=(1, 5, 25),
        val=5,
        test=15,
        source=Photos,
        about="tiles of twelve photographs from scikit-image and scikit-learn",
    ),
)
DATASETS: dict[str, Dataset] = {row.name: row for row in _ROWS}


def rows() -> dict[str, Dataset]:
    """The rows of this file and those that installed packages add; DataError for one that is not a `Dataset`."""
    added = (_added(point.name, point.load()) for point in entry_points(group=GROUP))
    return {row.name: row for row in added} | DATASETS


def find(name: str) -> Dataset:
    """The row of a dataset; DataError with the nearest name when there is none."""
    if name in DATASETS:
        return DATASETS[name]
    known = rows()
    if name not in known:
        raise DataError(f"{unknown('dataset', name, known)} (or give a folder of class folders as path: DIR)")
    return known[name]


def folder(name: str, path: Path, *, val: int | None = None, test: int | None = None) -> Dataset:
    """A row for a folder of class folders; DataError when it is none."""
    source = FolderSource(path)
    return Dataset(
        name=name,
        classes=len(source.classes),
        task="yours",
        images_per_class=(),
        val=5 if val is None else val,
        test=10 if test is None else test,
        source=lambda: FolderSource(path),
        about=str(path),
    )


def _added(name: str, row: object) -> Dataset:
    if not isinstance(row, Dataset) or row.name != name:
        raise DataError(f"entry point '{name}' of {GROUP} must name a Dataset called '{name}', but gives {row!r:.60}")
    return row
