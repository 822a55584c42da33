"""Run jobs, and those that follow from them, on a Ray cluster.

With `actor`, `cluster`, `admission`, `machines`, `feed`, `probe` and `queue`, the only file that imports ray.
"""

import logging
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal

import ray
from ray import tune

from fttune.config import Resources
from fttune.interrupt import handler_kept
from fttune.runtime import Runtime
from fttune.sweep import machines
from fttune.sweep.actor import Worker, pack, place
from fttune.sweep.feed import Feed
from fttune.sweep.fraction import shares
from fttune.sweep.ledger import Job, Ledger, Listener, More, Order, Outcome, Run
from fttune.sweep.meter import Meter
from fttune.sweep.probe import probe
from fttune.sweep.queue import Queue
from fttune.sweep.supply import Supply

_LOOK = 3.0  # seconds between two looks at what is there
_NOTICED = 30.0  # seconds within which a cluster notices that a machine is gone; Ray takes 15


def run_jobs(
    jobs: Sequence[Job],
    runtime: Runtime,
    resources: Resources,
    listeners: Sequence[Listener],
    *,
    supply: Supply | None = None,
    meter: Meter | None = None,
    more: More | None = None,
    order: Order = lambda jobs, records: range(len(jobs)),
    stop: Callable[[Outcome], bool] = lambda outcome: False,
    say: Callable[[str], None] = lambda line: None,
) -> Outcome:
    """Run every job to its end, in order, as many side by side as fit; processes are reused from job to job.

    `more` is asked at the end of each trial, from Tune's loop, for the jobs that follow from it; `order` now and then
    for the places of those that wait, in the order in which they are to start. `say` tells the user a line.

    What is to be tried again (`Ledger` says what and how often) is, once the rest is done. Returns when all came to an
    end; or, what was under way being saved, with `complete` false: after an interrupt (SIGINT or SIGTERM), as soon
    as `stop`, which is asked between any two events, says so, and when no machine has what the rest reads.
    """
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    given = shares(
        jobs,
        resources.gpu,
        machines.models(),
        runtime.state,
        lambda model, some: probe(model, some, runtime, supply, say, lambda: stop(Outcome())),
    )
    ledger = Ledger(
        jobs,
        listeners,
        runtime.git_commit,
        shares=given,
        meter=meter,
        more=more or (lambda record: ()),
        say=say,
    )
    dead = machines.ids(alive=False)
    with suppress(KeyboardInterrupt):  # between two rounds; within one, Tune hears it
        while ledger.runs and not stop(ledger.outcome):
            if _placeable({(frozenset(ledger.lacks.unfit(run.job)), run.share) for run in ledger.runs}, resources):
                if not _round(ledger, runtime, resources, supply, more, order, stop):
                    break
            elif not _another(ledger, resources, stop, dead):
                break
    return ledger.outcome


def _placeable(asked: Iterable[tuple[Collection[str], float]], resources: Resources) -> bool:
    """Whether a machine is left for any run, of each of which the machines to avoid and the share are given."""
    return any(machines.avoided(avoid, resources.cpu, share) is not None for avoid, share in asked)


def _another(ledger: Ledger, resources: Resources, stop: Callable[[Outcome], bool], dead: set[str]) -> bool:
    """Have a machine for one of the runs, of which none has any: another, or the same asked once more.

    False where there is none; the outcome says why. `dead` were those that were gone before the run began.
    """
    nearest = min(ledger.runs, key=lambda run: len(ledger.lacks.unfit(run.job)))
    unfit = ledger.lacks.unfit(nearest.job)
    if not unfit:  # forgotten since
        return True
    stopped, lost = partial(stop, ledger.outcome), machines.ids(alive=False) - dead
    if machines.await_other(unfit, resources.cpu, nearest.share, stopped, lost=lost) or stopped() or ledger.pardon():
        return True
    ledger.strand(next(iter(unfit.values())))
    return False


def _round(
    ledger: Ledger,
    runtime: Runtime,
    resources: Resources,
    supply: Supply | None,
    more: More | None,
    order: Order,
    stop: Callable[[Outcome], bool],
) -> bool:
    """Give every run of the ledger to a worker once; False when it was ended before all of them had."""
    dead = machines.ids(alive=False)  # not those that live: a node may join during the round, and vanish in it
    with tempfile.TemporaryDirectory(prefix="fttune-") as folder:
        known = [run.job for run in ledger.runs]
        worker = tune.with_parameters(Worker, packed=pack((known, runtime, supply)))
        feed = Feed(
            ledger.runs,
            resources.max_concurrent,
            waits=more is not None,
            avoid=_Avoided(ledger, resources),
        )
        queue = Queue(feed, lambda waiting: _ordered(waiting, ledger, order))
        tuner = tune.Tuner(
            tune.with_resources(worker, place(resources.cpu)),
            tune_config=tune.TuneConfig(reuse_actors=True, search_alg=feed, scheduler=queue, num_samples=-1),
            run_config=tune.RunConfig(
                storage_path=folder,
                name="sweep",
                verbose=0,
                callbacks=[_Relay(ledger)],
                # Trials save themselves; a worker that Tune saves at their end is not used again.
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                stop=_Stop(lambda: stop(ledger.outcome), _Stuck(ledger, resources)),
            ),
        )
        heard = _fit(tuner)
    if heard == "twice":
        # Nobody waits to learn whose fault an end was, so it is no trial's.
        ledger.close(machines.ids(alive=True) | dead)
        return False
    # Machines that are shut down tell workers and driver at once: then every trial may have said that it was stopped.
    return ledger.close(_lost(dead, ledger.runs)) and not heard


