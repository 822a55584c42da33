"""One `fttune run`: what is logged already, what is missing, and getting it run and logged."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fttune.bundle import Bundle
from fttune.code import commit
from fttune.code import digest as digest_of_code
from fttune.config import Sweep
from fttune.cost import CostModel, price
from fttune.errors import ConfigError, UsageError
from fttune.files import claimed, held, place, writing
from fttune.plan import Plan, only, pending
from fttune.record import RunRecord
from fttune.runtime import Runtime, cores
from fttune.sweep.budget import Brake
from fttune.sweep.forecast import cost_model
from fttune.sweep.ground import Ground, studies_file
from fttune.sweep.progress import Display
from fttune.sweep.sequel import Sequel
from fttune.sweep.supply import Supply
from fttune.tracking.runs import Tracker
from fttune.tracking.uri import database_file
from fttune.trial import Trial, digest

if TYPE_CHECKING:
    from fttune.sweep.ledger import Job, Listener, More, Order, Outcome


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """Which of a sweep's trials a run is about."""

    retry_failed: bool = False  # the failed ones, instead of those that never ran
    only: Sequence[str] = ()  # key=value conditions
    again: str = ""  # the id of a trial that is done, to be run once more; nothing else runs then
    limit: int | None = None  # trials at most


def machine(sweep: Sweep) -> Runtime:
    """Where this machine keeps its files, and what a trial may use of it."""
    return Runtime(
        store=place("store"),
        cache=place("features"),
        state=place("state"),
        networks=None if sweep.train.keep == "none" else state_file(sweep, ".networks"),
        checkpoint_seconds=sweep.resources.checkpoint_seconds,
        cache_bytes=int(sweep.resources.cache_gb * 1e9),
        threads=max(1, int(sweep.resources.cpu)),
        weights=sweep.data.weights,
        git_commit=commit(),
    )


def check_cores(sweep: Sweep) -> None:
    """ConfigError when a trial asks for more cores than this machine has; it would wait for ever."""
    if sweep.resources.cpu > cores():
        raise ConfigError(f"resources.cpu: a trial asks for {sweep.resources.cpu:g}, but this machine has {cores()}")


def seek_cluster(address: str) -> None:
    """UsageError or UnreachableError when no cluster at this address would have us, before any work is done for it."""
    from fttune.sweep.admission import seek_admission

    seek_admission(address)


def open_tracker(sweep: Sweep) -> Tracker:
    """The sweep's tracker; it is not asked anything yet."""
    return Tracker(sweep.tracking.uri, sweep.tracking.experiment)


def choose(plan: Plan, choice: Choice) -> list[Trial]:
    """The trials to run now, the costliest first; UsageError for one that is to run again, but never ran."""
    if choice.again:
        return _again(plan, choice.again)
    trials = only(plan.failed if choice.retry_failed else plan.to_run, choice.only)
    return trials[: choice.limit]


def _again(plan: Plan, trial_id: str) -> list[Trial]:
    found = [trial for trial in plan.done if trial.id.startswith(trial_id)]
    if len(found) != 1:
        what = "several done trials begin" if found else "no done trial of this sweep begins"
        raise UsageError(f"--again: {what} with '{trial_id}'; `fttune runs` lists them")
    if found[0].seed < 0:
        raise UsageError(f"--again: {found[0].id} tried a setting of a search, and such a network is never kept")
    return found


def state_file(sweep: Sweep, suffix: str) -> Path:
    """A file of this sweep's own on this machine, whatever folder it is run from."""
    uri = open_tracker(sweep).uri
    file = database_file(uri)
    key = digest([str(file.absolute()) if file else uri, sweep.tracking.experiment, sweep.name])[:16]
    return place("state") / f"{sweep.name}-{key}{suffix}"


