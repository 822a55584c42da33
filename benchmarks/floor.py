"""The trials of a sweep without Ray, tracker, report or kept networks: what is left when nothing but training is done.

    uv run python benchmarks/floor.py SWEEP.yaml

Images are decoded once and networks timed as `fttune run` does; then as many processes of one thread as there are cores
take one job after another in the order of `fttune run`, with its allocator settings, and share its caches. Prints wall
seconds from the start of decoding to the end of the last trial, and the seconds of the trials, as JSON.
"""

import argparse
import json
import os
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter

from fttune.bundle import Bundle
from fttune.config import load_sweep
from fttune.runtime import Runtime, cores
from fttune.sweep.cluster import ALLOCATOR
from fttune.sweep.driver import machine, planned
from fttune.sweep.forecast import time_networks
from fttune.sweep.ground import prepare
from fttune.sweep.workshop import Workshop


def work(bundle: Bundle, runtime: Runtime) -> list[float]:
    """Seconds of the trials of a job."""
    from fttune.training.run import run_bundle

    records = run_bundle(bundle, runtime, lambda trial, point: None)
    return [record.seconds or 0.0 for record in records]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("sweep", type=Path)
    start, sweep = perf_counter(), load_sweep(parser.parse_args().sweep)
    runtime = replace(machine(sweep), networks=None)
    ground = prepare(sweep, runtime, lambda *_: None)
    time_networks(sweep, runtime)
    plan, model = planned(ground, runtime, [])
    jobs = Workshop(ground, runtime, model, done=[], records=[]).jobs(plan.to_run)
    os.environ.update(ALLOCATOR)
    with get_context("spawn").Pool(cores()) as pool:
        seconds = pool.starmap(work, [(job, runtime) for job in jobs], chunksize=1)
    print(json.dumps({"wall": perf_counter() - start, "seconds": [each for some in seconds for each in some]}))


if __name__ == "__main__":
    main()
