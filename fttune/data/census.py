"""What was met while a dataset was decoded: images kept and left out, exact copies, and what is wrong with it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from fttune.data.journal import Note
from fttune.data.readers import ImageRef, Source
from fttune.errors import DataError
from fttune.trial import digest as digest_of

Corrupt = Literal["refuse", "skip"]
_NAMED = 3  # images named in an error
_SKIP = "data.corrupt: skip in a sweep file or a recipe, --skip-corrupt at a command without one"


@dataclass(kw_only=True, slots=True)
class Census:
    """What was met while decoding a dataset."""

    source: Source
    skipped: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)  # why, for each of these
    copies: list[str] = field(default_factory=list)
    clashes: list[tuple[str, str]] = field(default_factory=list)  # keys of equal files in two classes
    kept: list[tuple[str, int, str, str]] = field(default_factory=list)  # key, label, pool, SHA-256 of the bytes
    seen: dict[str, ImageRef] = field(default_factory=dict)  # by SHA-256, the first of each
    tested: dict[str, ImageRef] = field(default_factory=dict)  # of an official test set, by SHA-256

    def admit(self, ref: ImageRef, sha: str) -> bool:
        """Whether an image enters the store: an exact copy would put a training image into the test set.

        An official test set is whole whatever else is there, and so is what may be trained on beside it, but for copies
        of the test images: where the sides are given, copies on one side stay there.
        """
        first = self.tested.get(sha) if ref.pool != "test" else None
        first = first or self.seen.setdefault(sha, ref)
        alike = (first.pool, first.label) == (ref.pool, ref.label) and first.key != ref.key
        if first is ref or (alike and self.tested):
            self.kept.append((ref.key, ref.label, ref.pool, sha))
            return True
        self.copies.append(ref.key)
        if first.label != ref.label:
            self.clashes.append((first.key, ref.key))
        return False

    def take(
        self, chunk: Iterable[tuple[ImageRef, tuple[str, np.ndarray | str]]]
    ) -> tuple[list[ImageRef], list[np.ndarray], Note]:
        """The images of a chunk that enter the store, and what to note of it; a text says why there is no image."""
        before = {name: len(values) for name, values in self._lists.items()}
        rows: list[ImageRef] = []
        images: list[np.ndarray] = []
        count = 0
        for ref, (sha, image) in chunk:
            count += 1
            if isinstance(image, str):
                self.skipped.append(ref.key)
                self.reasons.append(image)
            elif self.admit(ref, sha):
                rows.append(ref)
                images.append(image)
        return rows, images, {"images": count} | {name: values[before[name] :] for name, values in self._lists.items()}

    def recall(self, note: Note) -> int:
        """Take over what an earlier process noted of a chunk; the images of the source that it went through."""
        self.skipped += note["skipped"]
        self.reasons += note["reasons"]
        self.copies += note["copies"]
        self.clashes += [(first, second) for first, second in note["clashes"]]
        for key, label, pool, sha in note["kept"]:
            self.kept.append((key, label, pool, sha))
            self.seen.setdefault(sha, ImageRef(key=key, label=label, pool=pool))
        return note["images"]

    @property
    def _lists(self) -> dict[str, list[Any]]:
        return {
            "skipped": self.skipped,
            "reasons": self.reasons,
            "copies": self.copies,
            "clashes": self.clashes,
            "kept": self.kept,
        }

    @property
    def facts(self) -> dict[str, object]:
        content = {"classes": self.source.classes, "images": sorted(self.kept)}
        return {
            "digest": digest_of(content),
            "classes": self.source.classes,
            "skipped": self.skipped,
            "copies": self.copies,
        }

    def check(self, name: str, corrupt: Corrupt) -> None:
        """Raise DataError for what the dataset must not hold, unless it is to be skipped."""
        corrupted = [f"{key} ({reason})" for key, reason in zip(self.skipped, self.reasons, strict=True)]
        if not self.kept:
            such = f": {_some(corrupted)}" if corrupted else ""
            raise DataError(f"dataset '{name}' holds no image that can be decoded{such}")
        if corrupt == "skip":
            return
        if self.skipped:
            images = "1 corrupt image" if len(self.skipped) == 1 else f"{len(self.skipped)} corrupt images"
            raise DataError(
                f"dataset '{name}' has {images}: {_some(corrupted)}; mend or remove them, or leave them out: {_SKIP}"
            )
        if self.clashes:
            raise DataError(
                f"dataset '{name}': an image must stand in one class, but these are the same file:"
                f" {_some([f'{first} and {second}' for first, second in self.clashes])}; "
                f"remove one of each, or keep the first: {_SKIP}"
            )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
