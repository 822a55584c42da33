"""Python's search for garbage, held back where it looks through much and finds little."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

_NEW = 10_000  # objects until the next search, many times Python's own: an import makes a hundred thousand that stay

_lock, _within = Lock(), list[bool]()  # for each block that a thread is in, whether searches ran before it


@contextmanager
def uncollected() -> Iterator[None]:
    """Search for none in a block that makes many objects which stay: an import, ten thousand runs that are read.

    Nor in any other thread's until the last such block is left.
    """
    with _lock:
        _within.append(gc.isenabled())
        gc.disable()
    try:
        yield
    finally:
        with _lock:
            searched = any(_within)
            _within.pop()
            if searched and not _within:
                gc.enable()


def seldom_collected() -> None:
    """Search less often from now on."""
    gc.set_threshold(_NEW)
