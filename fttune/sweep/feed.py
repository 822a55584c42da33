"""How Tune comes by the runs of a ledger: one by one, those too that are added while others run."""

from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Any

from ray.tune.search import Searcher

from fttune.sweep.actor import Later, pack
from fttune.sweep.ledger import Run


class Feed(Searcher):
    """Tune asks it for another run as soon as there may be room for one."""

    def __init__(
        self, runs: Sequence[Run], most: int | None, *, waits: bool, avoid: Callable[[Run], Collection[str] | None]
    ) -> None:
        """`most` at once; `waits` while any run is open, for what may follow from it.

        `avoid` tells the machines that a run is not to be given to; None where no other is left: it is withheld.
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
        if self._most and len(self._open) >= self._most:
            return None
        while self._left:
            number = self._left.popleft()
            run = self._runs[number]
            avoid = self._avoid(run)
            if avoid is None:
                run.withheld = True
                continue
            self._open.add(trial_id)
            run.given, run.avoid = True, avoid
            # Tune writes down each config again and again: what workers know already is told by its number.
            later = None if number < self._known else Later(packed=pack(run.job))
            return {"job": number, "share": run.share, "avoid": sorted(avoid), "later": later}
        return None if self._waits and self._open else Searcher.FINISHED

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
