"""What the readers of official downloads share: finding the folder, reading its lists, listing files as images."""

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath

from fttune.data.readers import ImageRef, content, stamp, there, utf8
from fttune.errors import AbsentDataError, DataError, unknown

Listing = tuple[tuple[str, ...], Iterable[ImageRef]]  # class names in the order of the labels, images


class FileSource(ABC):
    """Images that are files below `path`, their keys the paths; a layout on disk says which."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @abstractmethod
    def listing(self) -> Listing:
        """Classes and images as they lie on disk, in any order; DataError where they do not lie as they should."""

    @property
    def classes(self) -> tuple[str, ...]:
        return self._listed[0]

    @property
    def images(self) -> tuple[ImageRef, ...]:
        return self._listed[1]

    def file_of(self, ref: ImageRef) -> Path:
        """The file that an image is in."""
        return self.path / ref.key

    def fingerprint(self) -> str:
        told = hashlib.sha256(os.fsencode(self.path.resolve()))
        for name in self.classes:
            told.update(b"\n" + utf8(name, self.path))
        stamped = lru_cache(maxsize=1)(stamp)  # images in one file stand together
        for ref in self.images:
            where = utf8(ref.key, self.path)
            told.update(b"\n" + where + f"\0{ref.label}\0{ref.pool}\0{stamped(self.file_of(ref))}".encode())
        return told.hexdigest()

    def read(self, ref: ImageRef) -> bytes:
        return content(self.file_of(ref))

    @cached_property
    def _listed(self) -> tuple[tuple[str, ...], tuple[ImageRef, ...]]:
        classes, refs = self.listing()
        return classes, tuple(sorted(refs, key=lambda ref: ref.key))


def home(dataset: str, root: Path, *, folders: Sequence[str], holds: str, archives: str) -> Path:
    """The folder of an official download: the first of root, root/dataset and the `folders` in these with `holds`.

    `holds` is a glob. Raises AbsentDataError, which names what was looked for and, where one lies there, the archive
    to unpack.
    """
    if not there(root, "folder"):
        what = "it is a file; unpack an archive first" if there(root, "file") else "there is no such folder"
        raise AbsentDataError(f"no {dataset} under {root}: {what}")
    tried = [base / inner for base in (root, root / dataset) for inner in ("", *folders)]
    for folder in tried:
        if next(folder.glob(holds), None):
            return folder
    packed = next((path for base in (root, root / dataset) for path in sorted(base.glob(archives))), None)
    hint = f"; unpack {packed} there first" if packed else ""
    raise AbsentDataError(
        f"no {dataset} under {root}: looked for {holds} in it and in {', '.join((dataset, *folders))}{hint}"
    )


def read_list(path: Path) -> Iterator[tuple[str, str]]:
    """Each line of an official list that is not empty, with its place for messages; DataError for a missing list."""
    try:
        lines = content(path).decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise DataError(f"{path}: cannot read this list of the official download: {reason}") from None
    return ((f"{path}, line {number}", line.strip()) for number, line in enumerate(lines, start=1) if line.strip())


def inside(folder: Path, listed: str, place: str) -> str:
    """A path from a list, in POSIX form; DataError when it would leave `folder` or no file is there."""
    inner = PurePosixPath(listed)
    if inner.is_absolute() or ".." in inner.parts:
        raise DataError(f"{place}: a listed path must stay inside {folder}, but got '{listed:.200}'")
    if not there(folder / inner, "file"):
        raise DataError(f"{place}: '{listed:.200}' is listed, but there is no such file in {folder}")
    return inner.as_posix()


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """DataError, with the nearest right value, unless `value` is one of the choices of an option."""
    if value not in choices:
        raise DataError(unknown(name, str(value), choices))


def check_count(name: str, value: object, least: int) -> None:
    """DataError unless `value` is a whole number from `least`."""
    if not isinstance(value, int) or value < least:
        raise DataError(f"{name} must be a whole number from {least}, but got {value!r}")


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, by name, hidden ones left out."""
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != ".")


def files(folder: Path, pattern: str) -> list[Path]:
    """The files of a class folder that match, by name; DataError when there is none."""
    found = sorted(path for path in folder.glob(pattern) if path.is_file())
    if not found:
        raise DataError(f"class folder {folder} holds no image (looked for {pattern})")
    return found
