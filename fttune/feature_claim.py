"""Which showings a process computes features of: others compute the rest meanwhile, and wait for those."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from fttune.files import claimed, held


@contextmanager
def claim(folder: Path, showings: np.ndarray) -> Iterator[None]:
    """Hold showings, int64 [n], for the length of the block; the kernel lets go of those of a process that dies."""
    path = folder / f".{os.getpid()}-{secrets.token_hex(4)}.claim"
    with claimed(path):
        try:
            path.write_bytes(showings.tobytes())
            yield
        finally:
            path.unlink(missing_ok=True)


def claims(folder: Path) -> dict[Path, np.ndarray]:
    """The showings that living processes hold, by file; what dead ones left is removed.

    Like `claim` to be called by one at a time.
    """
    found: dict[Path, np.ndarray] = {}
    for path in sorted(folder.glob(".*.claim")):
        if held(path):
            with suppress(OSError):  # let go of since
                found[path] = np.frombuffer(path.read_bytes(), np.int64)
        elif os.access(path, os.R_OK):
            path.unlink(missing_ok=True)
        elif path.exists():  # another user's, whose process may live
            found[path] = np.empty(0, np.int64)
    return found
