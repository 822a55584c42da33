"""What a sweep costs when its jobs do nothing: `run_jobs` with ledger, writer and display against bare Ray Tune.

    uv run python benchmarks/noop.py --jobs 100 1000 10000

Each row is a process of its own: jobs that return a record at once, two side by side, every one of them logged into
SQLite by the sweep's writer; and as many trainables of bare Tune that are done at once, nothing logged. Prints seconds
from the call to its return, milliseconds for each job, seconds until the first result, the most memory that the
driver took, and how long the writer took to catch up. Ends early where the next row would take over `--limit` seconds.
"""

import argparse
import json
import resource
import subprocess
import sys
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
from ray import tune
from rich.console import Console

from fttune.backbones.source import SourceMean
from fttune.config import Resources
from fttune.distance.job import DistanceJob
from fttune.distance.metrics import Measured
from fttune.distance.sample import Sample
from fttune.record import DistanceRecord
from fttune.runtime import Runtime
from fttune.sweep.tally import Tally
from fttune.sweep.tune import cluster, run_jobs
from fttune.tracking.runs import Tracker
from fttune.tracking.writer import Writer

SLOTS = 2
NOTHING = Measured(value=0, low=0, high=0, spread="bootstrap", images=1, source_images=1)

MEAN = SourceMean(
    vector=np.zeros(64, np.float32), images=1, source="nothing", image_size=32, resize="crop",
    weights_digest="w", provenance="",
)  # fmt: skip


class Noop(DistanceJob):
    """A measurement of nothing."""

    def measure(self, runtime: Runtime) -> DistanceRecord:
        return self._record(NOTHING)


class First(Tally):
    """A tally that notes when the first result came."""

    first = 0.0

    def distance(self, record: DistanceRecord) -> None:
        self.first = self.first or perf_counter()
        super().distance(record)


class Bare(tune.Trainable):
    """Done at once."""

    def step(self) -> dict[str, Any]:
        return {"done": True}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        return True


class Told(tune.Callback):
    """Notes when the first result came."""

    first = 0.0

    def on_trial_result(self, *_: Any, **__: Any) -> None:
        self.first = self.first or perf_counter()


def noop(number: int) -> Noop:
    sample = Sample(
        dataset=f"set-{number}", data_digest=f"{number:064}", test_per_class=5, backbone="tiny", weights_digest="w",
        image_size=32, resize="crop",
    )  # fmt: skip
    # The vector is sent to workers with every job, as that of a real measurement is.
    return Noop(sample=sample, source=MEAN)


def ours(count: int, folder: Path) -> dict[str, float]:
    """Through the project's own path."""
    jobs = [noop(number) for number in range(count)]
    runtime = Runtime(store=folder, cache=folder)
    tracker = Tracker(f"sqlite:///{folder}/mlflow.db", "fttune")
    with (
        Writer(tracker, folder / "spool", "noop") as writer,
        First([], console=Console(file=StringIO())) as display,
        cluster(None, cpus=SLOTS, gpus=0),
    ):
        start = perf_counter()
        outcome = run_jobs(jobs, runtime, Resources(gpu=0), [writer, display])
        end = perf_counter()
        assert outcome.complete
        assert writer.close() == 0
        caught_up = perf_counter() - end
    return {"seconds": end - start, "first": display.first - start, "writer": caught_up}


def bare(count: int, folder: Path) -> dict[str, float]:
    """Tune alone."""
    told = Told()
    tuner = tune.Tuner(
        tune.with_resources(Bare, {"cpu": 1}),
        param_space={"job": tune.grid_search(list(range(count)))},
        tune_config=tune.TuneConfig(reuse_actors=True),
        run_config=tune.RunConfig(
            storage_path=str(folder),
            name="bare",
            verbose=0,
            callbacks=[told],
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )
    with cluster(None, cpus=SLOTS, gpus=0):
        start = perf_counter()
        results = tuner.fit()
        end = perf_counter()
    assert len(results) == count
    assert results.num_errors == 0
    return {"seconds": end - start, "first": told.first - start, "writer": 0.0}


def one(kind: str, count: int) -> None:
    """A row, as JSON on the last line."""
    with TemporaryDirectory() as folder:
        found = {"ours": ours, "bare": bare}[kind](count, Path(folder))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(found | {"memory": memory}))


def main() -> None:
    """A table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--limit", type=float, default=1200)
    parser.add_argument("--one", nargs=2, metavar=("KIND", "COUNT"))
    asked = parser.parse_args()
    if asked.one:
        return one(asked.one[0], int(asked.one[1]))
    print(f"{'':6}{'jobs':>7}{'seconds':>9}{'ms/job':>8}{'first s':>9}{'MB':>7}{'writer s':>10}")
    for kind in ("ours", "bare"):
        before, last = 0, 0.0
        for count in asked.jobs:
            if before and (expected := last * count / before) > asked.limit:
                print(f"{kind:6}{count:7}  would take over {expected:.0f} s: left out")
                break
            words = [sys.executable, __file__, "--one", kind, str(count)]
            done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
            row = json.loads(done.stdout.splitlines()[-1])
            before, last = count, row["seconds"]
            print(
                f"{kind:6}{count:7}{last:9.1f}{1000 * last / count:8.1f}{row['first']:9.1f}"
                f"{row['memory']:7.0f}{row['writer']:10.1f}",
                flush=True,
            )
    return None


if __name__ == "__main__":
    main()
