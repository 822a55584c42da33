"""What follows from a trial's end: the jobs that a search asks for because of it, within what a run is about."""

from collections.abc import Callable, Sequence

from fttune.bundle import Bundle
from fttune.plan import only
from fttune.record import RunRecord
from fttune.sweep.agenda import Agenda
from fttune.trial import Trial


class Sequel:
    """Gives the jobs that follow from a record; a trial is given once, and none that has ended already."""

    def __init__(
        self,
        agenda: Agenda,
        records: Sequence[RunRecord],
        make: Callable[[Sequence[Trial]], list[Bundle]],
        *,
        conditions: Sequence[str] = (),
        most: int | None = None,
        tell: Callable[[Sequence[Trial], Sequence[Trial], int], None] = lambda new, done, unknown: None,
    ) -> None:
        """`make` turns trials into jobs; `most` trials at most; `conditions` they meet, as `--only` writes them.

        `tell` hears of each answer: what is given, what of the asked is done already, and how many may still follow.
        """
        self._agenda, self._make, self._conditions, self._most, self._tell = agenda, make, conditions, most, tell
        self.notes = [*agenda.notes]  # a line for each thing the user should be told
        self.over = False  # nothing more can be asked for in this run
        self._ended = {record.trial_id: record for record in records}
        agenda.asked(self._ended)

    def __call__(self, record: RunRecord) -> list[Bundle]:
        self._ended[record.trial_id] = record
        if self.over:
            return []
        try:
            asked = self._agenda.after(record, self._ended)
        # In the loop of the cluster, whose other trials are to end as ever; the latter is how Optuna's lock gives up.
        except (OSError, RuntimeError) as error:
            self.over = True
            self.notes.append(f"the studies cannot be written: {error}; no more is asked for now; the next run goes on")
            return []
        new = only([trial for trial in asked.trials if trial.id not in self._ended], self._conditions)[: self._most]
        if self._most is not None:
            self._most -= len(new)
        self._tell(new, [trial for trial in asked.trials if trial.id in self._ended], asked.unknown)
        return self._make(new)
