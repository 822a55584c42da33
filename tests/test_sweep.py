"""Whole sweeps through the command line and a real Ray: each trial once, whatever is added, broken or killed."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fttune.bundle import Bundle
from fttune.config import Resources, load_sweep
from fttune.errors import ConfigError
from fttune.record import CurvePoint, DistanceRecord, RunRecord
from fttune.runtime import Runtime
from fttune.sweep.budget import Brake, Budget
from fttune.sweep.driver import machine
from fttune.sweep.ground import prepare
from fttune.sweep.ledger import Job
from fttune.sweep.meter import Meter
from fttune.tracking.runs import Tracker
from fttune.trial import Trial
from images import write_parquet
from small_sweeps import database, fttune, once_each, results, told, undisturbed, write_sweep
from stores import free_port, make_database, runs_of, serving, wait_until


def test_a_sweep_grows_and_never_repeats_itself(tmp_path: Path) -> None:
    sweep, uri = write_sweep(tmp_path), database(tmp_path)
    assert told("plan", sweep) | {"store_bytes": 0} == {
        "sweep": "small",
        "total": 8,
        "done": 0,
        "failed": 0,
        "to_run": 8,
        "chosen": 8,
        "unknown": 0,
        "kept_networks": 0,
        "kept_bytes": 0,
        "store_bytes": 0,
        "not_prepared": ["mine"],
        "absent_weights": [],
        "cache": [],
        "training_images": 576,
        "seconds": None,
        "gpu_hours": None,
        "last_run": None,
    }
    assert not list(tmp_path.glob("mlflow*")), "a plan writes nothing"
    assert not list(tmp_path.glob("fttune_*")), "a plan writes nothing"

    first = fttune("run", sweep)
    assert first.returncode == 0, first.stderr
    assert "8 trials: 0 done, 0 failed, 8 to run; starting 8" in first.stderr
    assert "8/8" in first.stderr
    assert "No evidence" in first.stdout
    assert (tmp_path / "runs" / "small" / "report.html").exists()
    runs = once_each(uri, 8)
    (parent,) = runs_of(uri, "fttune", "sweep")
    assert {run.data.tags["mlflow.parentRunId"] for run in runs} == {parent.info.run_id}
    for tag in ("spec", "mode", "data_digest", "weights_digest", "torch_version", "git_commit", "fttune_version"):
        assert all(tag in run.data.tags for run in runs), tag

    again = fttune("run", sweep)
    assert again.returncode == 0
    assert "8 done, 0 failed, 0 to run; nothing to start" in again.stderr
    assert told("status", sweep)["done"] == 8

    changed = ["grid.datasets.mine.images_per_class=[2,4,5]"]
    assert told("run", sweep, *changed, "--dry-run")["to_run"] == 4
    assert told("run", sweep, *changed)["exit_code"] == 0
    once_each(uri, 12)

    other = write_sweep(tmp_path, name="other")
    adopted = fttune("run", other)
    assert "8 done, 0 failed, 0 to run; nothing to start" in adopted.stderr
    shared = [run for run in once_each(uri, 12) if run.data.tags.get("fttune.sweep.other") == "true"]
    assert len(shared) == 8

    assert told("report", other)["table"]["counts"]["done"] == 8
    for command in ("plan", "status", "report"):
        assert loaded(command, sweep) == ["mlflow"], "what only trains and schedules is not loaded"
    ours = {trial_id: result for trial_id, result in results(uri).items() if trial_id in undisturbed(sweep)}
    assert ours == undisturbed(sweep)


def loaded(*words: object) -> list[str]:
    """Of the heavy packages, those that a command has loaded by its end."""
    code = (
        "import atexit, sys\nfrom fttune.cli import main\n"
        "atexit.register(lambda: print(*sorted({'mlflow', 'optuna', 'ray', 'torch'} & {*sys.modules})))\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1].split()


def test_where_features_may_not_be_written_each_process_computes_its_own(tmp_path: Path) -> None:
    sweep, in_the_way = write_sweep(tmp_path, tables=True), tmp_path / "no_folder"
    in_the_way.write_text("in the way of the feature cache")
    done = fttune("run", sweep, FTTUNE_CACHE=str(in_the_way))
    assert done.returncode == 0, done.stderr
    why = rf"cannot write to {in_the_way}/\S+: .* FTTUNE_CACHE .*; until then each process computes its features"
    assert len(re.findall(why, done.stderr)) == 1, done.stderr
    once_each(database(tmp_path), 8)


BROKEN = """
import fttune.feature_claim
def broken(folder):
    raise OSError("injected")
