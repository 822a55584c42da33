"""Real trackers for tests: an SQLite database, and a server that can be killed."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import strategies as st

from fttune.record import CurvePoint, DistanceRecord, RunRecord, Status
from fttune.tracking.runs import Tracker
from fttune.trial import Trial
from values import make_trial

TRIALS = [make_trial(seed=seed) for seed in range(12)]
POINTS = [CurvePoint(step=s, train_loss=1 / s, val_loss=2 / s, val_accuracy=s / 70) for s in range(5, 55, 5)]


def record_of(trial: Trial, status: Any = "done", **measured: Any) -> RunRecord:
    return RunRecord.of(trial, status=status, **({"val_accuracy": 0.1 + 0.2, "best_step": 5} | measured))


def records() -> st.SearchStrategy[RunRecord]:
    """Records with anything in every field."""
    number = st.floats(allow_nan=False)
    integer = st.integers(-(2**63), 2**63 - 1)
    kinds: dict[Any, st.SearchStrategy[Any]] = {str: st.text(), int: integer, float: number}
    kinds |= {int | None: st.none() | integer, float | None: st.none() | number}
    kinds |= {Status: st.sampled_from(["done", "failed"])}
    return st.builds(RunRecord, **{field.name: kinds[field.type] for field in fields(RunRecord)})


def make_distance(**changes: Any) -> DistanceRecord:
    values = {
        "dataset": "digits", "backbone": "tiny", "source": "glyphs", "metric": "cosine", "image_size": 32,
        "resize": "crop", "value": 0.1 + 0.2, "low": 0.25, "high": 0.35, "images": 50, "source_images": 80,
        "data_digest": "d" * 64, "weights_digest": "w" * 64,
    }  # fmt: skip
    return DistanceRecord(**(values | changes))


@cache
def _empty_database() -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "empty.db"
        Tracker(f"sqlite:///{path}", "unused").open_sweep("unused")
        return path.read_bytes()


def make_database(folder: Path) -> str:
    """The URI of a database with MLflow's tables in it, which takes MLflow two seconds to make."""
    path = folder / "mlflow.db"
    path.write_bytes(_empty_database())
    return f"sqlite:///{path}"


def runs_of(uri: str, experiment: str, kind: str = "trial") -> list[Any]:
    """Every run of a kind as MLflow has it, past our own reading."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    found = client.get_experiment_by_name(experiment)
    return list(client.search_runs([found.experiment_id], f"tags.`fttune.kind` = '{kind}'")) if found else []


def curve_of(uri: str, run_id: str) -> list[CurvePoint]:
    """Every row of a run's learning curve, repeated ones too."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    names = [name for name in asdict(POINTS[0]) if name != "step"]
    histories = [client.get_metric_history(run_id, name) for name in names]
    assert len({len(history) for history in histories}) == 1
    return [
        CurvePoint(step=rows[0].step, **{row.key: row.value for row in rows}) for rows in zip(*histories, strict=True)
    ]


def wait_until(condition: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def serving(database: str, port: int, folder: Path) -> Iterator[None]:
    """A real MLflow server on a database; leaving the block kills it with SIGKILL."""
    options = ["--backend-store-uri", database, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", *options],
        cwd=folder,
        env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_until(lambda: server.poll() is not None or answers(port))
        assert server.poll() is None
        yield
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def answers(port: int) -> bool:
    """Whether an MLflow server is up."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1):
            return True
    except OSError:
        return False
