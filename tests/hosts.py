"""Two hosts on one machine, joined by a cable: `python tests/hosts.py FOLDER [CASE ...]`, as root on a Linux with ip.

A host is a namespace each for the network, processes, mounts and the name. Ray's head runs on the first, the driver
beside it, another node on the second, one core each; they share FOLDER. What becomes of the second, by case:

- `cable`: cut off while both hosts train
- `own`: has a store of its own, empty, and decodes for itself
- `room`: has a store of its own without room for the images

At the end every trial must have one run in MLflow, each step of its curve once, and the result of an undisturbed run.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from nodes import ray_node

from fttune.tracking.runs import Tracker
from small_sweeps import SIDE_BY_SIDE, Driver, assert_as_if_nothing_had_happened, database, write_sweep

_GRID = {
    "datasets": {"mine": {"path": "photos", "images_per_class": [2, 5], "val": 3, "test": 5}},
    "backbones": ["tiny"],
    "random_top": [1, 2, 3],
    "seeds": [0, 1],
    "modes": ["tune"],
}
_STEPS = (1000, 2000, 3000)
_TRAIN = {"lr": 0.05, "steps": 3000, "batch_size": 6, "image_size": 32, "report_every": 1000, "views": "flip"}
_TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a" * 64}
_STORES = {"own": "size=64M", "room": "size=64k"}  # of the second host, where it has one


@dataclass(frozen=True, kw_only=True, slots=True)
class Host:
    """One of the two, with a Ray node on it."""

    name: str
    process: subprocess.Popen[str]

    @property
    def inside(self) -> list[str]:
        """What a command begins with to run there."""
        pid = self.process.pid
        (first,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return ["nsenter", f"--target={first}", "--mount", "--uts", "--net", "--pid", f"--wd={Path.cwd()}"]

    def sees(self, path: Path) -> list[str]:
        """The files below a folder, there."""
        return subprocess.check_output([*self.inside, "find", path, "-type", "f"], text=True).split()


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


@contextmanager
def cable() -> Iterator[None]:
    """The namespaces `one` and `two`, 10.77.0.1 and 10.77.0.2."""
    ip("netns", "add", "one")  # one that is there already is not ours to delete
    ip("netns", "add", "two")
    try:
        ip("link", "add", "cable1", "netns", "one", "type", "veth", "peer", "name", "cable2", "netns", "two")
        for number, name in enumerate(("one", "two"), start=1):
            ip("-n", name, "address", "add", f"10.77.0.{number}/24", "dev", f"cable{number}")
            for link in ("lo", f"cable{number}"):
                ip("-n", name, "link", "set", link, "up")
        yield
    finally:
        for name in ("one", "two"):
            subprocess.run(["ip", "netns", "delete", name], check=False)


@contextmanager
def host(name: str, temp: Path, store: str | None, *words: str) -> Iterator[Host]:
    """A node of Ray, for the length of the block; `store`: mount options of a store of its own."""
    ray = f"{Path(sys.executable).with_name('ray')} start --block --num-cpus=1 --disable-usage-stats {' '.join(words)}"
    own = f"mount -t tmpfs -o {store} none {os.environ['FTTUNE_STORE']} && " if store else ""
    script = f"hostname {name} && mount -t tmpfs none {temp} && {own}{ray}"
    apart = ["unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]
    # The namespaces' first process hears nothing but SIGKILL.
    command = ["ip", "netns", "exec", name, *apart, "sh", "-c", script]
    with ray_node(command, os.environ | _TOKEN, signal.SIGKILL) as process:
        yield Host(name=name, process=process)


def cross(folder: Path, case: str) -> None:
    """Run one case in `folder`."""
    sweep = write_sweep(folder, tables=True, grid=_GRID, train=_TRAIN, resources=SIDE_BY_SIDE)
    places = {name: Path(os.environ[f"FTTUNE_{name}"]) for name in ("STORE", "STATE")}
    places["STORE"].mkdir()
    with (
        TemporaryDirectory(prefix="ray-") as temp,
        cable(),
        host("one", Path(temp), None, "--head", "--node-ip-address=10.77.0.1", "--port=6379", f"--temp-dir={temp}",
             "--include-dashboard=false") as one,
        host("two", Path(temp), _STORES.get(case), "--node-ip-address=10.77.0.2", "--address=10.77.0.1:6379") as two,
    ):  # fmt: skip
        driver, start = (
            Driver(folder, sweep, "--address", "10.77.0.1:6379", before=one.inside, **_TOKEN),
            perf_counter(),
        )
        if case == "cable":
            driver.until(lambda: len([*(places["STATE"] / "checkpoints").glob("*.safetensors")]) == 2)
            ip("-n", "two", "link", "set", "cable2", "down")
            print(f"cut off after {perf_counter() - start:.0f} s")
        code = driver.end(600)
        print(driver.told)
        assert code == 0
        print(f"{case}: complete after {perf_counter() - start:.0f} s")
        images = [] if case == "cable" else [path for path in two.sees(places["STORE"]) if ".arrow" in path]
    told = "cannot decode them" in driver.told
    assert told == (case == "room"), driver.told
    assert bool(images) == (case == "own"), images
    records = Tracker(database(folder), "fttune").records()
    print(f"{len(records)} trials, {len([r for r in records if r.resumed_step])} of them taken up again")
    assert_as_if_nothing_had_happened(database(folder), sweep, 12, _STEPS)


if __name__ == "__main__":
    for wanted in sys.argv[2:] or ["cable", *_STORES]:
        here = Path(sys.argv[1]).absolute() / wanted
        here.mkdir(parents=True)
        os.chdir(here)
        for kind in ("STORE", "CACHE", "STATE", "NETWORKS"):
            os.environ[f"FTTUNE_{kind}"] = str(here / kind.lower())
        cross(here, wanted)
