"""How Tune comes by the runs of a ledger: one by one, those too that are added while others run."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from ray.tune.search import Searcher

from fttune.sweep.ledger import Job, Run


@dataclass(frozen=True, kw_only=True, slots=True)
class Later:
    """A job that was not known when the workers were described."""

    job: Job

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __str__(self) -> str:
        return ""  # Tune names folders after it


class Feed(Searcher):
    """Tune asks it for another run as soon as there may be room for one."""

    def __init__(self, runs: Sequence[Run], most: int | None, *, waits: bool) -> None:
        """`most` at once; `waits` while any run is open, for what may follow from it."""
        super().__init__()
        self._runs, self._most, self._waits, self._known = runs, most, waits, len(runs)
        self._next, self._open = 0, set[str]()

    def suggest(self, trial_id: str) -> Any:
        if self._next == len(self._runs):
            return None if self._waits and self._open else Searcher.FINISHED
        if self._most and len(self._open) >= self._most:
            return None
        run = self._runs[self._next]
        self._open.add(trial_id)
        self._next += 1
        # Tune writes down each config again and again: what workers know already is told by its number.
        later = None if self._next <= self._known else Later(job=run.job)
        return {"job": self._next - 1, "share": run.share, "later": later}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self._open.discard(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Never restored: what is logged is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """As above."""
