"""Where images come from: a source lists them with their classes and hands out each one's encoded bytes."""

import errno
import hashlib
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from stat import S_ISREG
from typing import Literal, Protocol

from fttune.errors import DataError

Pool = Literal["any", "train", "test"]

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
ARCHIVES = frozenset({".7z", ".bz2", ".gz", ".rar", ".tar", ".tgz", ".xz", ".zip", ".zst"})
MOST_BYTES = 2**30  # of a file that is read whole


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageRef:
    """One image of a source."""

    key: str  # unique within the source and stable, such as `cat/0001.jpg`
    label: int  # index into the source's classes
    pool: Pool = "any"  # an official split, where there is one: test images come from `test` alone


class Source(Protocol):
    """A set of images; a new layout on disk is a new class with these four."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names, in the order of the labels."""
        ...

    @property
    def images(self) -> tuple[ImageRef, ...]:
        """Every image once, in the order of the keys."""
        ...

    def fingerprint(self) -> str:
        """Changes whenever an image may have; found without reading one."""
        ...

    def read(self, ref: ImageRef) -> bytes:
        """The encoded image."""
        ...


class FolderSource:
    """A folder of class folders; images may lie deeper inside a class folder. Hidden names are left out.

    Raises DataError for a path that is no such folder, saying what to change.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not there(path, "folder"):
            what = "is a file" if there(path, "file") else "does not exist"
            hint = "; unpack it, and give the folder" if path.suffix.lower() in ARCHIVES else ""
            raise DataError(f"{path} must be a folder of class folders, but {what}{hint}")

    @property
    def classes(self) -> tuple[str, ...]:
        return self._classes

    @cached_property
    def _classes(self) -> tuple[str, ...]:
        names = sorted(entry.name for entry in self.path.iterdir() if entry.is_dir() and entry.name[0] != ".")
        if not names:
            loose = any(entry.suffix.lower() in SUFFIXES for entry in self.path.iterdir())
            hint = "; it holds images: move them into one folder per class" if loose else ""
            raise DataError(f"{self.path} must hold one folder per class, but holds none{hint}")
        if len(names) == 1:
            raise DataError(f"{self.path} must hold at least two class folders, but holds only '{names[0]}'")
        return tuple(names)

    @property
    def images(self) -> tuple[ImageRef, ...]:
        return self._images

    @cached_property
    def _images(self) -> tuple[ImageRef, ...]:
        return tuple(
            ImageRef(key=path.relative_to(self.path).as_posix(), label=label)
            for label, name in enumerate(self.classes)
            for path in self._files(name)
        )

    def fingerprint(self) -> str:
        told = hashlib.sha256(os.fsencode(self.path.resolve()))
        for name in self.classes:
            told.update(b"\n" + utf8(name, self.path))
        for ref in self.images:
            told.update(b"\n" + utf8(ref.key, self.path) + f"\0{stamp(self.path / ref.key)}".encode())
        return told.hexdigest()

    def read(self, ref: ImageRef) -> bytes:
        return content(self.file_of(ref))

    def file_of(self, ref: ImageRef) -> Path:
        """The file that an image is in."""
        return self.path / ref.key

    def _files(self, name: str) -> list[Path]:
        found: list[Path] = []
        for folder, folders, files in os.walk(self.path / name):
            folders[:] = sorted(inner for inner in folders if inner[0] != ".")
            found += [Path(folder) / file for file in files if file[0] != "." and Path(file).suffix.lower() in SUFFIXES]
        if not found:
            kinds = ", ".join(sorted(SUFFIXES))
            raise DataError(f"class folder {self.path / name} holds no image (looked for {kinds}); fill or remove it")
        return sorted(found)


def there(path: Path, kind: Literal["file", "folder"]) -> bool:
    """Whether a path is a regular file, or a folder; one that the system cannot even look up is neither."""
    try:
        return path.is_file() if kind == "file" else path.is_dir()
    except OSError:  # such as a name that is too long
        return False


def content(path: Path) -> bytes:
    """A whole file; OSError, before anything is read, for a pipe or a device, which may never end, and a huge file."""
    status = path.stat()
    if not S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "no regular file")
    if status.st_size > MOST_BYTES:
        raise OSError(errno.EFBIG, f"{status.st_size:,} bytes, more than the {MOST_BYTES:,} that are read")
    return path.read_bytes()


def utf8(name: str, place: Path) -> bytes:
    """A name of a file or class below `place`; DataError where it is none, as of a disk of another age."""
    try:
        return name.encode()
    except UnicodeEncodeError:
        raise DataError(f"{place}: a file name must be UTF-8, but one is {os.fsencode(name)!r}; rename it") from None


def stamp(path: Path) -> str:
    """Changes when a file may have: found without reading it."""
    try:
        status = path.stat()
    except OSError:
        # A broken link, say: reading it will fail too, and name it.
        return "unreadable"
    # Files out of one archive may be alike in name, size and time; no two have an inode and a time of change in common.
    return f"{status.st_size}\0{status.st_mtime_ns}\0{status.st_ino}\0{status.st_ctime_ns}"
