"""Python's search for garbage, held back where it looks through much and finds little."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_NEW = 10_000  # objects until the next search, of Python's 700: an import makes a hundred thousand that stay


@contextmanager
def uncollected() -> Iterator[None]:
    """Search for none in a block that makes many objects which stay: an import, ten thousand runs that are read."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def seldom_collected() -> None:
    """Search less often from now on."""
    gc.set_threshold(_NEW)
