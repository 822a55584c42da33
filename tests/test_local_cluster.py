"""A cluster of our own: where it listens, how a signal is heard beside it, and how it is left."""

import stat
import subprocess
import sys
from pathlib import Path

import pytest


def run_python(code: str) -> str:
    """What a program prints that ends well."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_being_terminated_is_an_interrupt_while_ray_runs_and_after_its_end_too() -> None:
    code = """
import os, signal, time
from fttune.interrupt import terminated_as_interrupted
from fttune.sweep.cluster import cluster

def terminated():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(100):  # another thread may be the one that the signal wakes
            time.sleep(0.1)
    except KeyboardInterrupt:
        return True

with terminated_as_interrupted():
    with cluster(None, cpus=1):
        print(terminated())
    print(terminated())
"""
    assert run_python(code).split() == ["True", "True"]


def test_it_listens_on_this_machine_alone() -> None:
    code = """
import time
import psutil, ray
from fttune.sweep.cluster import cluster

def listeners():
    us = psutil.Process()
    for process in (us, *us.children(recursive=True)):
        for one in process.net_connections("inet"):
            if one.status == psutil.CONN_LISTEN:
                yield " ".join(process.cmdline()), one.laddr.ip

with cluster(None, cpus=1):
    ray.get(ray.remote(lambda: 1).remote())
    parts = ("gcs_server", "raylet", "runtime_env", "ray::")
    while not all(any(part in words for words, _ in listeners()) for part in parts):
        time.sleep(0.1)
    print(*(address for _, address in listeners()))
"""
    assert {place.removeprefix("::ffff:") for place in run_python(code).split()} == {"127.0.0.1"}


def test_no_worker_starts_before_there_is_a_trial_for_it() -> None:
    code = """
import time
import psutil, ray
from fttune.sweep.cluster import cluster

def workers():
    return sum("ray::IDLE" in " ".join(one.cmdline()) for one in psutil.Process().children(recursive=True))

with cluster(None, cpus=2):
    before = workers()
    ray.get(ray.remote(lambda: 1).remote())
    while not workers():
        time.sleep(0.1)
    print(before)
"""
    assert run_python(code).split() == ["0"]


def test_nobody_else_may_read_the_token_that_opens_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    run_python("from fttune.sweep.cluster import cluster\nwith cluster(None, cpus=1): pass")
    assert stat.S_IMODE((tmp_path / ".ray" / "auth_token").stat().st_mode) == 0o600


def test_garbage_in_another_thread_does_not_end_the_process_that_leaves_it() -> None:
    code = """
import threading, time
import ray
from fttune.sweep.cluster import cluster

class Knot:
    def __init__(self, ref):
        self.me, self.ref = self, ref

def tie(refs):
    while refs:
        Knot(refs.pop())
        [[] for _ in range(1000)]  # enough for the collector to look
        time.sleep(0.0002)

with cluster(None, cpus=1):
    refs = [ray.put(number) for number in range(5000)]
    threading.Thread(target=tie, args=[refs], daemon=True).start()
print(0 < len(refs) < 5000)
"""
    assert run_python(code).split() == ["True"]


def test_an_interrupt_while_it_is_left_comes_once_it_has_been_left() -> None:
    code = """
import os, signal, threading, time
import ray
from fttune.sweep.cluster import cluster

leaving = threading.Event()

def interrupt():
    leaving.wait()
    while leaving.is_set():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)

threading.Thread(target=interrupt, daemon=True).start()
try:
    with cluster(None, cpus=1):
        refs = [ray.put(number) for number in range(1000)]
        shutdown = ray.shutdown
        def shut_down():
            leaving.set()
            shutdown()
            leaving.clear()
        ray.shutdown = shut_down
except KeyboardInterrupt:
    print("interrupted", ray.is_initialized())
"""
    assert run_python(code).split() == ["interrupted", "False"]
