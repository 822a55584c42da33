"""What goes wrong on machines, done to real sweeps: every trial ends once, with the result of an undisturbed run."""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from fttune.tracking.runs import Tracker
from small_sweeps import Driver, assert_as_if_nothing_had_happened, database, fttune, gone, write_sweep
from soak import soak
from stores import free_port, make_database, runs_of, serving

STEPS = (300, 600, 900)
TRAIN = {"lr": 0.05, "steps": 900, "batch_size": 6, "image_size": 32, "report_every": 300, "views": "flip"}
GRID = {
    "datasets": {"mine": {"path": "photos", "images_per_class": [5], "val": 3, "test": 5}},
    "backbones": ["tiny"],
    "random_top": [1, 2],
}


def write_long_sweep(folder: Path, **changes: Any) -> Path:
    """Four trials of some seconds, which save themselves all the time."""
    return write_sweep(
        folder, tables=True, **{"grid": GRID, "train": TRAIN, "resources": {"checkpoint_seconds": 0.2}} | changes
    )


def checkpoints(folder: Path) -> list[Path]:
    return list((folder / "fttune_state" / "checkpoints").glob("*.safetensors"))


def under_way(folder: Path) -> list[Path]:
    """What the first trial on a machine measures before it trains."""
    return list((folder / "fttune_state").glob("stage-times-*.json"))


def assert_undisturbed(folder: Path, sweep: Path) -> None:
    assert_as_if_nothing_had_happened(database(folder), sweep, 4, STEPS)


def test_a_worker_killed_with_9_is_taken_up_where_its_trial_was_saved(tmp_path: Path) -> None:
    sweep = write_long_sweep(tmp_path)
    driver = Driver(tmp_path, sweep)
    driver.until(lambda: checkpoints(tmp_path))
    workers = driver.until(lambda: driver.workers())
    everyone = driver.family()
    for worker in workers:
        subprocess.run(["kill", "-9", str(worker)], check=False)
    assert driver.end() == 0, driver.told
    gone(everyone)
    assert "FAILED" not in driver.told
    assert_undisturbed(tmp_path, sweep)


def test_a_driver_killed_with_9_leaves_no_process_and_the_same_command_goes_on(tmp_path: Path) -> None:
    sweep = write_long_sweep(tmp_path)
    driver = Driver(tmp_path, sweep)
    driver.until(lambda: checkpoints(tmp_path))
    workers, everyone = driver.workers(), driver.family()
    assert workers
    driver.kill(signal.SIGKILL)
    driver.end()
    gone(workers)
    again = fttune("run", sweep)
    assert again.returncode == 0, again.stderr
    assert_undisturbed(tmp_path, sweep)
    gone(everyone, 90)  # Ray's own agents first try for a minute to tell the driver of its end


def test_a_machine_that_ends_workers_and_driver_at_once_leaves_nothing_running(tmp_path: Path) -> None:
    sweep = write_long_sweep(tmp_path)
    driver = Driver(tmp_path, sweep, "--limit", "2")
    driver.until(lambda: len(checkpoints(tmp_path)) == 2)  # no trial is left that was not started
    everyone = driver.family()
    for worker in driver.workers():
        os.kill(worker, signal.SIGTERM)
    driver.kill(signal.SIGTERM)
    assert driver.end() == 130, driver.told
    gone(everyone)
    again = fttune("run", sweep)
    assert again.returncode == 0, again.stderr
    assert_undisturbed(tmp_path, sweep)


