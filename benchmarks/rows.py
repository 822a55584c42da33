"""What reading costs as runs add up: `fttune plan`, `status` and `report` over thousands of logged trials.

    uv run python benchmarks/rows.py --rows 1000 10000 100000

A real sweep (the quickstart's cells, five steps) is run once into SQLite. Its runs are then copied inside the database,
rows of every table of MLflow's, for as many seeds as needed, with the ids that these trials have and other accuracies;
and the sweep file is given these seeds. Prints, for each command, wall seconds of the whole process and its most
memory, and the size of the database. `--folder` keeps the databases for another time.
"""

import argparse
import json
import os
import random
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from uuid import uuid4

from fttune.config import load_sweep
from fttune.record import RunRecord
from fttune.sweep.driver import machine
from fttune.sweep.ground import survey
from fttune.tracking import fields
from fttune.tracking.runs import Tracker
from fttune.trial import Trial

SWEEP = """
name: rows
grid:
  datasets: {{digits: [5, 25], glyphs: [5, 25], photos: [5, 25]}}
  backbones: [efficientnet_lite0]
  random_top: [1, 3, 5]
  seeds: {seeds}
train: {{batch_size: 32, steps: 5, report_every: 5, image_size: 64}}
tracking: {{uri: "sqlite:///{uri}"}}
"""
CELLS = 36
COMMANDS = ("plan", "status", "report")
TABLES = ("runs", "tags", "params", "metrics", "latest_metrics")


def main() -> None:
    """A table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--folder", type=Path)
    asked = parser.parse_args()
    with TemporaryDirectory() as scratch:
        folder = asked.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        os.environ.update({f"FTTUNE_{name}": str(folder / name.lower()) for name in ("STORE", "CACHE", "STATE")})
        print(f"{'rows':>7}{'database MB':>13}" + "".join(f"{f'{name} s':>10}{'MB':>7}" for name in COMMANDS))
        seed(folder)
        for count in sorted(asked.rows):
            seeds = -(-count // CELLS)
            sweep, database = grow(folder, seeds)
            parts = [f"{seeds * CELLS:7}{database.stat().st_size / 1e6:13.0f}"]
            for command in COMMANDS:
                seconds, memory = measure([command, str(sweep)], folder)
                parts.append(f"{seconds:10.1f}{memory:7.0f}")
            print("".join(parts), flush=True)


def seed(folder: Path) -> None:
    """Run the sweep of one seed."""
    measure(["run", str(write(folder, folder / "mlflow.db", 1))], folder)


def write(folder: Path, database: Path, seeds: int) -> Path:
    """The sweep file."""
    path = folder / f"rows-{seeds}.yaml"
    path.write_text(SWEEP.format(seeds=list(range(seeds)), uri=database))
    return path


def grow(folder: Path, seeds: int) -> tuple[Path, Path]:
    """A copy of the database with the runs of more seeds."""
    database = folder / f"mlflow-{seeds}.db"
    path = write(folder, database, seeds)
    if not database.exists():
        with sqlite3.connect(folder / "mlflow.db") as first, sqlite3.connect(database) as copy:
            first.backup(copy)
            fill(copy, path, f"sqlite:///{folder / 'mlflow.db'}")
        copy.close()
        first.close()
    return path, database


def fill(database: sqlite3.Connection, path: Path, uri: str) -> None:
    """Insert the runs that the sweep has and the database has not."""
    sweep = load_sweep(path)
    known = {(r.dataset, r.images_per_class, r.spec): r for r in Tracker(uri, sweep.tracking.experiment).records()}
    found = database.execute("SELECT value, run_uuid FROM tags WHERE key = ?", (fields.TRIAL_ID,))
    runs = dict(found.fetchall())
    rows = {key: {table: read(database, table, run) for table in TABLES} for key, run in runs.items()}
    chance = random.Random(0)
    for trial in survey(sweep, machine(sweep)).trials:
        if trial.seed:
            record = known[trial.cell.dataset, trial.cell.images_per_class, str(trial.cell.spec)]
            accuracy = min(1.0, max(0.0, (record.test_accuracy or 0.0) + chance.gauss(0, 0.03)))
            insert(database, rows[record.trial_id], trial, replace(record, test_accuracy=accuracy))
    database.execute("ANALYZE")
    database.commit()


def read(database: sqlite3.Connection, table: str, run: str) -> list[dict[str, object]]:
    """The rows of a run in a table."""
    cursor = database.execute(f"SELECT * FROM {table} WHERE run_uuid = ?", (run,))
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]


def insert(
    database: sqlite3.Connection, tables: dict[str, list[dict[str, object]]], trial: Trial, record: RunRecord
) -> None:
    """One run, as another one with what is its own."""
    row = replace(record, trial_id=trial.id, seed=trial.seed)
    texts = {fields.TRIAL_ID: trial.id, "seed": str(trial.seed), "mlflow.runName": trial.name}
    texts |= {f"{fields.RECORD}.0": json.dumps(asdict(row))}
    run = uuid4().hex
    for table, rows in tables.items():
        for values in own(rows, run, texts):
            holes = ", ".join("?" * len(values))
            database.execute(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({holes})", list(values.values()))


def own(rows: list[dict[str, object]], run: str, texts: dict[str, str]) -> Iterator[dict[str, object]]:
    """Rows of another run with its own id and texts."""
    for row in rows:
        values = row | {"run_uuid": run}
        if row.get("key") in texts:
            values["value"] = texts[str(row["key"])]
        yield values


def measure(words: list[str], folder: Path) -> tuple[float, float]:
    """Wall seconds of a command, and its most memory in MB."""
    told = folder / "told"
    with told.open("w") as file:
        start = perf_counter()
        process = subprocess.Popen([sys.executable, "-m", "fttune.cli", *words], cwd=folder, stdout=file, stderr=file)
        _, code, used = os.wait4(process.pid, 0)
    if code:
        raise SystemExit(told.read_text()[-2000:])
    return perf_counter() - start, used.ru_maxrss / 1024


if __name__ == "__main__":
    main()
