"""Many drivers on one tracker for a team: `mlflow server` with names and passwords on PostgreSQL.

    PYTHONPATH=tests uv run python benchmarks/writers.py --runs 10000 --writers 16

Each writer is a process with trials of its own: started, three points of a curve, finished. Prints runs a second until
all of them are delivered, and the seconds in which `Tracker.records` reads them back through the server. Fails unless
each trial has exactly one run with each point once. Needs PostgreSQL and the extra `team`.
"""

import argparse
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import psycopg

from fttune.tracking.runs import Tracker
from fttune.tracking.writer import Writer
from stores import POINTS, record_of
from team import missing, postgresql, serving_team
from values import make_trial

CURVE = POINTS[:3]


def write(uri: str, spool: Path, seeds: range) -> None:
    """What one driver tells."""
    with Writer(Tracker(uri, "many"), spool, f"sweep-{seeds.start}") as writer:
        for seed in seeds:
            trial = make_trial(seed=seed)
            writer.started(trial)
            for point in CURVE:
                writer.point(trial.id, point)
            writer.finished(record_of(trial))
        assert writer.close() == 0, writer.problem


def shares(runs: int, writers: int) -> Iterator[range]:
    """Seeds for each writer."""
    each = -(-runs // writers)
    for start in range(0, runs, each):
        yield range(start, min(runs, start + each))


def main() -> None:
    """Two lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--writers", type=int, default=16)
    asked = parser.parse_args()
    if missing():
        raise SystemExit(missing())
    with TemporaryDirectory() as folder, postgresql() as database, serving_team(database, Path(folder)) as team:
        os.environ.update(team.credentials)
        start = perf_counter()
        with ProcessPoolExecutor(asked.writers, mp_context=get_context("spawn")) as pool:
            parts = enumerate(shares(asked.runs, asked.writers))
            for job in [pool.submit(write, team.uri, Path(folder) / str(n), seeds) for n, seeds in parts]:
                job.result()
        seconds = perf_counter() - start
        print(f"{asked.runs} runs by {asked.writers} writers: {seconds:.0f} s, {asked.runs / seconds:.1f} a second")
        start = perf_counter()
        assert len(Tracker(team.uri, "many").records()) == asked.runs
        print(f"read back in {perf_counter() - start:.1f} s")
        check(database, asked.runs)


def check(database: str, runs: int) -> None:
    """Look past MLflow: every trial has one finished run, and each point of its curve once."""
    with psycopg.connect(database) as connection:
        told = connection.execute(
            "SELECT count(*), count(DISTINCT value) FROM tags JOIN runs USING (run_uuid) "
            "WHERE key = 'fttune.trial_id' AND status = 'FINISHED' AND lifecycle_stage = 'active'"
        ).fetchone()
        assert told == (runs, runs), told
        points = connection.execute("SELECT count(*) FROM metrics WHERE key = 'val_accuracy'").fetchone()
        assert points == (runs * len(CURVE),), points


if __name__ == "__main__":
    main()
