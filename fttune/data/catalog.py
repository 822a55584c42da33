"""The datasets fttune knows, one row each; any folder of class folders is one more, without a row."""

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from fttune.data.dataset import Dataset, opened
from fttune.data.embedded import Digits, Glyphs, Photos
from fttune.data.given import KINDS, given
from fttune.data.readers import Source
from fttune.errors import DataError, unknown

# Installed packages add rows under this entry-point group: NAME = "module:ROW", where ROW is a `Dataset`.
GROUP = "fttune.datasets"


def _reader(target: str) -> Callable[..., Source]:
    """A reader `module:name` of this package, imported when it is called."""
    module, _, name = target.partition(":")

    def read(*args: Any, **options: Any) -> Source:
        return getattr(import_module(f"fttune.data.{module}"), name)(*args, **options)

    return read


def _torchvision(name: str) -> Callable[[Path], None]:
    def download(root: Path) -> None:
        import_module("fttune.data.torchvision_set").download(name, root)

    return download


_EMBEDDED = (
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

_BIRDS_IN_IMAGENET = "some of its images are in ImageNet, as its authors warn: a network trained there may know them"
_CUB200 = Dataset(
    name="cub200",
    classes=200,
    task="Object (fine-grained)",
    images_per_class=(5, 20, 27),
    val=2,
    test=None,
    source=_reader("cub200:Cub200"),
    about="Caltech-UCSD Birds 2011, official test set; a class has 29 or 30 training images, so 27 stand for 35",
    rooted=True,
    images=11_788,
    overlap=_BIRDS_IN_IMAGENET,
)

_IMAGENET = Dataset(
    name="imagenet",
    classes=1000,
    task="Object",
    images_per_class=(1, 10),
    val=2,
    test=None,
    source=_reader("imagenet:ImageNet"),
    about="ImageNet itself, 20 images of each class: the source that distances are measured from",
    rooted=True,
    options={"kind": None, "most_per_class": 20},
    images=70_000,
)
# A class gives 140 images outside the test set to the largest split; the cap leaves seeds something to draw from.
_ENOUGH = 300
_PART_OF_IMAGENET = replace(_IMAGENET, images_per_class=(1, 10, 25, 53, 120), val=20, listed=1000)

# Table 1 of the paper, in its order. Counts of images are those of the official downloads, where they are known.
_PAPER = (
    Dataset(
        name="caltech256",
        classes=256,
        task="Object",
        images_per_class=(1, 10, 25, 53),
        val=2,
        test=25,
        source=_reader("caltech256:Caltech256"),
        about="Caltech-256 without its clutter class",
        rooted=True,
        images=29_780,
        download=_torchvision("Caltech256"),
    ),
    Dataset(
        name="sun397",
        classes=397,
        task="Scene",
        images_per_class=(1, 10, 50, 70),
        val=2,
        test=25,
        source=_reader("sun397:Sun397"),
        about="SUN397 scenes, cut by ourselves as in the paper",
        rooted=True,
        images=108_754,
        download=_torchvision("SUN397"),
    ),
    Dataset(
        name="mit67",
        classes=67,
        task="Scene",
        images_per_class=(1, 10, 25, 75),
        val=2,
        test=None,
        source=_reader("mit67:Mit67"),
        about="MIT Indoor 67 with its official lists",
        rooted=True,
        images=6_700,
    ),
    _CUB200,
    Dataset(
        name="coral",
        classes=8,
        task="Coral",
        images_per_class=(10, 50, 200, 450),
        val=50,
        test=300,
        source=_reader("coral:Coral"),
        about="Moorea Labeled Corals: patches around annotated points",
        rooted=True,
        options={
            "patch": 224,
            "labels": "major",
            "group": "point",
            "absent": "refuse",
            "min_per_class": 800,
            "most_per_class": 2000,
        },
        listed=9,
        images=16_000,
    ),
    Dataset(
        name="plankton",
        classes=34,
        task="Plankton",
        images_per_class=(1, 10, 300, 550),
        val=50,
        test=85,
        source=_reader("plankton:Plankton"),
        about="WHOI-Plankton, all years, classes with enough images",
        rooted=True,
        options={"min_per_class": 685, "most_per_class": 2000},
        listed=103,
        images=68_000,
    ),
    replace(
        _PART_OF_IMAGENET,
        name="imagenet500b",
        classes=500,
        about="the half of ImageNet's classes that caffenet@500a has not seen (Yosinski et al. 2014, half0B)",
        options={"half": "b", "half_seed": 0, "most_per_class": _ENOUGH},
        images=175_000,
    ),
)

# Beside the paper's rows: another cut of the birds, and the other parts of ImageNet.
_BESIDE = (
    replace(
        _CUB200,
        name="cub200_paper",
        images_per_class=(5, 20, 35),
        test=4,
        about="the same birds with 35 training images, which only a test set of our own (4 of each class) allows",
        options={"official": False},
    ),
    _IMAGENET,
    replace(
        _PART_OF_IMAGENET,
        name="imagenet500a",
        classes=500,
        about="the half of ImageNet's classes to train a source network on (Yosinski et al. 2014, half0A)",
        options={"half": "a", "half_seed": 0},
        images=665_000,
    ),
    replace(
        _PART_OF_IMAGENET,
        name="imagenet_natural",
        classes=449,
        about="ImageNet's natural classes (Yosinski et al. 2014), to train a source network on",
        options={"kind": "natural"},
        images=600_000,
    ),
    replace(
        _PART_OF_IMAGENET,
        name="imagenet_man_made",
        classes=551,
        about="ImageNet's man-made classes (Yosinski et al. 2014)",
        options={"kind": "man_made", "most_per_class": _ENOUGH},
        images=193_000,
    ),
)
DATASETS: dict[str, Dataset] = {row.name: row for row in (*_EMBEDDED, *_PAPER, *_BESIDE)}


def rows() -> dict[str, Dataset]:
    """The rows of this file and those that installed packages add; DataError for one that is not a `Dataset`."""
    added = (_added(point.name, point.load()) for point in entry_points(group=GROUP))
    return {row.name: row for row in added} | DATASETS


def find(name: str, *, root: Path | None = None, options: Mapping[str, Any] | None = None) -> Dataset:
    """A dataset by name, opened (`fttune.data.dataset.opened`); DataError with the nearest name when there is none."""
    known = DATASETS if name in DATASETS else rows()
    if name not in known:
        raise DataError(f"{unknown('dataset', name, known)} (or give a folder of class folders as path: DIR)")
    return opened(known[name], root=root, options=options)


def locate(target: str, *, root: Path | None = None, options: Mapping[str, Any] | None = None) -> Dataset:
    """A dataset by its name in the catalog, a folder of class folders, or `torchvision:`, `hf:` or `parquet:`."""
    kind = target.partition(":")[0]
    if kind in KINDS and kind != target:
        return given(target, target, root=root, options=options)
    if target in DATASETS or not (Path(target).is_dir() or os.sep in target):
        return find(target, root=root, options=options)
    folder = Path(target).resolve()
    return given(folder.name, f"folder:{folder}", options=options)


def folder(name: str, path: Path, *, val: int | None = None, test: int | None = None) -> Dataset:
    """A row for a folder of class folders; DataError when it is none."""
    return given(name, f"folder:{path}", val=val, test=test)


def _added(name: str, row: object) -> Dataset:
    if not isinstance(row, Dataset) or row.name != name:
        raise DataError(f"entry point '{name}' of {GROUP} must name a Dataset called '{name}', but gives {row!r:.60}")
    return row
