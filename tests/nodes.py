"""A node of Ray that is started by a command, for the length of a block."""

import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager


@contextmanager
def ray_node(
    command: Sequence[str], environment: Mapping[str, str], end: signal.Signals = signal.SIGTERM
) -> Iterator[subprocess.Popen[str]]:
    """The process of a `ray start --block`, once Ray runs; `end` ends it."""
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout
    try:
        assert any("Ray runtime started" in line for line in process.stdout)
        yield process
    finally:
        process.send_signal(end)
        process.communicate(timeout=60)
