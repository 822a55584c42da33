"""Datasets without a row: a folder of class folders, a set of torchvision or of Hugging Face, a Parquet file."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from fttune.data.dataset import PARTS, YOURS, Dataset, kept, opened
from fttune.data.readers import FolderSource, Source
from fttune.errors import AbsentDataError, DataError, unknown

_MADE = ("FakeData",)  # sets of torchvision that read no files
VAL, TEST = 5, 10  # images of each class held out, unless told or official


def given(
    name: str,
    target: str,
    *,
    root: Path | None = None,
    options: Mapping[str, Any] | None = None,
    val: int | None = None,
    test: int | None = None,
) -> Dataset:
    """A dataset called `name`, from `folder:DIR`, `torchvision:NAME`, `hf:NAME` or `parquet:FILE`.

    With an official test set, that is the test set unless `test` says how many. Where the images are not here yet, the
    number of classes is 0. Raises DataError when they are no such set.
    """
    kind, _, place = target.partition(":")
    if kind not in KINDS:
        raise DataError(unknown("kind of dataset", kind, KINDS))
    row = opened(KINDS[kind](_bare(name, target), place, dict(options or {})), root=root, options=options)
    # Kept: to list a set again may mean to open every file of it.
    held = kept(replace(row, val=VAL if val is None else val, test=TEST if test is None else test))
    try:
        source = held.source()
    except AbsentDataError:
        return held
    official = any(ref.pool == "test" for ref in source.images)
    return replace(held, classes=len(source.classes), test=None if official and test is None else held.test)


def _bare(name: str, target: str) -> Dataset:
    return Dataset(
        name=name, classes=0, task=YOURS, images_per_class=(), val=VAL, test=TEST, source=_nowhere, about=target
    )


def _nowhere() -> Source:
    raise AbsentDataError("no images")


def _folder(row: Dataset, place: str, options: Mapping[str, Any]) -> Dataset:
    return replace(row, source=partial(FolderSource, Path(place)))


def _torchvision(row: Dataset, place: str, options: Mapping[str, Any]) -> Dataset:
    def module() -> Any:
        return import_module("fttune.data.torchvision_set")

    def read(root: Path = Path("/"), **own: Any) -> Source:
        return module().TorchvisionSet(place, root, own)

    own = {key: value for key, value in options.items() if key not in PARTS}
    download = lambda folder: module().download(place, folder, own)  # noqa: E731
    return replace(row, source=read, rooted=place not in _MADE, options=own, download=download)


def _hugging_face(row: Dataset, place: str, options: Mapping[str, Any]) -> Dataset:
    def read(**own: Any) -> Source:
        return import_module("fttune.data.huggingface").HuggingFaceSet(place, **own)

    return replace(row, source=read, options={"config": None, "image": None, "label": None})


def _parquet(row: Dataset, place: str, options: Mapping[str, Any]) -> Dataset:
    def read(**own: Any) -> Source:
        return import_module("fttune.data.parquet").ParquetSet(Path(place), **own)

    return replace(row, source=read, options={"image": "image", "label": "label", "split": "split"})


KINDS: dict[str, Callable[[Dataset, str, Mapping[str, Any]], Dataset]] = {
    "folder": _folder,
    "torchvision": _torchvision,
    "hf": _hugging_face,
    "parquet": _parquet,
}
