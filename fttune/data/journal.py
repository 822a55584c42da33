"""A file in the making that a killed process leaves to the next: chunks of bytes, and a journal of the whole ones."""

import json
import os
import zlib
from collections.abc import Mapping, Sequence
from io import FileIO
from itertools import takewhile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

Note = Mapping[str, Any]  # what is known of a chunk, as JSON


class Partial:
    """`STEM.part` and `STEM.journal`. The caller holds a lock on the stem.

    A chunk is on the disk before the journal tells of it. What the journal does not tell of, or was written for other
    `terms`, is dropped when the file is taken up again.
    """

    def __init__(self, stem: Path, *, terms: Mapping[str, Any], head: bytes) -> None:
        self.stem = stem
        self._data, self._journal = stem.with_suffix(".part"), stem.with_suffix(".journal")
        self._terms, self._head = dict(terms), head
        self._files: list[FileIO] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files:
            file.close()

    def take_up(self) -> list[Note]:
        """Open for appending; the notes of the chunks that are there already."""
        lines = self._whole_lines()
        if not lines:
            self.remove()
            self._open()
            self._write(self._head, self._terms)
            return []
        self._open()
        os.truncate(self._data, lines[-1]["end"])
        os.truncate(self._journal, sum(map(len, map(_line, lines))))
        return [line["note"] for line in lines[1:]]

    def append(self, content: bytes | memoryview, note: Note) -> None:
        self._write(content, note)

    def finish(self, tail: bytes, path: Path) -> None:
        """Make the data, with a tail, the file at `path`; whole or not at all."""
        _write(self._files[0], tail)
        self._data.replace(path)
        self._journal.unlink()

    def remove(self) -> None:
        for path in (self._data, self._journal):
            path.unlink(missing_ok=True)

    def remove_ours(self) -> None:
        """Remove what an earlier process left for the same terms: a journal without data too."""
        if self._are_ours(self._told()):
            self.remove()

    def _open(self) -> None:
        self._files = [path.open("ab", buffering=0) for path in (self._data, self._journal)]

    def _write(self, content: bytes | memoryview, note: Note) -> None:
        data, journal = self._files
        _write(data, content)
        _write(journal, _line({"end": self._data.stat().st_size, "note": note}))

    def _whole_lines(self) -> list[dict[str, Any]]:
        """The lines of our journal up to the first that is damaged or tells of more data than there is."""
        size = self._data.stat().st_size if self._data.exists() else 0
        lines = self._told()
        return list(takewhile(lambda line: line["end"] <= size, lines)) if self._are_ours(lines) else []

    def _are_ours(self, lines: Sequence[dict[str, Any]]) -> bool:
        return bool(lines) and lines[0]["note"] == self._terms

    def _told(self) -> list[dict[str, Any]]:
        """The lines of the journal up to the first that is damaged."""
        content = self._journal.read_bytes() if self._journal.exists() else b""
        parts = (text.rpartition(b" ") for text in content.split(b"\n")[:-1])
        return [json.loads(told) for told, _, _ in takewhile(lambda part: part[2] == _check(part[0]), parts)]


def _line(value: Mapping[str, Any]) -> bytes:
    told = json.dumps(value).encode()
    return told + b" " + _check(told) + b"\n"


def _check(told: bytes) -> bytes:
    """A line may be damaged and JSON still: a wrong digit would name the store wrongly."""
    return b"%08x" % zlib.crc32(told)


def _write(file: FileIO, content: bytes | memoryview) -> None:
    """All of it, on the disk. Unbuffered, so that a full disk is met here and not again when the file is closed."""
    left = memoryview(content)
    while left:
        left = left[file.write(left) :]
    os.fsync(file.fileno())