def _fit(tuner: tune.Tuner) -> Literal["", "once", "twice"]:
    """Run it; how often it was interrupted, while it ran and while Tune was ending its trials after that."""
    with handler_kept(signal.SIGINT):
        before = signal.getsignal(signal.SIGINT)
        try:
            tuner.fit()
        except KeyboardInterrupt:
            return "twice"
        # Tune puts a handler of its own there, and the old one back only once it has heard a signal.
        caught = threading.current_thread() is threading.main_thread()
        return "once" if caught and signal.getsignal(signal.SIGINT) is before else ""


def _ordered(waiting: Sequence[int], ledger: Ledger, order: Order) -> list[int]:
    """Numbers of runs, as `order` wants their jobs."""
    places = order([ledger.runs[number].job for number in waiting], ledger.outcome.finished) if waiting else ()
    return [waiting[place] for place in places]


def _lost(dead: set[str], runs: Sequence[Run]) -> set[str]:
    """The machines that vanished since `dead` were; a cluster learns of it later than of the end of what ran there."""
    here = ray.get_runtime_context().get_node_id()
    others = machines.ids(alive=True) - {here}
    judged = [run for run in runs if run.died and run.open and run.node != here and (run.node or others)]
    while True:
        lost = machines.ids(alive=False) - dead
        unexplained = [run.died for run in judged if not (run.node in lost if run.node else lost)]
        if not unexplained or time.monotonic() > max(unexplained) + _NOTICED:
            return lost
        time.sleep(0.2)


class _Relay(tune.Callback):
    """Turns what Tune says about its trials into entries of our ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._runs = ledger.runs

    def __getstate__(self) -> dict[str, Any]:
        # Tune saves its callbacks beside its own state, which is never restored: what is logged is the state.
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._ledger.started(self._run(trial))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        self._ledger.hear(self._run(trial), result["node"], result["news"])

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        why = Path(trial.error_file).read_text() if trial.error_file else ""
        self._ledger.died(self._run(trial), why)

    def _run(self, trial: Any) -> Run:
        return self._runs[trial.config["job"]]


class _Avoided:
    """The machines that a run is not to be given to, None where no other is left; looked up once a second."""

    def __init__(self, ledger: Ledger, resources: Resources) -> None:
        self._ledger, self._resources = ledger, resources
        self._known: dict[tuple[Collection[str], float], Collection[str] | None] = {}
        self._until = 0.0

    def __call__(self, run: Run) -> Collection[str] | None:
        if time.monotonic() > self._until:
            self._known.clear()
            self._until = time.monotonic() + 1
        key = frozenset(self._ledger.lacks.unfit(run.job)), run.share
        if key not in self._known:
            self._known[key] = machines.avoided(key[0], self._resources.cpu, run.share)
        return self._known[key]


class _Stuck:
    """Whether all that is left of a round waits for a machine that has gone, since those that are there lack something.

    So for a while: a machine may join. What waits is withheld then.
    """

    def __init__(self, ledger: Ledger, resources: Resources) -> None:
        self._ledger, self._resources = ledger, resources
        self._since: float | None = None
        self._next = 0.0  # look

    def __call__(self) -> bool:
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + _LOOK
        if self._ledger.meter.keys or not self._stuck():
            self._since = None
            return False
        self._since = self._since or now
        if now < self._since + _NOTICED:
            return False
        for run in self._left():
            run.withheld = True
        return True

    def _stuck(self) -> bool:
        asked = {
            (frozenset(run.avoid if run.given else self._ledger.lacks.unfit(run.job)), run.share)
            for run in self._left()
        }
        return bool(asked) and not _placeable(asked, self._resources)

    def _left(self) -> list[Run]:
        return [run for run in self._ledger.runs if run.open and not run.died and not run.withheld]


class _Stop(tune.Stopper):
    """Ends the whole sweep once one of the conditions holds."""

    def __init__(self, *conditions: Callable[[], bool]) -> None:
        self._conditions = conditions

    def __getstate__(self) -> dict[str, Any]:
        # As with the relay: saved by Tune, and never restored.
        return {}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return any(holds() for holds in self._conditions)
