"""A write-ahead log of events on their way to the tracker: one JSON line each, kept until it is delivered."""

import fcntl
import itertools
import json
import os
from collections import deque
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Literal, get_args

from fttune.errors import StoreError
from fttune.files import writing

Kind = Literal["started", "point", "finished", "stopped", "distance", "adopted"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """Something that happened in a sweep."""

    number: int  # counts up within a spool
    at: int  # milliseconds since 1970, when it happened
    kind: Kind
    key: str  # the trial or measurement it belongs to
    body: dict[str, Any]


class Spool:
    """The events that are not yet delivered, in memory and on disk.

    `append` hands a line to the kernel, so it outlives `kill -9` of the process at once, and a power cut after the
    next `sync`. The file only ever grows: a delivery is one more line, and once nothing waits the file is emptied. A
    last line that a kill left half-written was never promised to anyone: it is cut off, and `torn` tells its bytes.
    Raises StoreError when another process holds the spool or a line inside it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = Lock()
        with writing(path.parent):
            self._file = path.open("a+b", buffering=0)
        try:
            self._claim()
            whole, self.torn = _split(path.read_bytes())
            self._waiting = deque(self._load(whole))
            self._owed = deque[Event]()  # those of them that are not in the file: the disk was full
            if self.torn:
                self._file.truncate(len(whole))
        except BaseException:
            self._file.close()
            raise

    def __len__(self) -> int:
        return len(self._waiting)

    def append(self, *, at: int, kind: Kind, key: str, body: dict[str, Any]) -> None:
        """Keep an event; when the disk refuses it, StoreError says so and it is kept in memory alone."""
        with self._lock:
            self._last += 1
            event = Event(number=self._last, at=at, kind=kind, key=key, body=body)
            self._waiting.append(event)
            self._owed.append(event)
            self._pay()

    def head(self, count: int) -> list[Event]:
        """The first `count` events that wait, in the order in which they happened."""
        with self._lock:
            return list(itertools.islice(self._waiting, count))

    def drop(self, number: int) -> None:
        """Forget the events up to `number`: they are delivered."""
        with self._lock:
            while self._waiting and self._waiting[0].number <= number:
                self._waiting.popleft()
            while self._owed and self._owed[0].number <= number:
                self._owed.popleft()
            if self._waiting:
                self._write({"delivered": number})
            else:
                self._file.truncate(0)

    def sync(self) -> None:
        """Wait until the disk has every line; StoreError where it refuses, as one on a network does only now."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise StoreError(f"{self._path}: cannot write the spool: {error.strerror}") from None

    def close(self) -> int:
        """Let go of the file; what waits stays in it, but for so many events that the disk may not have."""
        with suppress(StoreError):
            self._pay()
        lost = len(self._owed)
        try:
            self.sync()
        except StoreError:
            lost = len(self._waiting)
        self._file.close()
        return lost

    def _pay(self) -> None:
        while self._owed:
            self._write(asdict(self._owed[0]))
            self._owed.popleft()

    def _claim(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(f"{self._path}: another process runs this sweep and holds its spool") from None

    def _load(self, whole: bytes) -> list[Event]:
        events: list[Event] = []
        delivered = 0
        for line, text in enumerate(whole.splitlines(), start=1):
            try:
                row = json.loads(text)
                if row.keys() == {"delivered"}:
                    delivered = row["delivered"]
                elif row["kind"] in get_args(Kind):
                    events.append(Event(**row))
                else:
                    raise ValueError(row["kind"])
            except (ValueError, TypeError, LookupError, AttributeError):
                raise StoreError(
                    f"{self._path}, line {line}: not an event of a sweep; move the file away to go on without it"
                ) from None
        self._last = max([delivered, *(event.number for event in events)])
        return [event for event in events if event.number > delivered]

    def _write(self, row: dict[str, Any]) -> None:
        """One line in one system call; what a full disk took of it is taken back."""
        line = json.dumps(row).encode() + b"\n"
        size = os.fstat(self._file.fileno()).st_size
        try:
            written = self._file.write(line)
        except OSError as error:
            raise StoreError(f"{self._path}: cannot write the spool: {error.strerror}") from None
        if written != len(line):
            self._file.truncate(size)
            raise StoreError(f"{self._path}: cannot write the spool: no room left")


def _split(content: bytes) -> tuple[bytes, int]:
    """The lines that end, and the number of bytes behind them."""
    end = content.rfind(b"\n") + 1
    return content[:end], len(content) - end
