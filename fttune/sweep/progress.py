"""What a person sees while a sweep runs: a live display on a terminal, plain lines elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from threading import Event, Thread
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from fttune.record import CurvePoint, DistanceRecord, RunRecord
from fttune.sweep.tally import Look, Tally
from fttune.text import inert
from fttune.tracking.fields import record_name
from fttune.trial import Trial

_ROWS = 12  # running trials that are shown at most; a bundle may hold more than a screen does
_LINE = "{place:>9}  {name:<36} {result}"
_BETWEEN = 60.0  # seconds between two lines that say how far a sweep is, where there is no terminal


class Display:
    """A listener that shows on stderr how a sweep goes; `tally` hears everything before it."""

    def __init__(
        self,
        tally: Tally,
        console: Console | None = None,
        *,
        between: float = _BETWEEN,
        trouble: Callable[[], str] = lambda: "",
    ) -> None:
        """`trouble`: what should be known while it lasts; empty: nothing."""
        self.console = console or Console(stderr=True, highlight=False)
        self._tally, self._trouble = tally, trouble
        self._failure: Text | None = None  # the last
        self._rows: dict[str, TaskID] = {}
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            TimeElapsedColumn(),
            console=self.console,
        )
        look = tally.look()
        self._all = self._progress.add_task("trials", total=look.chosen, note="")
        self._live = Live(get_renderable=self._render, console=self.console, refresh_per_second=4)
        self._closing, self._between = Event(), between
        self._lines = Thread(target=self._keep_telling, name="fttune-display", daemon=True)

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live.start()
        else:
            self._lines.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        for row in self._rows.values():
            self._progress.remove_task(row)
        self._live.stop()

    def started(self, trial: Trial) -> None:
        if trial.id not in self._rows:
            self._rows[trial.id] = self._progress.add_task(
                inert(f"  {trial.name}"), total=trial.hparams.steps, note="starting", visible=False
            )

    def point(self, trial_id: str, point: CurvePoint) -> None:
        note = f"val {point.val_accuracy:.3f}  loss {point.train_loss:.3f}"
        self._progress.update(self._rows[trial_id], completed=point.step, note=note)

    def finished(self, record: RunRecord, traceback: str = "") -> None:
        row = self._rows.pop(record.trial_id, None)
        if row is not None:
            self._progress.remove_task(row)
        look = self._tally.look()
        self._progress.update(self._all, completed=look.ended, total=look.chosen)
        name = record_name(record)
        if record.status == "failed":
            self._failure = Text(f"last failure: {name}: {record.error}", "red", no_wrap=True, overflow="ellipsis")
        self._say(f"{look.ended}/{look.chosen}", name, _result(record))

    def distance(self, record: DistanceRecord) -> None:
        interval = f"{record.value:.3f} [{record.low:.3f}, {record.high:.3f}]"
        self._say("distance", record.dataset, f"{record.metric} {interval} from {record.source}, n = {record.images}")

    def note(self, line: str) -> None:
        """Show a line of its own, at once."""
        self.console.print(inert(line), soft_wrap=True, markup=False)

    def _render(self) -> RenderableType:
        return Group(*self._parts())

    def _parts(self) -> Iterator[RenderableType]:
        hidden = self._choose_rows()
        yield self._progress
        if hidden:
            yield Text(f"  and {hidden} more", "dim")
        yield Text(f"  {summary(self._tally.look())}", no_wrap=True, overflow="ellipsis")
        if self._failure:
            yield self._failure
        if trouble := self._trouble():
            yield Text(trouble, "red", no_wrap=True, overflow="ellipsis")

    def _choose_rows(self) -> int:
        """Show the oldest of the trials under way, not those whose process is gone; how many more there are."""
        under_way = self._tally.under_way
        live = [row for trial_id, row in list(self._rows.items()) if trial_id in under_way]
        for row in list(self._rows.values()):
            with suppress(KeyError):  # it has just ended
                self._progress.update(row, visible=row in live[:_ROWS])
        return max(0, len(live) - _ROWS)

    def _keep_telling(self) -> None:
        while not self._closing.wait(self._between):
            look = self._tally.look()
            self.console.print(f"{f'{look.ended}/{look.chosen}':>9}  {summary(look)}", soft_wrap=True, markup=False)
            if trouble := self._trouble():
                self.note(trouble)

    def _say(self, place: str, name: str, result: str) -> None:
        self.note(_LINE.format(place=place, name=name, result=result))


def summary(look: Look) -> str:
    """Counts, speed, GPUs and the time left, in one line."""
    counts = look.counts
    parts = [f"{counts.done} done", f"{counts.running} running", f"{counts.failed} failed"]
    if look.images_per_second:
        parts.append(f"{look.images_per_second:,.0f} images/s")
    if look.gpus:
        parts.append(f"{look.gpus:.3g} GPUs taken")
    parts.append("time left not known yet" if counts.seconds is None else f"about {clock(counts.seconds)} left")
    return ", ".join(parts)


def clock(seconds: float) -> str:
    """Seconds as `h:mm:ss` or `m:ss`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _result(record: RunRecord) -> str:
    if record.status == "failed":
        return f"FAILED  {record.error}"
    return f"val {record.val_accuracy:.3f}  test {record.test_accuracy:.3f}  {record.seconds:.1f} s"
