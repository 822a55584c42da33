"""Locks and half-written files between processes that meet."""

import errno
import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from pathlib import Path
from threading import Event as Flag
from threading import Thread, Timer

import pytest
import torch

from fttune.errors import StoreError
from fttune.files import claimed, held, locked, replacing
from fttune.training import checkpoint
from fttune.training.keeper import Keeper


def hold(path: Path, has: Event, end: Event) -> None:
    with claimed(path) as free:
        assert free
        has.set()
        end.wait(60)


@contextmanager
def holder(path: Path) -> Iterator[None]:
    """Another process that holds `path`."""
    context = get_context("spawn")
    has, end = context.Event(), context.Event()
    process = context.Process(target=hold, args=(path, has, end))
    process.start()
    try:
        assert has.wait(60)
        yield
    finally:
        end.set()
        process.join()


def test_what_one_process_holds_another_sees_and_does_not_get(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not held(path)
    with holder(path):
        assert held(path)
        with claimed(path) as free:
            assert not free
    assert not held(path)


def test_a_lock_on_a_networks_file_system_can_be_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        fcntl, "flock", fcntl.lockf
    )  # as the kernel does it there: who shares a lock must be able to read
    path = tmp_path / "lock"
    assert not held(path)
    with claimed(path) as free:
        assert free
    assert not held(path)


def test_a_look_at_a_lock_refuses_nobody(tmp_path: Path) -> None:
    import fcntl

    path = tmp_path / "lock"
    look = path.open("a")
    fcntl.flock(look, fcntl.LOCK_SH)  # as `held` does, and stays
    assert not held(path), "two may look at once"
    Timer(0.1, look.close).start()
    with claimed(path) as free:
        assert free


def test_two_that_write_one_file_at_once_do_not_share_a_half_of_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with replacing(path) as one, replacing(path) as other:
        assert one != other
        one.write_text("one")
        other.write_text("other")
    assert path.read_text() == "one"


def test_a_trial_that_two_sweeps_train_is_saved_by_both_and_fails_in_neither(tmp_path: Path) -> None:
    path, over = checkpoint.file_of(tmp_path, "trial"), Flag()

    def take_up() -> None:
        while not over.is_set():
            checkpoint.load(path, {})

    other = Thread(target=take_up)
    other.start()
    try:
        for _ in range(60):
            Keeper(path=path).save({"values": torch.zeros(100_000)})
    finally:
        over.set()
        other.join()


def test_a_file_system_without_locks_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*words: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    (tmp_path / "x").touch()
    monkeypatch.setattr(fcntl, "flock", refuse)
    for take in (claimed, locked):
        with pytest.raises(StoreError, match=r"has no locks .*FTTUNE_STATE"), take(tmp_path / "x"):
            pass
    with pytest.raises(StoreError, match="has no locks"):
        held(tmp_path / "x")
