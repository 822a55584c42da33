"""What goes wrong on machines, done to real sweeps: every trial ends once, with the result of an undisturbed run."""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from test_unfinished_store import reads

from command import run_command
from fttune.tracking.runs import Tracker
from fttune.trial import stored_size
from small_sweeps import SIDE_BY_SIDE, Driver, assert_as_if_nothing_had_happened, database, fttune, gone, write_sweep
from soak import soak
from stores import free_port, make_database, runs_of, serving

STEPS = (300, 600, 900)
TRAIN = {"lr": 0.05, "steps": 900, "batch_size": 6, "image_size": 32, "report_every": 300, "views": "flip"}
# For what happens several times while they train, or seconds after they began, on the fastest machine too.
LONGER_STEPS = (1600, 3200, 4800)
LONGER = TRAIN | {"steps": LONGER_STEPS[-1], "report_every": LONGER_STEPS[0]}
GRID = {
    "datasets": {"mine": {"path": "photos", "images_per_class": [5], "val": 3, "test": 5}},
    "backbones": ["tiny"],
    "random_top": [1, 2],
}
FROZEN, TUNED = GRID | {"modes": ["freeze"]}, GRID | {"modes": ["tune"]}


def write_long_sweep(folder: Path, **changes: Any) -> Path:
    """Four trials of some seconds, which save themselves all the time."""
    return write_sweep(
        folder, tables=True, **{"grid": GRID, "train": TRAIN, "resources": {"checkpoint_seconds": 0.2}} | changes
    )


def checkpoints(folder: Path) -> list[Path]:
    return list((folder / "fttune_state" / "checkpoints").glob("*.safetensors"))


def under_way(folder: Path) -> list[Any]:
    """The runs of trials that have reported and not ended."""
    return [
        run
        for run in runs_of(database(folder), "fttune")
        if run.info.status == "RUNNING" and "train_loss" in run.data.metrics
    ]


def assert_undisturbed(folder: Path, sweep: Path, trials: int = 4) -> None:
    assert_as_if_nothing_had_happened(database(folder), sweep, trials, STEPS)


def resumed(folder: Path) -> list[int]:
    """The steps that trials went on from, of those that several processes have trained."""
    return [record.resumed_step for record in Tracker(database(folder), "fttune").records() if record.resumed_step]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_that_is_killed_or_told_to_go_is_taken_up_where_its_trial_was_saved(
    tmp_path: Path, how: signal.Signals
) -> None:
    sweep = write_long_sweep(tmp_path)
    driver = Driver(tmp_path, sweep)
    driver.until(lambda: checkpoints(tmp_path))
    workers = driver.until(lambda: driver.workers())
    everyone = driver.family()
    for worker in workers:
        with suppress(ProcessLookupError):
            os.kill(worker, how)
    assert driver.end() == 0, driver.told
    gone(everyone)
    assert "FAILED" not in driver.told
    assert resumed(tmp_path)
    assert_undisturbed(tmp_path, sweep)


def _kill(driver: Driver) -> None:
    driver.kill(signal.SIGKILL)


def _interrupt_twice(driver: Driver) -> None:
    for _ in range(2):
        _interrupt(driver)
        time.sleep(0.3)  # two at once may come as one


def _interrupt_to_the_end(driver: Driver) -> None:
    while driver.process.poll() is None:
        _interrupt(driver)
        time.sleep(0.1)


def _interrupt(driver: Driver) -> None:
    os.killpg(driver.process.pid, signal.SIGINT)  # a terminal sends it to all that it has started


def _shut_down(driver: Driver) -> None:
    """As a machine does it: workers and driver at once."""
    for process in (*driver.workers(), driver.process.pid):
        os.kill(process, signal.SIGTERM)