fttune.feature_claim.claims = broken
"""


def test_failed_trials_are_listed_and_run_again_when_asked(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path, tables=True)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "sitecustomize.py").write_text(BROKEN)
    broken = fttune("run", sweep, PYTHONPATH=f"{tmp_path / 'broken'}:{os.environ.get('PYTHONPATH', '')}")
    assert broken.returncode == 1
    assert broken.stderr.count("FAILED") == 8, "four lines as they fail, four in the list"
    assert "OSError: injected" in broken.stderr
    retry = re.search(r"to run the failed trials again: (fttune run .* --retry-failed)", broken.stderr)
    assert retry
    assert str(sweep) in retry[1]
    state = told("plan", sweep)
    assert (state["done"], state["failed"], state["to_run"]) == (4, 4, 0)
    failures = told("status", sweep)["failures"]
    assert len(failures) == 4
    assert all("Traceback" in failure["traceback"] for failure in failures)
    shown = fttune("status", sweep).stderr
    assert (shown.count("FAILED"), shown.count("Traceback")) == (4, 1), "what failed of one thing is traced once"

    plain = fttune("run", sweep)
    assert plain.returncode == 1
    assert "nothing to start" in plain.stderr
    retried = fttune("run", sweep, "--retry-failed")
    assert retried.returncode == 0, retried.stderr
    assert "starting 4" in retried.stderr
    once_each(database(tmp_path), 8)


def test_trials_that_train_together_are_logged_each_for_itself_and_go_on_where_they_ended(tmp_path: Path) -> None:
    grid = {
        "datasets": {"mine": {"parquet": "rows.parquet", "images_per_class": [2], "val": 3, "test": 5}},
        "backbones": ["tiny"],
        "random_top": [1],
        "modes": ["freeze"],
        "seeds": list(range(6)),
    }
    write_parquet(tmp_path / "rows.parquet")
    sweep, uri = write_sweep(tmp_path, tables=True, grid=grid), database(tmp_path)
    first = fttune("run", sweep, "--limit", 4)
    assert first.returncode == 0, first.stderr
    rest = fttune("run", sweep)
    assert "6 trials: 4 done, 0 failed, 2 to run; starting 2" in rest.stderr
    (said,) = re.findall(r"estimated 0:\d\d, took \d:\d\d \(\d+% off\)", rest.stderr)
    assert f"the last run here that came to its end, 2 trials: {said}" in fttune("plan", sweep).stderr
    once_each(uri, 6)
    records = Tracker(uri, "fttune").records()
    assert sorted(record.together for record in records) == [2, 2, 4, 4, 4, 4]
    assert len({record.seed for record in records}) == 6
    plan = told("plan", sweep, "grid.seeds=[0,1,2,3,4,5,6]")
    assert [(layer["depth"], layer["kept"]) for layer in plan["cache"]] == [(3, True)]
    assert plan["seconds"] > 0


def test_a_server_killed_in_mid_sweep_is_caught_up_later(tmp_path: Path) -> None:
    store, port = make_database(tmp_path), free_port()
    sweep = write_sweep(tmp_path, tracking={"uri": f"http://127.0.0.1:{port}"})
    words = [sys.executable, "-m", "fttune.cli", "run", str(sweep)]
    with ExitStack() as server:
        server.enter_context(serving(store, port, tmp_path))
        with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
            wait_until(lambda: any(run.info.status == "FINISHED" for run in runs_of(store, "fttune")))
            server.close()
            assert process.stderr is not None
            rest = process.stderr.read()
    assert process.returncode == 4, rest
    assert "8/8" in rest, "trials go on without the tracker"
    assert re.search(r"\d+ events wait in \S+\.spool: the tracker http://127\.0\.0\.1:\d+ does not answer", rest), rest
    away = fttune("run", sweep)
    assert away.returncode == 4
    assert away.stderr.startswith("error: the tracker http://127.0.0.1")
    assert "\n" not in away.stderr.strip()
    with serving(store, port, tmp_path):
        back = fttune("run", sweep)
    assert back.returncode == 0, back.stderr
    assert "8 done, 0 failed, 0 to run; nothing to start" in back.stderr
    once_each(store, 8)


@dataclass
class Watcher:
    """A listener that counts how many trials are under way."""

    now: set[str] = field(default_factory=set)
    most: int = 0
    finished_ids: list[str] = field(default_factory=list)

    def started(self, trial: Trial) -> None:
        pass

    def point(self, trial_id: str, point: CurvePoint) -> None:
        self.now.add(trial_id)
        self.most = max(self.most, len(self.now))

    def finished(self, record: RunRecord, traceback: str = "") -> None:
        self.now.discard(record.trial_id)
        self.finished_ids.append(record.trial_id)

    def distance(self, record: DistanceRecord) -> None:
        raise AssertionError("no distance was asked for")


def test_a_quarter_of_a_gpu_puts_four_trials_side_by_side(tmp_path: Path) -> None:
    from fttune.sweep.cluster import cluster
    from fttune.sweep.machines import await_place
    from fttune.sweep.tune import run_jobs

    path = write_sweep(tmp_path, train={"lr": 0.05, "steps": 1500, "image_size": 32, "report_every": 20})
    sweep = load_sweep(path, ["resources.gpu=0.25", "resources.cpu=0.5", "resources.max_concurrent=null"])
    runtime: Runtime = machine(sweep)
    ground = prepare(sweep, runtime, lambda *_: None)
    watcher = Watcher()
    with cluster(None, cpus=8, gpus=1):
        for wrong in (Resources(gpu=2), Resources(cpu=9)):
            with pytest.raises(ConfigError, match="a trial asks for"):
                await_place(wrong, lambda: False)
        jobs, meter = [Bundle.alone(trial) for trial in ground.trials[:6]], Meter()
        outcome = run_jobs(jobs, runtime, sweep.resources, [watcher], meter=meter)
        brake = Brake(Budget(gpu_hours=meter.gpu_hours / 1e6), Meter())
        one = sweep.resources.model_copy(update={"max_concurrent": 1})
        early = run_jobs(jobs, runtime, one, [Watcher()], meter=brake.meter, stop=brake)
    assert outcome.complete
    assert 0 < meter.gpu_hours < 1
    assert meter.share == brake.meter.share == 0
    assert brake.reached.startswith("gpu_hours=")
    assert not early.complete
    assert not early.failed
    assert sorted(watcher.finished_ids) == sorted(trial.id for trial in ground.trials[:6])
    assert watcher.most == 4


@pytest.mark.parametrize("most", [None, 1], ids=["Tune asked for all", "Tune asked for one"])
def test_what_waits_starts_in_the_order_that_the_trials_before_it_teach(tmp_path: Path, most: int | None) -> None:
    from fttune.sweep.cluster import cluster
    from fttune.sweep.tune import run_jobs

    sweep = load_sweep(write_sweep(tmp_path), ["grid.seeds=[0,1,2]"])
    ground, watcher, told = prepare(sweep, machine(sweep), lambda *_: None), Watcher(), []
    resources, trials = sweep.resources.model_copy(update={"max_concurrent": most}), ground.trials[:6]

    def backwards(jobs: Sequence[Job], records: Sequence[RunRecord]) -> list[int]:
        told.append([record.trial_id for record in records])
        return [*reversed(range(len(jobs)))]

    handler = signal.getsignal(signal.SIGINT)
    with cluster(None, cpus=1):
        run_jobs([*map(Bundle.alone, trials)], machine(sweep), resources, [watcher], order=backwards)
    assert watcher.finished_ids == [trials[place].id for place in (0, 5, 1, 2, 4, 3)]
    assert signal.getsignal(signal.SIGINT) is handler, "Tune leaves its own behind, which would swallow the next signal"
    assert told == [watcher.finished_ids[:ended] for ended in (1, 2, 4)]