@pytest.mark.parametrize(("number", "times"), [(signal.SIGINT, 1), (signal.SIGINT, 2), (signal.SIGTERM, 1)])
def test_a_signal_saves_what_runs_and_the_line_it_prints_goes_on(
    tmp_path: Path, number: signal.Signals, times: int
) -> None:
    hour = "resources.checkpoint_seconds=3600"  # only what the signal saves is saved
    sweep = write_long_sweep(tmp_path)
    driver = Driver(tmp_path, sweep, hour)
    driver.until(lambda: under_way(tmp_path))
    everyone = driver.family()
    assert not checkpoints(tmp_path)
    for _ in range(times):
        if number == signal.SIGINT:  # a terminal sends it to all that it has started
            os.killpg(driver.process.pid, number)
        else:
            driver.kill(number)
        time.sleep(0.3)  # two at once may come as one
    assert driver.end() == 130, driver.told
    gone(everyone)
    assert checkpoints(tmp_path), "what was under way is saved"
    line = re.search(r"this goes on: fttune run (.*)", driver.told)
    assert line, driver.told
    finished = len(Tracker(database(tmp_path), "fttune").records())
    again = fttune("run", *line[1].split())
    assert again.returncode == 0, again.stderr
    assert f"{finished} done, 0 failed, {4 - finished} to run" in again.stderr
    assert_undisturbed(tmp_path, sweep)


def test_a_tracker_that_goes_away_and_comes_back_in_mid_sweep_gets_everything_once(tmp_path: Path) -> None:
    store, port = make_database(tmp_path), free_port()
    resources = {"checkpoint_seconds": 0.2, "max_concurrent": 1}
    steps = (800, 1600, 2400)  # a server takes seconds to start
    train = TRAIN | {"steps": steps[-1], "report_every": steps[0]}
    tracking = {"uri": f"http://127.0.0.1:{port}"}
    sweep = write_long_sweep(tmp_path, train=train, tracking=tracking, resources=resources)
    with ExitStack() as server:
        server.enter_context(serving(store, port, tmp_path))
        driver = Driver(tmp_path, sweep)
        driver.until(lambda: checkpoints(tmp_path))
        server.close()
        driver.until(lambda: " 1/4 " in driver.told)
        server.enter_context(serving(store, port, tmp_path))
        assert driver.end() == 0, driver.told
        assert_as_if_nothing_had_happened(store, sweep, 4, steps)


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


def test_a_store_without_room_is_told_before_anything_is_decoded(tmp_path: Path) -> None:
    sweep = write_long_sweep(tmp_path)
    with small_disk(tmp_path / "small", "128k") as disk:
        full = fttune("run", sweep, FTTUNE_STORE=str(disk))
        assert full.returncode == 1
        assert re.fullmatch(
            r"error: no room left in \S+small: decoding takes 0.2 MB, but 0.1 MB are free; set FTTUNE_STORE to move it",
            full.stderr.strip(),
        )
        assert not list(disk.rglob("*.arrow*"))
        assert not runs_of(database(tmp_path), "fttune")
    assert fttune("run", sweep).returncode == 0
    assert_undisturbed(tmp_path, sweep)


@pytest.mark.parametrize("variable", ["FTTUNE_CACHE", "FTTUNE_STATE"])
def test_a_disk_that_is_full_stops_no_trial(tmp_path: Path, variable: str) -> None:
    sweep = write_long_sweep(tmp_path)
    with small_disk(tmp_path / "small", "64k") as disk:
        (disk / "filling").write_bytes(bytes(40_000))
        full = fttune("run", sweep, **{variable: str(disk)})
        assert full.returncode == 0, full.stderr
        assert f"no room left in {disk}" in full.stderr
        assert f"set {variable} to move it" in full.stderr
    assert_undisturbed(tmp_path, sweep)


def test_features_that_rot_on_the_disk_are_computed_again(tmp_path: Path) -> None:
    sweep = write_long_sweep(tmp_path)
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
    assert fttune("run", sweep).returncode == 0
    assert all(not file.exists() or file.read_bytes() != harmed for file, harmed in rotten.items())
    assert_undisturbed(tmp_path, sweep)


def test_a_second_driver_is_refused_while_the_first_runs(tmp_path: Path) -> None:
    sweep = write_long_sweep(tmp_path)
    driver = Driver(tmp_path, sweep)
    driver.until(lambda: checkpoints(tmp_path))
    second = fttune("run", sweep)
    assert second.returncode == 2
    assert second.stderr.startswith("error: sweep 'small' is being run by another process")
    assert "\n" not in second.stderr.strip()
    assert driver.end() == 0, driver.told
    assert_undisturbed(tmp_path, sweep)


def test_killing_at_random_loses_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    assert soak(tmp_path, trials=12, pause=1.0, seed=0, most=3) == 3