def last_tracked(sweep: Sweep) -> Sweep:
    """The sweep with the tracker that it was last run with on this machine, where this folder has none."""
    file, note = database_file(open_tracker(sweep).uri), _note(sweep)
    if file is None or file.is_absolute() or file.exists() or not note.exists():
        return sweep
    return sweep.model_copy(update={"tracking": sweep.tracking.model_copy(update={"uri": note.read_text()})})


def _note(sweep: Sweep) -> Path:
    """Where the database is that a sweep was last run with, whatever folder that was in."""
    return place("state") / f"{sweep.name}-{digest([sweep.tracking.experiment, sweep.name])[:16]}.tracker"


@contextmanager
def alone(sweep: Sweep) -> Iterator[None]:
    """Hold the sweep on this machine; UsageError while another process runs it."""
    lock = state_file(sweep, ".lock")
    with writing(lock.parent):
        lock.touch()
    with claimed(lock) as free:
        if not free:
            raise UsageError(f"sweep '{sweep.name}' is being run by another process; `fttune status` shows how it goes")
        if file := database_file(open_tracker(sweep).uri):
            with writing(lock.parent):
                _note(sweep).write_text(f"sqlite:///{file.absolute()}")
        yield


def is_running(sweep: Sweep) -> bool:
    """Whether a process of this machine runs the sweep now."""
    return held(state_file(sweep, ".lock"))


def planned(ground: Ground, runtime: Runtime, records: Sequence[RunRecord]) -> tuple[Plan, CostModel]:
    """What is done of a sweep and what is to run, the costliest first, and what it costs."""
    asked = ground.asked(records)
    model = cost_model(ground, runtime, records, asked.trials)
    return pending(asked.trials, records, price(model, asked.trials), unknown=asked.unknown), model


def distances(ground: Ground, tracker: Tracker) -> tuple[list["Job"], list[str]]:
    """The missing measurements, and a line for each that cannot be made."""
    wanted, impossible = ground.distances()
    known = {record.id for record in tracker.distances()}
    return [job for job in wanted if job.id not in known], impossible


def follow(
    ground: Ground,
    records: Sequence[RunRecord],
    make: Callable[[Sequence[Trial]], list[Bundle]],
    chosen: Sequence[Trial],
    choice: Choice,
    hearers: Sequence[Callable[[Sequence[Trial], Sequence[Trial], int], None]],
) -> Sequel | None:
    """What a search asks for as its trials end, made into jobs; None where nothing follows.

    From now on its studies are written.
    """
    if ground.sweep.search.sampler == "fixed" or choice.retry_failed or choice.again:
        return None

    def tell(new: Sequence[Trial], done: Sequence[Trial], unknown: int) -> None:
        for hear in hearers:
            hear(new, done, unknown)

    with writing(studies_file(ground.sweep).parent):
        return Sequel(
            ground.agenda(keep=True),
            records,
            make,
            conditions=choice.only,
            most=None if choice.limit is None else choice.limit - len(chosen),
            tell=tell,
        )


def work(
    jobs: Sequence["Job"],
    ground: Ground,
    runtime: Runtime,
    address: str | None,
    listeners: Sequence["Listener"],
    display: Display,
    brake: Brake,
    more: "More | None",
    order: "Order",
) -> "Outcome":
    """Run the jobs on a cluster, and those that follow from them."""
    from fttune.sweep.cluster import cluster
    from fttune.sweep.ledger import Outcome
    from fttune.sweep.machines import await_place
    from fttune.sweep.tune import run_jobs

    if not jobs:
        return Outcome(complete=True)
    with cluster(address):
        if not await_place(ground.sweep.resources, lambda: brake(Outcome())):
            return Outcome()
        with display:
            return run_jobs(
                jobs,
                runtime,
                ground.sweep.resources,
                [*listeners, display],
                supply=Supply.of(ground, code=digest_of_code() if address else ""),
                meter=brake.meter,
                more=more,
                order=order,
                stop=brake,
                say=display.note,
            )
