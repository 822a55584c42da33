"""Files of our own: where they lie, written whole or not at all, and locked against a second writer."""

import errno
import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from fttune.errors import DataError, StoreError

# Each place and the environment variable that moves it.
_PLACES = {
    "store": "FTTUNE_STORE",
    "features": "FTTUNE_CACHE",
    "state": "FTTUNE_STATE",
    "networks": "FTTUNE_NETWORKS",
}
_A_LOOK = 0.5  # seconds, more than anybody who looks at a lock keeps it


def place(name: str) -> Path:
    """The folder for `store` (decoded images), `features` (frozen activations), `state` (spools, locks) or `networks`.

    Networks that were trained here lie under the user's data folder, the others under the cache folder, unless their
    variable (FTTUNE_STORE, FTTUNE_CACHE, FTTUNE_STATE, FTTUNE_NETWORKS) is set.
    """
    moved = os.environ.get(_PLACES[name])
    if moved:
        return Path(moved).expanduser().absolute()
    if name == "networks":
        return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "fttune" / name
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fttune" / name


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Make a folder, and turn what can go wrong while writing into it into one line that says how to move it."""
    variable = next((v for n, v in _PLACES.items() if folder.is_relative_to(place(n))), None)
    hint = f"; set {variable} to move it" if variable else ""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StoreError(f"no room left in {folder}{hint}") from None
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.ENOENT):
            raise DataError(f"cannot write to {folder}: {error.strerror}{hint}") from None
        raise


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path` to write to; it takes the place of `path` only when the block succeeds."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")  # machines share folders
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold `path` + `.lock` alone; waits for another holder. The kernel drops the lock of a process that dies.

    What a killed holder left half-written beside `path` is removed, since nobody else can be writing it.
    """
    with path.with_name(f".{path.name}.lock").open("w") as lock:
        _flock(lock, fcntl.LOCK_EX)
        for left in path.parent.glob(f".{path.name}.*.tmp"):
            left.unlink(missing_ok=True)
        yield


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Try to hold `path` alone; gives whether it was free. It waits out those who only look whether it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as lock:
        end = time.monotonic() + _A_LOOK
        while not (free := _try(lock, fcntl.LOCK_EX)) and time.monotonic() < end:
            time.sleep(0.02)
        yield free


def held(path: Path) -> bool:
    """Whether somebody holds `path` alone, as far as can be told."""
    try:
        # To be read: where locks go by a network's file system, who shares one must be able to read.
        with path.open() as lock:
            return not _try(lock, fcntl.LOCK_SH)  # with others who look at the same time
    except OSError:
        return False


def await_free(path: Path) -> None:
    """Wait until nobody holds `path` alone, or it is gone, which a network's file system tells of in its own way."""
    try:
        with path.open() as lock:
            _flock(lock, fcntl.LOCK_SH)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ESTALE):
            raise


def _try(lock: IO[str], how: int) -> bool:
    try:
        _flock(lock, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _flock(lock: IO[str], how: int) -> None:
    try:
        fcntl.flock(lock, how)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):
            raise
        raise StoreError(
            f"{lock.name}: the file system there has no locks ({error.strerror}), without which processes would write"
            " over each other; FTTUNE_STORE, FTTUNE_CACHE and FTTUNE_STATE move the folders"
        ) from None
