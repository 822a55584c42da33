"""How far a running sweep is: a listener that counts, and says how long the rest will take."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock

from fttune.bundle import Bundle
from fttune.cost import FUSED, CostModel, jobs
from fttune.plan import Plan, cost
from fttune.record import CurvePoint, DistanceRecord, RunRecord
from fttune.sweep.meter import Meter
from fttune.tracking.claim import Counts
from fttune.trial import Trial

_TRUSTED = 0.1  # of the sweep's cost: from here on what was seen counts alone, before it what was expected as well
_SETTLED = 30.0  # seconds before which starting processes is most of what was seen


@dataclass(slots=True)
class _Going:
    """A trial that has begun and not ended."""

    trial: Trial
    began: float
    first: int | None = None  # steps that an earlier run of it had made; None: it has not reported yet
    step: int = 0

    @property
    def part(self) -> float:
        """Of its steps, that are made."""
        return self.step / self.trial.hparams.steps

    @property
    def here(self) -> int:
        """Steps made since it began."""
        return self.step - (self.first or 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """A sweep at one moment."""

    counts: Counts  # of the whole sweep, what was done before this run included
    ended: int  # trials of this run
    chosen: int  # trials that this run is about
    images_per_second: float  # shown in training, on average since the first trial began
    gpus: float  # taken now


class Tally:
    """A listener on the trials that a run chose of a plan; may be looked at from any thread.

    `prices` are what trials cost, by id and in any unit; `expected` the seconds that all of them are expected to take.
    """

    def __init__(
        self,
        plan: Plan,
        chosen: Sequence[Trial],
        meter: Meter,
        prices: Mapping[str, float] | None = None,
        expected: float | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        again = set(chosen)
        self._total, self._unknown = plan.total, plan.unknown
        self._done = len([trial for trial in plan.done if trial not in again])
        self._failed = len([trial for trial in plan.failed if trial not in again])
        self._chosen, self._ended = len(chosen), 0
        self._prices = prices or {trial.id: cost(trial) for trial in chosen}
        self._left = sum(self._prices[trial.id] for trial in chosen)
        self._whole = self._left
        self._expected, self._meter, self._now = expected, meter, now
        self._start: float | None = None
        self._last: float | None = None
        self._going: dict[str, _Going] = {}
        self._cost = self._seconds = self._images = 0.0  # of trials that have ended: cost, time, images trained
        self._lock = Lock()

    def more(self, new: Sequence[Trial], done: Sequence[Trial], unknown: int) -> None:
        """A search has asked for `new` trials, and for some that are `done`; `unknown` more at most may follow."""
        with self._lock:
            self._total += len(new) + len(done) + unknown - self._unknown
            self._unknown = unknown
            self._done += len(done)
            self._chosen += len(new)
            each = self._whole / len(self._prices) if self._prices else 0.0
            fresh = {trial.id: each for trial in new}
            self._prices = {**self._prices, **fresh}
            self._left += sum(fresh.values())
            self._whole += sum(fresh.values())

    def started(self, trial: Trial) -> None:
        with self._lock:
            now = self._now()
            self._start = now if self._start is None else self._start
            self._going[trial.id] = _Going(trial, began=now)

    def point(self, trial_id: str, point: CurvePoint) -> None:
        with self._lock:
            going = self._going[trial_id]
            if going.first is None:
                going.first = max(0, point.step - going.trial.hparams.report_every)
            going.step = max(going.step, point.step)

    def finished(self, record: RunRecord, traceback: str = "") -> None:
        with self._lock:
            self._ended += 1
            self._last = self._now()
            if record.status == "failed":
                self._failed += 1
            else:
                self._done += 1
            self._left -= self._prices[record.trial_id]
            if going := self._going.pop(record.trial_id, None):
                self._cost += self._spent(going)
                self._seconds += self._now() - going.began
                self._images += going.here * min(record.batch_size, record.train_images or record.batch_size)

    def distance(self, record: DistanceRecord) -> None:
        """It is no trial."""

    @property
    def under_way(self) -> set[str]:
        """The ids of the trials that run now."""
        return self._meter.keys

    def until_last(self, start: float) -> float | None:
        """Seconds from `start` to the end of the last trial; None before any has ended."""
        return None if self._last is None else self._last - start

    def counts(self) -> Counts:
        return self.look().counts

    def look(self) -> Look:
        with self._lock:
            under_way = self._meter.keys
            going = [one for one in self._going.values() if one.trial.id in under_way]
            counts = Counts(
                total=self._total,
                done=self._done,
                running=len(going),
                failed=self._failed,
                seconds=self._remaining(going),
            )
            return Look(
                counts=counts,
                ended=self._ended,
                chosen=self._chosen,
                images_per_second=self._speed(going),
                gpus=self._meter.share,
            )

    def _spent(self, going: _Going) -> float:
        return self._prices[going.trial.id] * going.here / going.trial.hparams.steps

    def _speed(self, going: Sequence[_Going]) -> float:
        elapsed = self._elapsed()
        images = self._images + sum(one.here * one.trial.hparams.batch_size for one in going)
        return images / elapsed if elapsed else 0.0

    def _remaining(self, going: Sequence[_Going]) -> float | None:
        """Seconds: what is left at the pace so far, but no less than the longest that is under way takes by itself.

        The parts of trials that are under way count, or with many side by side the first to end would stand for all
        that was worked until then. While little is done, the cost model's word goes before what was seen.
        """
        left = self._left - sum(self._prices[one.trial.id] * one.part for one in self._going.values())
        worked = self._cost + sum(map(self._spent, going))
        if not worked:
            return self._expected
        seconds = self._seconds + sum(self._now() - one.began for one in going)
        longest = max((self._prices[one.trial.id] * (1 - one.part) for one in going), default=0.0)
        seen = max(self._elapsed() * left, seconds * longest) / worked
        trust = min(1.0, worked / self._whole / _TRUSTED)
        if self._expected is None:
            return seen if trust == 1 or self._elapsed() >= _SETTLED else None
        return trust * seen + (1 - trust) * self._expected * left / self._whole

    def _elapsed(self) -> float:
        return 0.0 if self._start is None else self._now() - self._start


def prices(model: CostModel, bundles: Sequence[Bundle]) -> dict[str, float]:
    """What each trial costs, by id: its part of its bundle's seconds, or of the relative cost where one is unknown."""
    spent = jobs(model, bundles) or [
        cost(bundle.trials[0]) * (1 + FUSED * (len(bundle.trials) - 1)) for bundle in bundles
    ]
    return {
        trial.id: seconds / len(bundle.trials)
        for bundle, seconds in zip(bundles, spent, strict=True)
        for trial in bundle.trials
    }
