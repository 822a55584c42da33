"""Kill what runs, at random, until a sweep is complete: `uv run python tests/soak.py FOLDER [TRIALS] [SECONDS] [SEED]`.

Some seconds after a trial has saved itself a worker is killed with 9, or the driver is killed with 9, interrupted or
terminated, and started again.
At the end every trial must have one run in MLflow, each step of its curve once, and the result of an undisturbed run;
no process is left, no checkpoint, and nothing to start.
"""

import math
import os
import random
import re
import signal
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

from fttune.sweep.ledger import TRIES
from small_sweeps import SIDE_BY_SIDE, Driver, assert_as_if_nothing_had_happened, database, fttune, gone, write_sweep
from stores import wait_until

_GRID = {
    "datasets": {"mine": {"path": "photos", "images_per_class": [2, 5], "val": 3, "test": 5}},
    "backbones": ["tiny"],
    "random_top": [1, 2, 3],
}
_TRAIN = {"lr": 0.05, "steps": 600, "batch_size": 6, "image_size": 32, "report_every": 200, "views": "flip"}
_SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)  # a second one may meet a driver that is ending already


def soak(folder: Path, *, trials: int, pause: float, seed: int, most: float = math.inf) -> int:
    """Run `trials` trials, a multiple of 12, with a kill some `pause` seconds after one has saved itself.

    After `most` kills what is left runs quietly. Returns how many were killed.
    """
    seeds = list(range(trials // 12))
    sweep = write_sweep(folder, tables=True, grid=_GRID | {"seeds": seeds}, train=_TRAIN, resources=SIDE_BY_SIDE)
    chance, kills, everyone = random.Random(seed), Counter[str](), set[int]()
    driver = _Target(folder, sweep)
    while True:
        if kills.total() >= most:
            driver.end()
        elif chance.random() < 0.8:  # otherwise it may be killed while it starts
            driver.trains_or_ends()
        code = _ended(driver, pause * chance.uniform(0.5, 1.5))
        everyone.update(driver.family())
        if code == 0:
            break
        if code is None:
            kills.update(driver.hurt(chance))
        else:
            driver.excuse(code)
            driver = _Target(folder, sweep, *(["--retry-failed"] if code == 1 else []))
    assert_as_if_nothing_had_happened(database(folder), sweep, trials, (200, 400, 600))
    assert f"{trials} done, 0 failed, 0 to run; nothing to start" in fttune("run", sweep).stderr
    gone([*everyone], 90)  # Ray's own agents first try for a minute to tell a killed driver of its end
    print(f"{trials} trials, each once and as if nothing had happened, after {dict(kills)}")
    return kills.total()


class _Target(Driver):
    """A driver that is hurt, and remembers how."""

    def __init__(self, folder: Path, *words: object) -> None:
        super().__init__(folder, *words)
        self._sent: list[signal.Signals] = []
        self._hurt_workers = 0
        self._since = time.time()  # it was started, or hurt

    def trains_or_ends(self) -> None:
        """Wait until a trial has saved itself since the driver was started or hurt, or until it has ended."""
        wait_until(lambda: self._saved() > self._since or self.process.poll() is not None, 120)

    def _saved(self) -> float:
        times = [0.0]
        for path in (Path(os.environ["FTTUNE_STATE"]) / "checkpoints").glob("*.safetensors"):
            with suppress(FileNotFoundError):  # its trial has just ended
                times.append(path.stat().st_mtime)
        return max(times)

    def hurt(self, chance: random.Random) -> list[str]:
        """Kill a worker, three times out of four, or the driver; which, unless it has just gone."""
        workers, self._since = self.workers(), time.time()
        if workers and chance.random() < 0.75:
            try:
                os.kill(chance.choice(workers), signal.SIGKILL)
            except ProcessLookupError:
                return []
            self._hurt_workers += 1
            return ["a worker"]
        number = chance.choice(_SIGNALS)
        self.kill(number)
        self._sent.append(number)
        return [f"the driver, {number.name}"]

    def excuse(self, code: int) -> None:
        """AssertionError unless what was done to it explains how it ended."""
        sent = set(self._sent)
        excuses = {-number for number in sent}
        if sent & {signal.SIGINT, signal.SIGTERM}:
            excuses.add(130)
        if self._hurt_workers >= TRIES and re.findall(r"FAILED.*the process of the trial died", self.told):
            excuses.add(1)  # one trial may be hit three times
        # While Ray starts, a handler of its own hears SIGTERM, prints where it was, and may take the process down.
        caught = signal.SIGTERM in sent and "*** SIGTERM received" in self.told
        assert code in excuses or caught, (code, self._sent, self._hurt_workers, self.told)


def _ended(driver: Driver, seconds: float) -> int | None:
    """The exit code of the driver if it ends within some seconds."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if (code := driver.process.poll()) is not None:
            return code
        time.sleep(0.05)
    return None


if __name__ == "__main__":
    place = Path(sys.argv[1])
    place.mkdir(parents=True)
    place = place.absolute()
    os.chdir(place)
    for name in ("STORE", "CACHE", "STATE", "NETWORKS"):
        os.environ[f"FTTUNE_{name}"] = str(place / name.lower())
    count, between, start = (*map(float, sys.argv[2:]), *(300, 2, 0)[len(sys.argv) - 2 :])
    soak(place, trials=int(count), pause=between, seed=int(start))
