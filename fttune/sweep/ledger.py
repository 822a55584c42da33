"""What a list of jobs has come to: what is done, what has failed, what is to be tried again and why; needs no Ray."""

import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from fttune.bundle import Bundle
from fttune.distance.job import DistanceJob
from fttune.record import CurvePoint, DistanceRecord, RunRecord
from fttune.sweep.lacks import Lacks
from fttune.sweep.meter import Meter
from fttune.trial import Cell, Trial

Job = Bundle | DistanceJob
More = Callable[[RunRecord], Sequence[Bundle]]  # the jobs that follow from a trial's end
# The places of jobs that wait, in the order in which they are to start, given what trials of this run have come to.
Order = Callable[[Sequence[Job], Sequence[RunRecord]], Sequence[int]]
TRIES = 3  # how often what fails by itself is tried in all


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
    lost: int = 0  # distances whose measurement failed
    complete: bool = False  # every job came to an end; otherwise interrupted, stopped at the first failure or stranded
    stranded: str = ""  # why the rest cannot be run now


@dataclass(kw_only=True, slots=True)
class Run:
    """One run of one job on a worker."""

    job: Job
    share: float  # of a GPU
    given: bool = False  # Ray was asked for a place for it: its share stays as it is
    avoid: Collection[str] = ()  # machines that it is not to be given to
    withheld: bool = False  # no machine has what it reads
    node: str = ""  # where it runs, once it has told
    died: float = 0.0  # when its process was found to be gone, by time.monotonic; 0: it was not
    why: str = ""  # as Ray tells it
    stopped: bool = False  # it was told to stop, by whoever takes its machine away
    cramped: bool = False  # of its trials one ran out of the share
    ended: set[str] = field(
        default_factory=set
    )  # keys whose end was told in this run: done, failed or to be tried again

    @property
    def open(self) -> list[str]:
        """The keys whose end was not told; none where it was told to stop."""
        return [] if self.stopped else [key for key in keys(self.job) if key not in self.ended]

    @property
    def next_share(self) -> float:
        """Of a GPU, for whoever runs it again: twice this one once, however many of its trials ran out of it."""
        return min(1.0, 2 * self.share) if self.cramped else self.share