def test_there_is_one_driver_at_a_time_and_whatever_ends_it_the_same_command_goes_on(tmp_path: Path) -> None:
    left = list[int]()
    sweep = write_long_sweep(tmp_path, grid=TUNED, train=LONGER, resources=SIDE_BY_SIDE)
    line = f"this goes on: fttune run {sweep}"
    run_command(["--help"], os.environ)  # what commands are forked from takes seconds to load, the first time
    for end, code, words in (
        (_kill, -9, ""),
        (_interrupt_twice, 130, line),
        (_interrupt_to_the_end, 130, "goes on"),
        (_shut_down, 130, line),
    ):
        begun = time.time()
        driver = Driver(tmp_path, sweep)
        driver.until(lambda begun=begun: [file for file in checkpoints(tmp_path) if changed(file) > begun])
        if end is _kill:
            assert_alone(sweep)
        workers, everyone = driver.workers(), driver.family()
        assert workers
        end(driver)
        assert driver.end() == code, driver.told
        gone(workers)
        left += everyone
        assert checkpoints(tmp_path), "what was under way is saved"
        assert words in driver.told
        assert "Traceback" not in driver.told
    cut, _ = checkpoints(tmp_path)
    os.truncate(cut, cut.stat().st_size // 2)
    again = fttune("run", sweep)
    assert again.returncode == 0, again.stderr
    assert f"{cut}: damaged checkpoint" in again.stderr
    assert len(resumed(tmp_path)) == 1, "the other starts anew"
    assert_as_if_nothing_had_happened(database(tmp_path), sweep, 2, LONGER_STEPS)
    gone(left, 90)  # Ray's own agents first try for a minute to tell a driver of its end


def assert_alone(sweep: Path) -> None:
    second = run_command(["run", str(sweep)], os.environ)  # forked, so that little is trained meanwhile
    assert second.returncode == 2
    assert second.stderr.startswith("error: sweep 'small' is being run by another process")
    assert "\n" not in second.stderr.strip()


def changed(file: Path) -> float:
    """When; 0 where it is gone."""
    return file.stat().st_mtime if file.exists() else 0.0


def test_an_interrupt_saves_what_runs_and_the_line_it_prints_goes_on(tmp_path: Path) -> None:
    hour = "resources.checkpoint_seconds=3600"  # only what the signal saves is saved
    sweep = write_long_sweep(tmp_path, grid=TUNED, train=LONGER)
    driver = Driver(tmp_path, sweep, hour)
    driver.until(lambda: under_way(tmp_path))
    everyone = driver.family()
    assert not checkpoints(tmp_path)
    _interrupt(driver)
    assert driver.end() == 130, driver.told
    gone(everyone)
    assert checkpoints(tmp_path), "what was under way is saved"
    line = re.search(r"this goes on: fttune run (.*)", driver.told)
    assert line, driver.told
    finished = len(Tracker(database(tmp_path), "fttune").records())
    again = fttune("run", *line[1].split())
    assert again.returncode == 0, again.stderr
    assert f"{finished} done, 0 failed, {2 - finished} to run" in again.stderr
    assert resumed(tmp_path)
    assert_as_if_nothing_had_happened(database(tmp_path), sweep, 2, LONGER_STEPS)


def test_a_tracker_that_goes_away_and_comes_back_in_mid_sweep_gets_everything_once(tmp_path: Path) -> None:
    store, port = make_database(tmp_path), free_port()
    tracking = {"uri": f"http://127.0.0.1:{port}"}
    sweep = write_long_sweep(tmp_path, grid=TUNED, train=LONGER, tracking=tracking)
    with ExitStack() as server:
        server.enter_context(serving(store, port, tmp_path))
        driver = Driver(tmp_path, sweep)
        driver.until(lambda: checkpoints(tmp_path))
        server.close()
        driver.until(lambda: " 1/2 " in driver.told)
        server.enter_context(serving(store, port, tmp_path))
        assert driver.end() == 0, driver.told
        assert_as_if_nothing_had_happened(store, sweep, 2, LONGER_STEPS)


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    folder.mkdir(parents=True)
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True)
    if made.returncode:
        pytest.skip(f"no file system of a given size can be made here: {made.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_store_without_room_is_told_before_anything_is_decoded_and_half_a_one_is_no_hindrance(tmp_path: Path) -> None:
    sweep = write_long_sweep(tmp_path, grid=FROZEN)
    with small_disk(tmp_path / "small", "128k") as disk:
        full = fttune("run", sweep, FTTUNE_STORE=str(disk))
        assert full.returncode == 1
        assert re.fullmatch(
            r"error: no room left in \S+small: decoding takes 0.2 MB, but 0.1 MB are free; set FTTUNE_STORE to move it",
            full.stderr.strip(),
        )
        assert not list(disk.rglob("*.arrow*"))
        assert not runs_of(database(tmp_path), "fttune")
    store = Path(os.environ["FTTUNE_STORE"])
    assert len(reads(tmp_path / "photos", store, after="16", size=stored_size(32), name="mine")) == 16, (
        "then it was killed"
    )
    (half,) = store.glob("*.part")
    assert fttune("run", sweep).returncode == 0
    assert not half.exists()
    assert_undisturbed(tmp_path, sweep, 2)


def test_disks_that_are_full_stop_no_trial(tmp_path: Path) -> None:
    sweep = write_long_sweep(tmp_path, grid=FROZEN)
    with ExitStack() as disks:
        full = {
            variable: str(disks.enter_context(small_disk(tmp_path / variable, "64k")))
            for variable in ("FTTUNE_CACHE", "FTTUNE_STATE")
        }
        for disk in full.values():
            (Path(disk) / "filling").write_bytes(bytes(40_000))
        done = fttune("run", sweep, **full)
        assert done.returncode == 0, done.stderr
        for variable, disk in full.items():
            assert f"no room left in {disk}" in done.stderr
            assert f"set {variable} to move it" in done.stderr
        lines = done.stderr.splitlines()
        assert len(lines) == len({*lines}), "each is told once"
    assert_undisturbed(tmp_path, sweep, 2)


def test_features_that_rot_on_the_disk_are_computed_again(tmp_path: Path) -> None:
    sweep = write_long_sweep(tmp_path, grid=FROZEN)
    assert fttune("run", sweep).returncode == 0
    files = list((tmp_path / "fttune_cache").rglob("*.arrow"))
    assert files
    shutil.rmtree(tmp_path / "mlruns", ignore_errors=True)
    (tmp_path / "mlflow.db").unlink()
    rotten: dict[Path, bytes] = {}
    for file in files:
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 64
        file.write_bytes(data)
        rotten[file] = bytes(data)
    again = fttune("run", sweep)
    assert again.returncode == 0
    assert "damaged features; they are removed, and computed again" in again.stderr
    assert all(not file.exists() or file.read_bytes() != harmed for file, harmed in rotten.items())
    assert_undisturbed(tmp_path, sweep, 2)


def test_killing_at_random_loses_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    assert soak(tmp_path, trials=12, pause=1.0, seed=0, most=3) == 3
