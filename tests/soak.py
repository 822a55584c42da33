"""Kill what runs, at random, until a sweep is complete: `uv run python tests/soak.py FOLDER [TRIALS] [SECONDS] [SEED]`.

Some seconds after workers are there one is killed with 9, or the driver is killed with 9, interrupted or terminated,
and started again.
At the end every trial must have one run in MLflow, each step of its curve once, and the result of an undisturbed run.
"""

import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path

from small_sweeps import Driver, database, once_each, results, undisturbed, write_sweep
from stores import wait_until

_GRID = {
    "datasets": {"mine": {"path": "photos", "images_per_class": [2, 5], "val": 3, "test": 5}},
    "backbones": ["tiny"],
    "random_top": [1, 2, 3],
}
_TRAIN = {"lr": 0.05, "steps": 600, "batch_size": 6, "image_size": 32, "report_every": 200, "views": "flip"}
_SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)  # a second one may meet a driver that is ending already


def soak(folder: Path, *, trials: int, pause: float, seed: int) -> int:
    """Run `trials` trials, a multiple of 12, with a kill some `pause` seconds after workers are there.

    Returns how many were killed.
    """
    seeds = list(range(trials // 12))
    sweep = write_sweep(folder, grid=_GRID | {"seeds": seeds}, train=_TRAIN, resources={"checkpoint_seconds": 0.2})
    chance, kills = random.Random(seed), Counter[str]()
    driver = Driver(folder, sweep)
    while (code := _ended(driver, pause * chance.uniform(0.5, 1.5))) != 0:
        if code is not None:
            assert code in (1, 130, *(-number for number in _SIGNALS)) or _caught_by_ray(driver), (code, driver.told)
            driver = Driver(folder, sweep, *(["--retry-failed"] if code == 1 else []))
        else:
            kills[_hurt(driver, chance)] += 1
        if chance.random() < 0.8:  # otherwise it may be killed while it starts
            wait_until(lambda driver=driver: driver.workers() or driver.process.poll() is not None)
    once_each(database(folder), trials, (200, 400, 600))
    assert results(database(folder)) == undisturbed(sweep)
    print(f"{trials} trials, each once and as if nothing had happened, after {dict(kills)}")
    return kills.total()


def _caught_by_ray(driver: Driver) -> bool:
    """While Ray starts, a handler of its own hears SIGTERM, prints where it was, and may take the process down."""
    return "*** SIGTERM received" in driver.told


def _ended(driver: Driver, seconds: float) -> int | None:
    """The exit code of the driver if it ends within some seconds."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if (code := driver.process.poll()) is not None:
            return code
        time.sleep(0.05)
    return None


def _hurt(driver: Driver, chance: random.Random) -> str:
    """Kill a worker, three times out of four, or the driver; which."""
    workers = driver.workers()
    if workers and chance.random() < 0.75:
        try:
            os.kill(chance.choice(workers), signal.SIGKILL)
        except ProcessLookupError:
            return "a worker that had just gone"
        return "a worker"
    number = chance.choice(_SIGNALS)
    driver.kill(number)
    return f"the driver, {number.name}"


if __name__ == "__main__":
    place = Path(sys.argv[1])
    place.mkdir(parents=True)
    os.chdir(place)
    for name in ("STORE", "CACHE", "STATE", "NETWORKS"):
        os.environ[f"FTTUNE_{name}"] = str(place.absolute() / name.lower())
    count, between, start = (*map(float, sys.argv[2:]), *(300, 4, 0)[len(sys.argv) - 2 :])
    soak(place.absolute(), trials=int(count), pause=between, seed=int(start))
