"""What a dataset holds on this machine: found on disk, held against its row in the catalog, and decoded."""

import os
from pathlib import Path

import numpy as np

from fttune.data.classes import Part, sizes, too_small
from fttune.data.dataset import ROOT, Dataset
from fttune.data.readers import Source
from fttune.data.store import ImageStore
from fttune.errors import DataError
from fttune.files import place
from fttune.sweep.ground import decode
from fttune.terminal import Decoding, Row
from fttune.trial import Resize, stored_size

IMAGE_SIZE = 224  # pixels, where none is asked for
_NAMED = 5  # classes named in a line


def download(row: Dataset, root: Path | None) -> None:
    """Fetch the official download of a dataset into `root` or FTTUNE_DATA; DataError where nobody can."""
    if row.download is None:
        raise DataError(f"dataset '{row.name}' cannot be downloaded by fttune: docs/data.md says where it is published")
    if root is None and not os.environ.get(ROOT):
        raise DataError(f"--download needs a folder to put {row.name} into: --data-root DIR, or {ROOT}")
    row.download(root or Path(os.environ[ROOT]).expanduser())


def found(row: Dataset, source: Source) -> Row:
    """Classes, images and the smallest class as they lie on disk, beside what the row says they should be."""
    official = [ref.label for ref in source.images if ref.pool == "test"]
    counts = np.array(sizes(source))
    own = counts - np.bincount(official, minlength=len(counts))  # to train and select on, and to test on if need be
    least = int(own.argmin())
    return {
        "dataset": row.name,
        "classes": len(source.classes),
        "classes expected": row.classes or None,
        "images": len(source.images),
        "images on disk": len(_whole(source).images),
        "official test images": len(official) or None,
        "smallest class": source.classes[least],
        "its images": int(own[least]),
        "images needed": row.needed - (row.test or 0) * bool(official) if row.images_per_class else None,
        "left out as too small": list(too_small(source)),
        "overlap": row.overlap or None,
    }


def _whole(source: Source) -> Source:
    """What a part was taken of."""
    while isinstance(source, Part):
        source = source.whole
    return source


def summary(facts: Row) -> str:
    """One line, before anything is decoded."""
    return (
        f"{facts['dataset']}: {facts['classes']} classes, {facts['images']:,} of {facts['images on disk']:,} images"
        f" on disk, {facts['its images']:,} in the smallest class ({facts['smallest class']})"
    )


def remarks(facts: Row) -> list[str]:
    """What is not as the catalog expects it; told, not refused: a part of a download is a dataset too."""
    lines = []
    if facts["classes expected"] not in (None, facts["classes"]):
        lines.append(f"{facts['classes']} classes are used, the catalog expects {facts['classes expected']}")
    if facts["images needed"] is not None and facts["its images"] < facts["images needed"]:
        lines.append(f"the largest usual split needs {facts['images needed']} images of every class")
    if dropped := facts["left out as too small"]:
        more = f" and {len(dropped) - _NAMED} more" if len(dropped) > _NAMED else ""
        lines.append(f"{len(dropped)} classes are left out as too small: {', '.join(dropped[:_NAMED])}{more}")
    return lines + ([facts["overlap"]] if facts["overlap"] else [])


def prepared(row: Dataset, *, image_size: int | None, resize: Resize, skip_corrupt: bool) -> Row:
    """Decode a dataset and say what the store holds of it; goes on where an earlier call was interrupted."""
    with Decoding() as progress:
        corrupt = "skip" if skip_corrupt else "refuse"
        size = stored_size(image_size or IMAGE_SIZE)
        store = decode(row, size, resize, corrupt, place("store"), progress)
    return _stored(store)


def _stored(store: ImageStore) -> Row:
    counts = np.bincount(store.labels, minlength=len(store.classes))
    return {
        "decoded images": len(store.labels),
        "smallest class decoded": f"{store.classes[counts.argmin()]} ({counts.min()} images)",
        "largest class decoded": f"{store.classes[counts.argmax()]} ({counts.max()} images)",
        "left out as corrupt": len(store.skipped),
        "left out as exact copies": len(store.copies),
        "stored side": store.size,
        "digest": store.digest,
    }
