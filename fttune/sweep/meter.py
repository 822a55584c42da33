"""What runs of jobs take of GPUs while they go on, and have taken in all."""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class _Going:
    keys: Collection[str]
    share: float  # of a GPU
    began: float  # by the clock of the meter


class Meter:
    """Counts from the start of each run to its end, whatever becomes of it."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._going: dict[int, _Going] = {}
        self._seconds = 0.0

    def begin(self, run: int, keys: Collection[str], share: float) -> None:
        """A run of the jobs that are told of under `keys` starts on a share of a GPU."""
        self.end(run)
        self._going[run] = _Going(keys=keys, share=share, began=self._now())

    def end(self, run: int) -> None:
        """It is over; more than once changes nothing."""
        if going := self._going.pop(run, None):
            self._seconds += going.share * (self._now() - going.began)

    @property
    def gpu_hours(self) -> float:
        """Share x time of every run, those that go on included."""
        now = self._now()
        return (self._seconds + sum(one.share * (now - one.began) for one in list(self._going.values()))) / 3600

    @property
    def share(self) -> float:
        """GPUs that are taken now."""
        return sum(one.share for one in list(self._going.values()))

    @property
    def keys(self) -> set[str]:
        """What is under way now."""
        return {key for one in list(self._going.values()) for key in one.keys}