class Ledger:
    """Takes down what is told of jobs, tells the listeners, and says what is to be run next.

    A trial that fails by itself is tried `TRIES` times, one that a machine takes down with it or lacks the images of as
    often as need be, one that runs out of a GPU's memory with twice the share until it has a whole one.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        listeners: Sequence[Listener],
        git_commit: str,
        *,
        shares: Sequence[float],
        meter: Meter | None = None,
        more: More = lambda record: (),
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        """`say`: tells the user a line."""
        self.outcome = Outcome()
        self.meter = meter or Meter()
        self.runs = [Run(job=job, share=share) for job, share in zip(jobs, shares, strict=True)]
        self._listeners, self._more, self._say = listeners, more, say
        self._noted: set[str] = set()
        # Of what is asked for later nothing is measured: a GPU may not be free for it. What was too little is doubled.
        self._shares: dict[Cell, float] = {}
        for run in self.runs:
            self._need(run, run.share)
        self._git_commit = git_commit
        self.lacks = Lacks()
        self._pardoned = -1  # trials that had ended when all of that was forgotten last
        self._over: set[str] = set()
        self._failures: Counter[str] = Counter()
        self._alone: set[str] = set()  # trials whose bundle went down with its process

    def _need(self, run: Run, share: float) -> None:
        """The cell of a run takes at least a share of a GPU."""
        for cell in {trial.cell for trial in _trials(run.job)}:
            self._shares[cell] = max(share, self._shares.get(cell, 0.0))

    def started(self, run: Run) -> None:
        run.given = True
        self.meter.begin(id(run), keys(run.job), run.share)
        for trial in _trials(run.job):
            for listener in self._listeners:
                listener.started(trial)

    def hear(self, run: Run, node: str, news: Sequence[dict[str, Any]]) -> None:
        """What a worker on `node` tells of a run."""
        run.node, run.given = node, True
        for one in news:
            self._hear(run, one)
        if not run.open:
            self.meter.end(id(run))

    def died(self, run: Run, why: str = "") -> None:
        """The process of a run is gone."""
        run.died, run.why = time.monotonic(), why
        self.meter.end(id(run))

    def close(self, lost_nodes: Collection[str]) -> bool:
        """End a round in which every run was given to a worker; False when one was never told the end of.

        What is left becomes the runs of the next round.
        """
        whole, given = True, self.runs
        self.runs = []  # what is asked for because a trial is given up
        for run in given:
            self.meter.end(id(run))
            if not run.open or run.withheld:
                continue
            if not run.died:
                whole = False
            elif not (run.node in lost_nodes or (not run.node and lost_nodes)):
                self._died(run, run.open)
        self.runs = [*(again for run in given for again in self._again(run)), *self.runs]
        self.outcome.complete = not self.runs
        return whole

    def _hear(self, run: Run, news: dict[str, Any]) -> None:
        key = news.get("trial") or keys(run.job)[0]
        if "note" in news:
            self._note(news["note"])
        elif "stopped" in news:
            run.stopped = True
        elif key in self._over:
            return  # a process that dies after its last word is tried again, and says it again
        elif "point" in news:
            for listener in self._listeners:
                listener.point(key, CurvePoint(**news["point"]))
        elif (lacks := news.get("lacks")) is not None:
            run.ended.update(keys(run.job))
            if line := self.lacks.take(run.job, run.node, lacks, news["error"]):
                self._say(line)
        elif "error" in news:
            run.ended.add(key)
            self._failed(run, key, news)
        else:
            run.ended.add(key)
            self._done(key, news)

    def _note(self, line: str) -> None:
        """What a worker warns of, once: a full disk is met at each checkpoint."""
        if line not in self._noted:
            self._noted.add(line)
            self._say(line)

    def _done(self, key: str, news: dict[str, Any]) -> None:
        self._over.add(key)
        if "record" in news:
            self._finish(RunRecord(**news["record"]))
            return
        for listener in self._listeners:
            listener.distance(DistanceRecord(**news["distance"]))

    def _failed(self, run: Run, key: str, news: dict[str, Any]) -> None:
        if news["memory"] and run.share and run.share < 1:
            self._say(
                f"{_name(run.job, key)}: out of memory in {run.share:.3g} of a GPU; tried again with twice the share"
            )
            run.cramped = True
            self._need(run, run.next_share)
            for other in self.runs:  # those that wait would run out of it too
                if not other.given and (cells := {trial.cell for trial in _trials(other.job)}):
                    other.share = max(other.share, *(self._shares[cell] for cell in cells))
            return
        self._failures[key] += 1
        if news["final"] or self._failures[key] >= TRIES:
            self._give_up(run.job, key, news["error"], news["traceback"])

    def pardon(self) -> bool:
        """Forget what machines lacked, so that each is asked once more; False where nothing has ended since the last.

        What befalls a machine for a moment looks like what it lacks.
        """
        ended = len(self.outcome.finished) + len(self.outcome.failed)
        pardoned, self._pardoned = self._pardoned, ended
        if pardoned == ended:
            return False
        self.lacks.forget()
        return True

    def strand(self, line: str) -> None:
        """No machine is left for any run: they stay to be run; `line` says what one lacks."""
        self.outcome.stranded = f"no machine is left for it ({line})"

    def _died(self, run: Run, keys: Sequence[str]) -> None:
        """The process went down by itself: nobody knows which of its trials took it with it, so each goes alone."""
        for key in keys:
            self._failures[key] += 1
            self._alone.add(key)
            if self._failures[key] >= TRIES:
                self._give_up(run.job, key, f"the process of the trial died {TRIES} times", run.why)

    def _again(self, run: Run) -> list[Run]:
        left = [key for key in keys(run.job) if key not in self._over]
        if not left:
            return []
        share = run.next_share
        if isinstance(run.job, DistanceJob):
            return [Run(job=run.job, share=share)]
        trials = [trial for trial in run.job.trials if trial.id in left]
        apart = [(trial,) for trial in trials if trial.id in self._alone]
        beside = tuple(trial for trial in trials if trial.id not in self._alone)
        return [Run(job=replace(run.job, trials=some), share=share) for some in (*apart, *([beside] if beside else []))]

    def _give_up(self, job: Job, key: str, error: str, trace: str) -> None:
        self._over.add(key)
        first = error.splitlines()[0]
        if isinstance(job, DistanceJob):
            self.outcome.lost += 1
            self._say(f"FAILED  {job.metric} distance of {job.dataset} not measured: {first}")
            return
        (trial,) = (trial for trial in job.trials if trial.id == key)
        self._finish(RunRecord.of(trial, status="failed", error=first, git_commit=self._git_commit), trace)

    def _finish(self, record: RunRecord, trace: str = "") -> None:
        kept: Literal["failed", "finished"] = "failed" if record.status == "failed" else "finished"
        getattr(self.outcome, kept).append(record)
        for listener in self._listeners:
            listener.finished(record, trace)
        for job in self._more(record):
            share = self._shares.get(job.trials[0].cell, max(self._shares.values(), default=0.0))
            self.runs.append(Run(job=job, share=share))


def _trials(job: Job) -> tuple[Trial, ...]:
    return job.trials if isinstance(job, Bundle) else ()


def keys(job: Job) -> list[str]:
    """What news of a job are told under: a trial's id, or what tells one measurement from another."""
    return [trial.id for trial in job.trials] if isinstance(job, Bundle) else [repr(job.id)]


def _name(job: Job, key: str) -> str:
    return next((trial.name for trial in _trials(job) if trial.id == key), key)
