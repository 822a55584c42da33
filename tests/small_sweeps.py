"""Small sweeps for tests: written to a folder, run by the command line, and held against the same trials run here."""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import yaml

from command import run_command
from fttune.config import load_sweep
from fttune.record import RunRecord
from fttune.sweep.driver import is_running, machine
from fttune.sweep.ground import prepare
from fttune.tracking.runs import Tracker
from fttune.training.run import run_trial
from images import make_folder
from stores import curve_of, make_database, runs_of, wait_until

SIDE_BY_SIDE = {"checkpoint_seconds": 0.2, "max_concurrent": 2}  # resources of trials that save themselves all the time

# Of a record: how the machine went about a trial, not the trial itself. Trials that train together come out as alone,
# and a fault parts them.
_OF_THE_MACHINE = {
    "seconds", "data_seconds", "feature_seconds", "train_seconds", "eval_seconds", "images_per_second",
    "peak_memory_mb", "together", "gpu_seconds", "resumed_step",
}  # fmt: skip


def write_sweep(folder: Path, *, tables: bool = False, **changes: Any) -> Path:
    """A sweep of eight trials on the test network, done in seconds.

    `tables` saves its first run the making of MLflow's; a command that only reads is quicker without.
    """
    if tables:
        make_database(folder)
    if not (folder / "photos").exists():
        make_folder(folder / "photos", images=20)
    sweep = {
        "name": "small",
        "grid": {
            "datasets": {"mine": {"path": "photos", "images_per_class": [2, 5], "val": 3, "test": 5}},
            "backbones": ["tiny"],
            "random_top": [1, 2],
        },
        "train": {"lr": 0.05, "steps": 12, "batch_size": 6, "image_size": 32, "report_every": 4, "views": "flip"},
    } | changes
    # A network takes seconds to be made ready for MLflow, which only tests of networks are worth; a second process
    # takes as long to start, which only tests of trials side by side are.
    sweep["train"] = {"keep": "none"} | sweep["train"]
    sweep["resources"] = {"max_concurrent": 1} | sweep.get("resources", {})
    path = folder / f"{sweep['name']}.yaml"
    path.write_text(yaml.safe_dump(sweep))
    return path


def database(folder: Path) -> str:
    """The default tracker of commands run in `folder`."""
    return f"sqlite:///{folder}/mlflow.db"


def fttune(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return run_command([*map(str, words)], {**os.environ, **environment})


def fttune_anew(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """The same in a process that loads everything itself."""
    return subprocess.run(
        [sys.executable, "-m", "fttune.cli", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


def told(*words: object) -> dict[str, Any]:
    """The one JSON document that a command prints."""
    done = fttune(*words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def once_each(uri: str, count: int, steps: Sequence[int] = (4, 8, 12)) -> list[Any]:
    """Every trial of the experiment has one finished run, and each run's curve has each step once."""
    runs = runs_of(uri, "fttune")
    assert Counter(run.data.tags["fttune.trial_id"] for run in runs).most_common(1)[0][1] == 1
    assert [run.info.status for run in runs] == ["FINISHED"] * count
    for run in runs:
        assert [point.step for point in curve_of(uri, run.info.run_id)] == list(steps)
    return runs


_UNDISTURBED: dict[str, dict[str, Any]] = {}


def undisturbed(sweep: Path, *overrides: str) -> dict[str, dict[str, Any]]:
    """The results of a sweep's trials by id, trained one after another in this process, the last first."""
    loaded = load_sweep(sweep, list(overrides))
    runtime = replace(machine(loaded), cache=sweep.parent / "another_cache", state=None, networks=None)
    trials = prepare(loaded, runtime, lambda *_: None).trials
    for trial in reversed(trials):
        if trial.id not in _UNDISTURBED:
            _UNDISTURBED[trial.id] = _result(run_trial(trial, runtime, lambda point: None))
    return {trial.id: _UNDISTURBED[trial.id] for trial in trials}


def results(uri: str) -> dict[str, dict[str, Any]]:
    """The results that the tracker holds, by trial id."""
    return {record.trial_id: _result(record) for record in Tracker(uri, "fttune").records()}


def _result(record: RunRecord) -> dict[str, Any]:
    return {name: value for name, value in asdict(record).items() if name not in _OF_THE_MACHINE}


def assert_as_if_nothing_had_happened(uri: str, sweep: Path, trials: int, steps: Sequence[int]) -> None:
    """Every trial once in MLflow, with the result of a quiet run; nothing is left that costs room or holds a lock."""
    once_each(uri, trials, steps)
    assert results(uri) == undisturbed(sweep)
    store, cache, state = (Path(os.environ[f"FTTUNE_{name}"]) for name in ("STORE", "CACHE", "STATE"))
    for left in ("*.tmp", "*.claim"):
        assert not [path for place in (store, cache, state) for path in place.rglob(left)]
    assert not [*(state / "checkpoints").glob("*.safetensors")]
    assert not is_running(load_sweep(sweep))


class Driver:
    """A `fttune run` in a process of its own, which may be killed; `before`: a command that takes it elsewhere."""

    def __init__(self, folder: Path, *words: object, before: Sequence[str] = (), **environment: str) -> None:
        self._told = folder / f"driver-{time.monotonic_ns()}.txt"
        with self._told.open("w") as stderr:
            self.process = subprocess.Popen(
                [*before, sys.executable, "-m", "fttune.cli", "run", *map(str, words)],
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                env={**os.environ, **environment},
                start_new_session=True,
            )

    @property
    def told(self) -> str:
        """What it has said so far."""
        return self._told.read_text()

    def until(self, condition: Callable[[], Any]) -> Any:
        """Wait for something to happen while it runs; what happened."""
        found: list[Any] = []

        def happened() -> bool:
            assert self.process.poll() is None, self.told
            found[:] = [condition()]
            return bool(found[0])

        wait_until(happened, 120)
        return found[0]

    def workers(self) -> list[int]:
        """The processes that trials train in; Ray has two titles for them, by what they do."""
        return [*self.family("ray::Worker"), *self.family("ray::ResourceTrainable")]

    def family(self, name: str = "") -> list[int]:
        """The processes that it has started, and those that they have, whose title has `name` in it."""
        children: dict[int, list[int]] = {}
        for pid, parent, _ in _processes():
            children.setdefault(parent, []).append(pid)
        titles = {pid: title for pid, _, title in _processes()}
        found, queue = [], [self.process.pid]
        while queue:
            below = children.get(queue.pop(), [])
            found += below
            queue += below
        return [pid for pid in found if name in titles.get(pid, "")]

    def kill(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def end(self, seconds: float = 120) -> int:
        """Wait for its end; its exit code."""
        return self.process.wait(seconds)


def running(name: str) -> list[int]:
    """The processes of this machine whose title has `name` in it."""
    return [pid for pid, _, title in _processes() if name in title]


def gone(pids: Sequence[int], seconds: float = 30) -> None:
    """Wait until none of these processes runs."""
    wait_until(lambda: not set(pids) & {pid for pid, _, _ in _processes()}, seconds)


def _processes() -> Iterator[tuple[int, int, str]]:
    """Id, parent's id and title of every process that is not a zombie."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            title = (folder / "cmdline").read_text(errors="replace")
        except OSError:
            continue
        if state != "Z":
            yield int(folder.name), int(parent), title
