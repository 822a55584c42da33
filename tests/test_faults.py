"""What goes wrong on machines, done to real sweeps: every trial ends once, with the result of an undisturbed run."""

import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from small_sweeps import Driver, database, fttune, gone, once_each, results, undisturbed, write_sweep

STEPS = (1000, 2000, 3000)
TRAIN = {"lr": 0.05, "steps": 3000, "batch_size": 6, "image_size": 32, "report_every": 1000, "views": "flip"}
GRID = {
    "datasets": {"mine": {"path": "photos", "images_per_class": [5], "val": 3, "test": 5}},
    "backbones": ["tiny"],
    "random_top": [1, 2],
}


def write_long_sweep(folder: Path, **changes: Any) -> Path:
    """Four trials of some seconds, which save themselves all the time."""
    return write_sweep(folder, grid=GRID, train=TRAIN, resources={"checkpoint_seconds": 0.2}, **changes)


def checkpoints(folder: Path) -> list[Path]:
    return list((folder / "fttune_state" / "checkpoints").glob("*.safetensors"))


def assert_as_if_nothing_had_happened(folder: Path, sweep: Path, *, uri: str = "") -> None:
    """Every trial once in MLflow, with the results of a quiet run; nothing of it runs on, nothing is left behind."""
    once_each(uri or database(folder), 4, STEPS)
    assert results(uri or database(folder)) == undisturbed(sweep)
    assert not checkpoints(folder)
    assert not list(folder.glob("fttune_*/**/*.tmp"))
    again = fttune("run", sweep)
    assert again.returncode == 0, again.stderr
    assert "4 done, 0 failed, 0 to run; nothing to start" in again.stderr, "no lock is left"


def test_a_worker_killed_with_9_is_taken_up_where_its_trial_was_saved(tmp_path: Path) -> None:
    sweep = write_long_sweep(tmp_path)
    driver = Driver(tmp_path, sweep)
    driver.until(lambda: checkpoints(tmp_path))
    workers = driver.until(lambda: driver.family("ray::_Worker"))
    everyone = driver.family()
    for worker in workers:
        subprocess.run(["kill", "-9", str(worker)], check=False)
    assert driver.end() == 0, driver.told
    gone(everyone)
    assert "FAILED" not in driver.told
    assert_as_if_nothing_had_happened(tmp_path, sweep)


def test_a_driver_killed_with_9_leaves_no_process_and_the_same_command_goes_on(tmp_path: Path) -> None:
    sweep = write_long_sweep(tmp_path)
    driver = Driver(tmp_path, sweep)
    driver.until(lambda: checkpoints(tmp_path))
    workers, everyone = driver.family("ray::_Worker"), driver.family()
    driver.kill(signal.SIGKILL)
    driver.end()
    gone(workers)
    again = fttune("run", sweep)
    assert again.returncode == 0, again.stderr
    assert_as_if_nothing_had_happened(tmp_path, sweep)
    gone(everyone, 90)  # Ray's own agents first try for a minute to tell the driver of its end


@pytest.mark.parametrize(("number", "times"), [(signal.SIGINT, 1), (signal.SIGINT, 2), (signal.SIGTERM, 1)])
def test_a_signal_saves_what_runs_and_the_line_it_prints_goes_on(
    tmp_path: Path, number: signal.Signals, times: int
) -> None:
    sweep = write_long_sweep(tmp_path)
    driver = Driver(tmp_path, sweep)
    driver.until(lambda: checkpoints(tmp_path))
    everyone = driver.family()
    for _ in range(times):
        driver.kill(number)
    assert driver.end() == 130, driver.told
    gone(everyone)
    assert checkpoints(tmp_path), "what was under way is saved"
    line = re.search(r"this goes on: fttune run (.*)", driver.told)
    assert line, driver.told
    again = fttune("run", *line[1].split())
    assert again.returncode == 0, again.stderr
    assert_as_if_nothing_had_happened(tmp_path, sweep)
