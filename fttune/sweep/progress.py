"""What a person sees while a sweep runs: a live display on a terminal, one line per finished trial elsewhere."""

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from fttune.plan import cost
from fttune.record import CurvePoint, DistanceRecord, RunRecord
from fttune.text import inert
from fttune.trial import Trial

_ROWS = 12  # running trials that are shown at most; a bundle may hold more than a screen does
_LINE = "{place:>9}  {name:<36} {result}"


class Display:
    """A listener that shows a sweep of `trials` on stderr; `price` is what a trial costs, in any unit."""

    def __init__(
        self, trials: Sequence[Trial], price: Callable[[Trial], float] | None = None, console: Console | None = None
    ) -> None:
        self.console = console or Console(stderr=True, highlight=False)
        self._trials = {trial.id: trial for trial in trials}
        self._ended = 0
        self._price = price or cost
        self._cost_done = 0.0
        self._cost_total = sum(map(self._price, trials))
        self._start = time.monotonic()
        self._rows: dict[str, TaskID] = {}
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            TimeElapsedColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self._all = self._progress.add_task("trials", total=len(trials), note="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for row in self._rows.values():
            self._progress.remove_task(row)
        self._progress.stop()

    def started(self, trial: Trial) -> None:
        if trial.id not in self._rows:
            name = inert(f"  {trial.name}")
            room = len(self._rows) < _ROWS
            self._rows[trial.id] = self._progress.add_task(
                name, total=trial.hparams.steps, note="starting", visible=room
            )

    def point(self, trial_id: str, point: CurvePoint) -> None:
        note = f"val {point.val_accuracy:.3f}  loss {point.train_loss:.3f}"
        self._progress.update(self._rows[trial_id], completed=point.step, note=note)

    def finished(self, record: RunRecord, traceback: str = "") -> None:
        self._ended += 1
        trial = self._trials[record.trial_id]
        self._cost_done += self._price(trial)
        row = self._rows.pop(record.trial_id, None)
        if row is not None:
            self._progress.remove_task(row)
        self._progress.update(self._all, completed=self._ended, note=f"about {self.remaining()} left")
        self._say(f"{self._ended}/{len(self._trials)}", trial.name, _result(record))

    def distance(self, record: DistanceRecord) -> None:
        interval = f"{record.value:.3f} [{record.low:.3f}, {record.high:.3f}]"
        self._say("distance", record.dataset, f"{record.metric} {interval} from {record.source}, n = {record.images}")

    def remaining(self) -> str:
        """Minutes and seconds still to go, if the rest costs as the finished part did."""
        if not self._cost_done:
            return "?"
        elapsed = time.monotonic() - self._start
        return clock(elapsed * (self._cost_total - self._cost_done) / self._cost_done)

    def _say(self, place: str, name: str, result: str) -> None:
        line = inert(_LINE.format(place=place, name=name, result=result))
        self.console.print(line, soft_wrap=True, markup=False)


def clock(seconds: float) -> str:
    """Seconds as `h:mm:ss` or `m:ss`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _result(record: RunRecord) -> str:
    if record.status == "failed":
        return f"FAILED  {record.error}"
    return f"val {record.val_accuracy:.3f}  test {record.test_accuracy:.3f}  {record.seconds:.1f} s"
