"""Signals that end a command as Ctrl-C does."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 130  # exit code, as shells tell of SIGINT
_IMPORT = "<frozen importlib._bootstrap>"  # the file of Python's own import, as its frames name it
_SOON = 0.01  # seconds


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """Let SIGTERM, which machines are shut down with, interrupt the block as SIGINT would (main thread only)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def interrupts_heard() -> Iterator[list[int]]:
    """Note every SIGINT of the block, whatever comes of it: a library may swallow one, and break on half an import.

    One that falls into Python's import itself comes again a moment later: there it may be swallowed, and leave the lock
    locked that every import of another thread waits for.
    """
    heard: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield heard
        return

    def note(number: int, frame: FrameType | None) -> None:
        heard.append(number)
        if frame is not None and frame.f_code.co_filename == _IMPORT:
            again = threading.Timer(_SOON, os.kill, (os.getpid(), number))
            again.daemon = True
            again.start()
        else:
            before(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield heard
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def handler_kept(number: int) -> Iterator[None]:
    """Put a signal's handler back after a block that exchanges it for one of its own."""
    before = signal.getsignal(number)
    try:
        yield
    finally:
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(number, before)


@contextmanager
def interrupts_put_off() -> Iterator[None]:
    """Let a SIGINT of the block be heard at its end."""
    before = signal.getsignal(signal.SIGINT)
    if before is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    heard: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if heard:
        signal.raise_signal(signal.SIGINT)
