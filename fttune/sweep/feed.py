"""How Tune comes by the runs of a ledger: one by one, those too that are added while others run."""

from collections import deque
from collections.abc import Callable, Collection, Sequence
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

    def __init__(
        self, runs: Sequence[Run], most: int | None, *, waits: bool, avoid: Callable[[Run], Collection[str]]
    ) -> None:
        """`most` at once; `waits` while any run is open, for what may follow from it.

        `avoid` tells the machines that a run is not to be given to.
        """
        super().__init__()
        self._avoid = avoid
        self._runs, self._most, self._waits, self._known = runs, most, waits, len(runs)
        self._seen, self._left, self._open = 0, deque[int](), set[str]()

    def __getstate__(self) -> dict[str, Any]:
        # Tune writes down what it was given, and never reads it again: what is logged is the state.
        return {}

    def suggest(self, trial_id: str) -> Any:
        self._look()
        if not self._left:
            return None if self._waits and self._open else Searcher.FINISHED
        if self._most and len(self._open) >= self._most:
            return None
        self._open.add(trial_id)
        number = self._left.popleft()
        run = self._runs[number]
        run.given = True
        # Tune writes down each config again and again: what workers know already is told by its number.
        later = None if number < self._known else Later(job=run.job)
        return {"job": number, "share": run.share, "avoid": sorted(self._avoid(run)), "later": later}

    @property
    def left(self) -> list[int]:
        """The numbers of the runs that Tune has not asked for yet, in the order in which it will get them."""
        self._look()
        return [*self._left]

    @left.setter
    def left(self, numbers: Sequence[int]) -> None:
        self._left = deque(numbers)

    def _look(self) -> None:
        self._left.extend(range(self._seen, len(self._runs)))
        self._seen = len(self._runs)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self._open.discard(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Never restored: what is logged is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """As above."""
