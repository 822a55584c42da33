"""Run a finished, flat list of jobs on a Ray cluster. The only file that imports ray."""

import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

# Read by Ray when it is imported or started. Left to itself Ray would rebuild the environment of `uv run` for every
# worker, write its own logs of each result, and count usage.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
# Keep freed memory in the process: training frees and asks for the same blocks at every step
# (benchmarks/allocator.py measures what it brings).
ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "4294967296",
    "MALLOC_TOP_PAD_": "268435456",
}

import ray
from ray import tune

from fttune.bundle import Bundle
from fttune.config import Resources
from fttune.distance.job import DistanceJob
from fttune.errors import ConfigError, UnreachableError
from fttune.record import CurvePoint, DistanceRecord, RunRecord
from fttune.runtime import Runtime
from fttune.sweep.worker import Job, Wire, work
from fttune.trial import Trial

_RESTARTS = 2  # of a job whose process died; an error of the job itself is not tried again


class Listener(Protocol):
    """Who wants to know how a sweep goes; called on the driver, from Tune's loop, so it must return at once."""

    def started(self, trial: Trial) -> None: ...

    def point(self, trial_id: str, point: CurvePoint) -> None: ...

    def finished(self, record: RunRecord, traceback: str = "") -> None: ...

    def distance(self, record: DistanceRecord) -> None: ...


@dataclass(kw_only=True, slots=True)
class Outcome:
    """What became of a list of jobs."""

    finished: list[RunRecord] = field(default_factory=list)
    failed: list[RunRecord] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # a line for each distance that could not be measured
    lost: int = 0  # distances whose measurement failed
    complete: bool = False  # every job came to an end; otherwise interrupted or stopped at the first failure


@contextmanager
def cluster(address: str | None, *, cpus: int | None = None, gpus: int | None = None) -> Iterator[None]:
    """A Ray cluster for the length of the block: the one at `address`, or one of our own on this machine."""
    os.environ.update({name: value for name, value in ALLOCATOR.items() if name not in os.environ})
    local: dict[str, Any] = {"num_cpus": cpus, "num_gpus": gpus, "include_dashboard": False}
    try:
        ray.init(
            address=address or "local",
            log_to_driver=False,
            logging_level=logging.ERROR,
            **({} if address else local),
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UnreachableError(f"no Ray cluster at {address or 'this machine'}: {str(error).splitlines()[0]}") from None
    try:
        yield
    finally:
        ray.shutdown()


def run_jobs(
    jobs: Sequence[Job],
    runtime: Runtime,
    resources: Resources,
    listeners: Sequence[Listener],
    *,
    fail_fast: bool = False,
) -> Outcome:
    """Run every job once, in order, as many side by side as fit; processes are reused from job to job.

    Returns when all came to an end, or after an interrupt (SIGINT) with `complete` false.
    """
    share = _share(resources)
    relay = _Relay(jobs=jobs, listeners=listeners, git_commit=runtime.git_commit)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="fttune-") as folder:
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(_work, jobs=list(jobs), runtime=runtime), share),
            param_space={"job": tune.grid_search(list(range(len(jobs))))},
            tune_config=tune.TuneConfig(reuse_actors=True, max_concurrent_trials=resources.max_concurrent),
            run_config=tune.RunConfig(
                storage_path=folder,
                name="sweep",
                verbose=0,
                callbacks=[relay],
                stop=_StopAtFailure(relay.outcome) if fail_fast else None,
                failure_config=tune.FailureConfig(max_failures=_RESTARTS),
            ),
        )
        tuner.fit()
    relay.outcome.complete = len(relay.ended) == sum(len(job.trials) if isinstance(job, Bundle) else 1 for job in jobs)
    return relay.outcome


def _share(resources: Resources) -> dict[str, float]:
    """What one job occupies on the running cluster; ConfigError when no machine of ours could ever offer it."""
    offered = ray.cluster_resources()
    gpus = offered.get("GPU", 0)
    gpu = (0.25 if gpus else 0.0) if resources.gpu == "auto" else float(resources.gpu)
    for name, asked, has in (("gpu", gpu, gpus), ("cpu", resources.cpu, offered.get("CPU", 0))):
        if asked > has:
            raise ConfigError(f"resources.{name}: a trial asks for {asked:g}, but the cluster has {has:g}")
    return {"cpu": resources.cpu, "gpu": gpu}


def _work(config: dict[str, Any], *, jobs: Sequence[Job], runtime: Runtime) -> None:
    """On a worker: run one job and report what it came to as plain values."""
    wire = Wire(tune.report)
    work(jobs[config["job"]], runtime, wire)
    wire.send()


class _Relay(tune.Callback):
    """Turns what Tune says about its trials into calls on our listeners."""

    def __init__(self, *, jobs: Sequence[Job], listeners: Sequence[Listener], git_commit: str) -> None:
        self.outcome = Outcome()
        self.ended: set[str] = set()  # ids of trials, places of distances
        self._jobs = jobs
        self._listeners = listeners
        self._git_commit = git_commit

    def __getstate__(self) -> dict[str, Any]:
        # Tune saves its callbacks beside its own state, which is never restored: what is logged is the state.
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        job = self._jobs[trial.config["job"]]
        for one in job.trials if isinstance(job, Bundle) else ():
            for listener in self._listeners:
                listener.started(one)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        for news in result["news"]:
            self._hear(trial.config["job"], news)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        place = trial.config["job"]
        job, reason = self._jobs[place], f"the process of the trial died {_RESTARTS + 1} times"
        for name in [one.id for one in job.trials] if isinstance(job, Bundle) else [str(place)]:
            if self._ends(name):
                self._fail(job, name, reason, "")

    def _hear(self, place: int, news: dict[str, Any]) -> None:
        if "point" in news:
            for listener in self._listeners:
                listener.point(news["trial"], CurvePoint(**news["point"]))
        elif "record" in news:
            if self._ends(news["record"]["trial_id"]):
                self._finish(RunRecord(**news["record"]))
        elif self._ends(name := news.get("trial", str(place))):
            if "distance" in news:
                for listener in self._listeners:
                    listener.distance(DistanceRecord(**news["distance"]))
            else:
                self._fail(self._jobs[place], name, news["error"], news["traceback"])

    def _ends(self, name: str) -> bool:
        """Whether this is the first end of a trial: Tune restarts one whose process dies after its last report."""
        first = name not in self.ended
        self.ended.add(name)
        return first

    def _fail(self, job: Job, name: str, reason: str, trace: str) -> None:
        first = reason.splitlines()[0]
        if isinstance(job, DistanceJob):
            self.outcome.lost += 1
            self.outcome.notes.append(f"FAILED  {job.metric} distance of {job.dataset} not measured: {first}")
            return
        (trial,) = (trial for trial in job.trials if trial.id == name)
        self._finish(RunRecord.of(trial, status="failed", error=first, git_commit=self._git_commit), trace)

    def _finish(self, record: RunRecord, trace: str = "") -> None:
        kept: Literal["failed", "finished"] = "failed" if record.status == "failed" else "finished"
        getattr(self.outcome, kept).append(record)
        for listener in self._listeners:
            listener.finished(record, trace)


class _StopAtFailure(tune.Stopper):
    """Ends the whole sweep once a trial has failed."""

    def __init__(self, outcome: Outcome) -> None:
        self._outcome = outcome

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return bool(self._outcome.failed)
