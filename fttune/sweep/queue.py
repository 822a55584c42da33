"""Which of the runs that wait Tune starts next."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler

from fttune.sweep.feed import Feed

if TYPE_CHECKING:
    from ray.tune.execution.tune_controller import TuneController


class Queue(FIFOScheduler):
    """First come, first served, until some runs have ended: by then it is known better what each takes.

    `order` is given the numbers of the waiting runs when 1, 2, 4, 8, ... have ended, and gives them back as they are to
    start: of those that Tune has asked the feed for, and of those that it has not. Tune's own scheduler looks through
    all trials there ever were whenever it starts one.
    """

    def __init__(self, feed: Feed, order: Callable[[Sequence[int]], Sequence[int]]) -> None:
        super().__init__()
        self._feed, self._order, self._waiting, self._ended = feed, order, deque[Trial](), 0

    def __getstate__(self) -> dict[str, Any]:
        # Saved by Tune, and never restored: what is logged is the state.
        return {}

    def on_trial_add(self, tune_controller: "TuneController", trial: Trial) -> None:
        self._waiting.append(trial)

    def on_trial_complete(self, tune_controller: "TuneController", trial: Trial, result: dict[str, Any]) -> None:
        self._ended += 1
        if self._ended.bit_count() == 1:
            waiting = {trial.config["job"]: trial for trial in self._waiting if _waits(trial)}
            order = self._order([*waiting, *self._feed.left])
            self._waiting = deque(waiting[number] for number in order if number in waiting)
            self._feed.left = [number for number in order if number not in waiting]

    def choose_trial_to_run(self, tune_controller: "TuneController") -> Trial | None:
        while self._waiting and not _waits(self._waiting[0]):
            self._waiting.popleft()
        return self._waiting[0] if self._waiting else None


def _waits(trial: Trial) -> bool:
    return trial.status in (Trial.PENDING, Trial.PAUSED)
