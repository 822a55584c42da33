"""The Ray cluster of a sweep: one that runs, or one of our own on this machine."""

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import ray
from ray._private import ray_constants
from ray._private.node import Node
from ray.exceptions import AuthenticationError

from fttune.errors import UnreachableError
from fttune.garbage import uncollected
from fttune.interrupt import handler_kept, interrupts_put_off, terminated_as_interrupted
from fttune.sweep.admission import seek_admission

# Keep freed memory in the process: training frees and asks for the same blocks at every step
# (benchmarks/allocator.py measures what it brings).
ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "4294967296",
    "MALLOC_TOP_PAD_": "268435456",
    "MALLOC_ARENA_MAX": "1",  # a job is a thread of its own, whose own arena would keep no large block
}

# A worker starts when a trial is there for it: Ray would start one for each core first, and wait for all of them.
_ON_DEMAND = {"RAY_prestart_worker_first_driver": "0"}


@contextmanager
def cluster(address: str | None, *, cpus: int | None = None, gpus: int | None = None) -> Iterator[None]:
    """A Ray cluster for the length of the block: the one at `address`, or one of our own on this machine."""
    for name, value in (ALLOCATOR | _ON_DEMAND).items():
        os.environ.setdefault(name, value)
    address = seek_admission(address) if address else None
    with terminated_as_interrupted(), nullcontext() if address else _loopback():
        _start(address, {"num_cpus": cpus, "num_gpus": gpus, "include_dashboard": False})
        try:
            yield
        finally:
            # Ray ends the process if a thread lets go of a reference while the core shuts down, as a search for garbage
            # does, and an interrupt in the midst of that.
            with interrupts_put_off(), uncollected():
                ray.shutdown()


@contextmanager
def _unattended() -> Iterator[None]:
    """Let Ray start no server of pages, no autoscaler and no forwarding of logs.

    Each is a process of its own, which a start or an end waits for. `ray.init` has no word for it.
    """
    kept = {name: getattr(Node, name) for name in ("start_api_server", "start_monitor", "start_log_monitor")}
    for name in kept:
        setattr(Node, name, lambda self, **_: None)
    try:
        yield
    finally:
        for name, method in kept.items():
            setattr(Node, name, method)


@contextmanager
def _loopback() -> Iterator[None]:
    """Let a cluster of our own listen on this machine alone, as Ray does by itself on macOS and Windows.

    `RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER` is read by Ray's processes as they start; this one has read it already. Who sets
    it means it.
    """
    name, before = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR, ray_constants.ENABLE_RAY_CLUSTER
    if name in os.environ:
        yield
        return
    os.environ[name], ray_constants.ENABLE_RAY_CLUSTER = "0", False
    try:
        yield
    finally:
        del os.environ[name]
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def _own_token() -> Iterator[None]:
    """Let nobody else read a token that Ray makes, which it writes for all to read; one that was there stays."""
    token = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    there = token.exists()
    yield
    if not there:
        with suppress(OSError):  # it made none
            token.chmod(0o600)


def _start(address: str | None, local: dict[str, Any]) -> None:
    """Join the cluster at `address`, or start one as `local` describes."""
    try:
        with handler_kept(signal.SIGTERM), _own_token(), nullcontext() if address else _unattended():
            ray.init(
                address=address or "local",
                log_to_driver=False,
                logging_level=logging.ERROR,
                **({} if address else local),
            )
    except (AuthenticationError, ConnectionError, RuntimeError, ValueError) as error:
        raise UnreachableError(f"no Ray cluster at {address or 'this machine'}: {str(error).splitlines()[0]}") from None
    except SystemExit:  # Ray's own answer to SIGTERM while it starts
        raise KeyboardInterrupt from None
