"""Moorea Labeled Corals (Beijbom et al. 2012): points in photographs of the sea floor, each with a label."""

import hashlib
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Literal, get_args

import numpy as np
from PIL import Image

from fttune.data.decode import CorruptImageError, encode, opened
from fttune.data.layout import FileSource, Listing, check_choice, check_count, home, read_list
from fttune.data.readers import ImageRef, Pool, content
from fttune.errors import DataError

Labels = Literal["major", "all"]
Group = Literal["point", "photo", "quadrat"]
Absent = Literal["refuse", "skip"]

# 96 % of the points carry one of these (Beijbom et al. 2012); the first four are no corals.
MAJOR = ("cca", "turf", "macro", "sand", "acrop", "pavon", "monti", "pocill", "porit")
_OFF = "off"  # a point outside the quadrat
_SUFFIXES = (".jpg", ".jpeg", ".png")
_DATED = re.compile(r"(mcr_lter\d_\w+_pole\d+-\d+_qu\d+)_\d{8}")
_TEST_SHARE = 0.4  # of the photographs, where they are kept apart: the paper's 300 of 800 points, and some to spare
_POINT = re.compile(r"(\d{1,9})\s*;\s*(\d{1,9})\s*;\s*(.+)")  # row; column; label


class Coral(FileSource):
    """`2008/mcr_lter1_..._20080415.jpg` and, beside it, `....jpg.txt` with lines `671; 217; Sand` (row; column; label).

    An image is the square of `patch` pixels around a point, the photograph mirrored at its edges; labels count without
    their case. `labels: major` keeps the nine that cover 96 % of the points. With `group`, all points of a photograph,
    or of a quadrat in all years, are on one side of the test split: neighbours, and a quadrat's years, look alike.
    Photographs that are annotated but absent are refused, or left out with `absent: skip`.
    """

    def __init__(
        self,
        root: Path,
        *,
        patch: int = 224,
        labels: Labels = "major",
        group: Group = "point",
        absent: Absent = "refuse",
    ) -> None:
        check_count("patch", patch, 8)
        for name, value, kind in (("labels", labels, Labels), ("group", group, Group), ("absent", absent, Absent)):
            check_choice(name, value, get_args(kind))
        super().__init__(home("coral", root, folders=(), holds="20[0-9][0-9]/*.txt", archives="MCR_LTER_*.zip"))
        self._patch, self._labels, self._group, self._absent = patch, labels, group, absent
        self._lock, self._decoded = Lock(), lru_cache(maxsize=4)(self._decode)

    def fingerprint(self) -> str:
        return f"{super().fingerprint()} patch {self._patch}"

    def listing(self) -> Listing:
        points = list(self._points())
        found = {label for _, label in points}
        names = tuple(sorted(found & set(MAJOR) if self._labels == "major" else found))
        numbers = {name: number for number, name in enumerate(names)}
        return names, (
            ImageRef(key=key, label=numbers[label], pool=self._pool(key)) for key, label in points if label in numbers
        )

    def read(self, ref: ImageRef) -> bytes:
        name, _, place = ref.key.partition("@")
        row, column = map(int, place.split(","))
        with self._lock:  # the threads of a decoder want the same photograph at once
            photo = self._decoded(name)
        if row > photo.shape[0] or column > photo.shape[1]:  # counted from 0 or from 1: nowhere is it said
            raise CorruptImageError(f"the point lies outside the photograph, {photo.shape[0]} x {photo.shape[1]}")
        return encode(Image.fromarray(_cut(photo, row, column, self._patch)))

    def file_of(self, ref: ImageRef) -> Path:
        return self.path / ref.key.partition("@")[0]

    def _points(self) -> Iterator[tuple[str, str]]:
        """Keys `2008/photo.jpg@row,column` and labels, each point once."""
        texts = sorted(self.path.glob("20[0-9][0-9]/*.txt"))
        lists = [path for path in texts if Path(path.stem).suffix.lower() in _SUFFIXES]  # others are of no photograph
        photos = {path: self._photo_of(path) for path in lists}
        missing = [path.relative_to(self.path).as_posix() for path, photo in photos.items() if not photo]
        if missing and self._absent == "refuse":
            raise DataError(
                f"{self.path}: {len(missing)} annotated photographs are not there, such as the one of {missing[0]}; "
                "put them back, or leave them out with the option absent: skip"
            )
        for path, photo in photos.items():
            if photo:
                yield from _read_points(path, photo).items()

    def _photo_of(self, path: Path) -> str | None:
        """The photograph that an annotation is of; some were released under another suffix."""
        named = path.with_suffix("")
        candidates = (named, *(named.with_suffix(suffix) for suffix in _SUFFIXES))
        return next((f"{path.parent.name}/{photo.name}" for photo in candidates if photo.is_file()), None)

    def _pool(self, key: str) -> Pool:
        if self._group == "point":
            return "any"
        name = key.partition("@")[0]
        dated = _DATED.search(name) if self._group == "quadrat" else None
        share = int.from_bytes(hashlib.sha256((dated[1] if dated else name).encode()).digest()[:4]) / 2**32
        return "test" if share < _TEST_SHARE else "train"

    def _decode(self, name: str) -> np.ndarray:
        with opened(content(self.path / name)) as photo:
            return np.asarray(photo.convert("RGB"))


def _read_points(path: Path, photo: str) -> dict[str, str]:
    """Keys and labels of an annotation; of two labels on one point the first counts."""
    points: dict[str, str] = {}
    for place, line in read_list(path):
        found = _POINT.fullmatch(line)
        if not found and not line.startswith("#"):
            raise DataError(f"{place}: must read '<row>; <column>; <label>', but got '{line:.200}'")
        if found and (label := found[3].casefold()) != _OFF:
            points.setdefault(f"{photo}@{found[1]},{found[2]}", label)
    return points


def _cut(photo: np.ndarray, row: int, column: int, side: int) -> np.ndarray:
    """uint8 [side, side, 3] around a point of a photograph [H, W, 3], mirrored beyond its edges."""
    top, left = row - side // 2, column - side // 2
    rows, columns = (_mirrored(start, side, length) for start, length in zip((top, left), photo.shape[:2], strict=True))
    return photo[rows[:, None], columns]


def _mirrored(start: int, count: int, length: int) -> np.ndarray:
    """Positions start, start + 1, ... folded back into 0 .. length - 1, the edge itself not repeated."""
    period = max(1, 2 * (length - 1))
    places = np.abs(np.arange(start, start + count)) % period
    return np.minimum(places, period - places) if length > 1 else np.zeros(count, np.int64)
