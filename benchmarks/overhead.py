"""What a trial costs beside training, evaluation and features: many small trials through `fttune run`.

    uv run python benchmarks/overhead.py --trials 48

Tuned trials of 20 steps on digits at 32 px (nothing is bundled), two slots of one thread. Prints wall seconds of the
whole command, seconds until the first trial starts, and slot seconds a trial that were none of the three.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, time

import mlflow

from fttune.runtime import cores
from fttune.tracking.runs import Tracker

SWEEP = """
name: overhead
grid: {{datasets: {{digits: [5]}}, backbones: [tiny], random_top: [1], modes: [tune], seeds: {seeds}}}
train: {{steps: 20, report_every: 10, image_size: 32}}
tracking: {{uri: "sqlite:///{uri}"}}
"""


def main() -> None:
    """One line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=48)
    count = parser.parse_args().trials
    with TemporaryDirectory() as folder:
        scratch = Path(folder)
        sweep, database = scratch / "overhead.yaml", scratch / "mlflow.db"
        sweep.write_text(SWEEP.format(seeds=list(range(count)), uri=database))
        places = {f"FTTUNE_{name}": str(scratch / name.lower()) for name in ("STORE", "CACHE", "STATE", "NETWORKS")}
        words = [sys.executable, "-m", "fttune.cli", "run", str(sweep)]
        begun, start = time(), perf_counter()
        subprocess.run(words, cwd=scratch, env={**os.environ, **places}, check=True, capture_output=True)
        wall = perf_counter() - start
        records = Tracker(f"sqlite:///{database}", "fttune").records()
        first, last = started(f"sqlite:///{database}")
    parts = [(r.train_seconds or 0) + (r.eval_seconds or 0) + (r.feature_seconds or 0) for r in records]
    slots = cores()
    print(
        f"{len(records)} trials, {slots} slots: {wall:.1f} s in all, the first trial starts after {first - begun:.1f} s"
    )
    print(f"slot seconds a trial beside training, evaluation and features: {(slots * wall - sum(parts)) / count:.2f}")
    print(f"  from the first start to the last: {(slots * (last - first) - sum(parts)) / count:.2f}")


def started(uri: str) -> tuple[float, float]:
    """When the first trial started and the last ended, in seconds since 1970."""
    client = mlflow.MlflowClient(tracking_uri=uri)
    (experiment,) = [found for found in client.search_experiments() if found.name == "fttune"]
    runs = client.search_runs([experiment.experiment_id], "tags.`fttune.kind` = 'trial'", max_results=1000)
    return min(run.info.start_time or 0 for run in runs) / 1000, max(run.info.end_time or 0 for run in runs) / 1000


if __name__ == "__main__":
    main()
