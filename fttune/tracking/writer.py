"""The one writer of a sweep: takes events from the sweep's own thread and brings them to the tracker from another."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from threading import Event as Flag
from threading import Thread
from typing import Self

from fttune.errors import FttuneError, StoreError
from fttune.record import CurvePoint, DistanceRecord, RunRecord
from fttune.tracking import fields
from fttune.tracking.claim import BEAT, Claim, Counts
from fttune.tracking.fields import SweepRun, TrialRun
from fttune.tracking.runs import Tracker
from fttune.tracking.spool import Event, Kind, Spool
from fttune.trial import Trial

_BATCH = 500  # events delivered between two acknowledgements
_LONGEST_WAIT = 4.0  # seconds between two attempts while the tracker is away


class Writer:
    """Brings what happens in a sweep to the tracker, exactly once.

    Each method puts an event into the spool (well under a millisecond) and returns; a thread delivers what waits every
    `pause` seconds. While the tracker is away, events stay in the spool, in order, and the thread keeps trying. What an
    earlier writer left in the same spool is delivered before the constructor returns, if the tracker answers, so
    records read after that are complete. Delivery may be cut off anywhere and repeated: the tracker's writes change
    nothing the second time.

    Use it as a context manager or call `close`. `notes` holds what the user should be told about the spool.
    """

    def __init__(
        self, tracker: Tracker, spool: Path, sweep: str, *, pause: float = 1.0, between_beats: float = BEAT
    ) -> None:
        self.counts: Callable[[], Counts] = Counts  # how far the sweep is, told with each sign of life
        self.lost = False  # another driver has taken the sweep: nothing is delivered any more
        self._tracker = tracker
        self._sweep = sweep
        self._pause = pause
        self._claim: Claim | None = None
        self._between_beats, self._next_beat = between_beats, 0.0
        self._spool = Spool(spool)
        self._running: set[str] = set()  # trials started here and not finished
        self._parent: SweepRun | None = None
        self._trials: dict[str, TrialRun] = {}
        self._problem = ""
        self._actions: deque[Callable[[], object]] = deque()  # see `then`
        self._closing, self._woken = Flag(), Flag()
        torn = f"{spool}: left out a last line of {self._spool.torn} bytes that was never written to its end"
        self.notes: tuple[str, ...] = (torn,) if self._spool.torn else ()
        self._deliver()
        self._thread = Thread(target=self._keep_delivering, name="fttune-writer", daemon=True)
        self._thread.start()

    @property
    def healthy(self) -> bool:
        """Whether the last delivery succeeded."""
        return not self._problem

    @property
    def problem(self) -> str:
        """Why the last delivery failed, in one line; empty when it did not."""
        return self._problem

    @property
    def trouble(self) -> str:
        """What keeps events from the tracker, in words; empty while they arrive."""
        return f"{self.backlog} events wait for the tracker: {self._problem}" if self._problem and self.backlog else ""

    @property
    def backlog(self) -> int:
        """Events that wait."""
        return len(self._spool)

    def hold(self, over: Claim | None = None) -> bool:
        """Claim the sweep, which is free or was left by `over`, until `close`; False where another driver has it.

        Raises UnreachableError.
        """
        own = Claim.own()
        held = self._tracker.take(self._tracker.open_sweep(self._sweep), own, over)
        self._claim = own if held else None
        return held

    def note(self, tag: str, text: str) -> None:
        """Tell the tracker of the sweep what its trials do not. Raises UnreachableError."""
        self._tracker.note(self._tracker.open_sweep(self._sweep), tag, text)

    def started(self, trial: Trial) -> None:
        """A trial began, or began again after it failed or was interrupted."""
        params = fields.trial_params(trial)
        tags = {name: params[name] for name in ("mode", "spec")}
        tags |= {"data_digest": trial.data_digest, "weights_digest": trial.weights_digest}
        self._running.add(trial.id)
        self._put("started", trial.id, {"name": trial.name, "params": params, "tags": tags})

    def point(self, trial_id: str, point: CurvePoint) -> None:
        """A running trial reported; a step that its curve already has is not written again."""
        self._put("point", trial_id, asdict(point))

    def finished(self, record: RunRecord, traceback: str = "") -> None:
        """A trial is done or has failed."""
        self._running.discard(record.trial_id)
        body = {"name": fields.record_name(record), "record": asdict(record), "traceback": traceback}
        self._put("finished", record.trial_id, body)

    def distance(self, record: DistanceRecord) -> None:
        """A distance was measured."""
        self._put("distance", record.id, asdict(record))

    def adopt(self, trials: Sequence[Trial]) -> None:
        """These trials are done already, and this sweep asks for them too."""
        if trials:
            self._put("adopted", "", {"trials": [trial.id for trial in trials]})

    def then(self, action: Callable[[], object]) -> None:
        """Have this called from the thread that delivers, once all that was told before has arrived.

        It must not raise and is to return at once: signs of life come from the same thread. At the end of the writer
        what was not called by then never is.
        """
        self._actions.append(action)
        self._woken.set()

    def close(self) -> int:
        """Deliver what waits, mark what still runs as stopped, and end the sweep's run.

        Gives the number of events that could not be delivered: they wait in the spool for the next writer.
        """
        if self._closing.is_set():
            return self.backlog
        for trial_id in sorted(self._running):
            self._put("stopped", trial_id, {})
        self._running.clear()
        self._closing.set()
        self._woken.set()
        self._thread.join()
        if self._deliver():
            self._end_sweep()
        if (lost := self._spool.close()) and self.backlog:
            self._note(f"{lost} of the events that wait could not be kept: their trials run again")
        return self.backlog

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _put(self, kind: Kind, key: str, body: dict[str, object]) -> None:
        try:
            self._spool.append(at=_now(), kind=kind, key=key, body=body)
        except StoreError as error:
            # The event still waits in memory: better to go on and say so than to lose the whole sweep.
            self._problem = str(error)
            self._note(f"{error}; what cannot be written waits in memory")

    def _note(self, line: str) -> None:
        """Tell the user once."""
        if line not in self.notes:
            self.notes = (*self.notes, line)

    def _keep_delivering(self) -> None:
        wait = self._pause
        while not self._closing.is_set():
            self._woken.wait(wait)
            self._woken.clear()
            action = self._actions[0] if self._actions else None  # before what it waits for is delivered, not meanwhile
            arrived = self._deliver()
            wait = self._pause if arrived else min(2 * wait, _LONGEST_WAIT)
            if arrived and action and not self._closing.is_set():
                self._actions.popleft()
                action()
            if self._actions and arrived:
                self._woken.set()

    def _deliver(self) -> bool:
        """Deliver all that waits; False, with `problem` set, if something still does."""
        try:
            self._beat()
            while not self.lost and (batch := self._spool.head(_BATCH)):
                with suppress(StoreError):  # what a disk refuses the tracker may still have
                    self._spool.sync()
                if self._write(batch):
                    self._spool.drop(batch[-1].number)
                    self._beat()
        except Exception as error:
            # Whatever it is, the thread must live on and say so: nobody else would see the events pile up.
            known = isinstance(error, FttuneError)
            self._problem = str(error) if known else f"{type(error).__name__}: {' '.join(str(error).split())}"
            self._parent = None
            self._trials.clear()
            return False
        self._problem = "another driver has taken the sweep" if self.lost else ""
        return not self.lost

    def _beat(self) -> None:
        """Give a sign of life when it is time for one."""
        if self._claim and not self.lost and time.monotonic() >= self._next_beat:
            self._parent = self._parent or self._tracker.open_sweep(self._sweep)
            self.lost = not self._tracker.beat(self._parent, self._claim.heard_now(self.counts()))
            self._next_beat = time.monotonic() + self._between_beats

    def _write(self, batch: Sequence[Event]) -> bool:
        """Trial by trial, so that a trial's events in a row become one request; False once the sweep is another's.

        Signs of life do not wait for the end of a batch, which may take a slow server minutes.
        """
        self._parent = parent = self._parent or self._tracker.open_sweep(self._sweep)
        by_key: dict[str, list[Event]] = {}
        for event in batch:
            by_key.setdefault(event.key, []).append(event)
        for events in by_key.values():
            for _, row in groupby(events, key=lambda event: event.kind):
                self._beat()
                if self.lost:
                    return False
                self._write_row(parent, list(row))
        return True

    def _write_row(self, parent: SweepRun, events: Sequence[Event]) -> None:
        """Events of one kind and one trial."""
        tracker, kind, key = self._tracker, events[0].kind, events[0].key
        if kind == "point":
            points = [(event.at, CurvePoint(**event.body)) for event in events]
            self._trials[key] = tracker.add_points(self._trial(parent, events[0]), points)
            return
        for event in events:
            if kind == "started":
                params, tags = event.body["params"], event.body["tags"]
                tracker.start_trial(self._trial(parent, event), params=params, tags=tags)
            elif kind == "finished":
                record = fields.revive(RunRecord, event.body["record"])
                run = self._trial(parent, event)
                tracker.finish_trial(run, record, event.body["traceback"], event.at)
                del self._trials[key]
            elif kind == "stopped":
                tracker.stop_trial(self._trial(parent, event), event.at)
            elif kind == "distance":
                tracker.write_distance(parent, fields.revive(DistanceRecord, event.body), event.at)
            else:
                tracker.adopt(parent, event.body["trials"], self._beat)

    def _trial(self, parent: SweepRun, event: Event) -> TrialRun:
        """The run of an event's trial; one that somebody deleted meanwhile is opened anew."""
        if event.key not in self._trials:
            name = event.body.get("name", event.key)
            self._trials[event.key] = self._tracker.open_trial(parent, event.key, name=name, at=event.at)
        return self._trials[event.key]

    def _end_sweep(self) -> None:
        if self._parent is None:
            return
        try:
            if self._claim:
                self._tracker.beat(self._parent, self._claim.heard_now(self.counts(), ended=True))
            self._tracker.close_sweep(self._parent, _now())
        except FttuneError as error:
            # Every result is delivered; the parent run stays open until the next writer ends it.
            self._problem = str(error)


def _now() -> int:
    """Milliseconds since 1970; each event has its own, so delivering it again gives the same rows."""
    return time.time_ns() // 1_000_000
