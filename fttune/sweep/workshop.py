"""Trials made into jobs, in the order they start in, which is settled again by what a run's own trials teach."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fttune import caching
from fttune.bundle import Bundle
from fttune.cost import CostModel, longest_first, ranked
from fttune.record import RunRecord
from fttune.runtime import Runtime
from fttune.sweep.forecast import cost_model
from fttune.sweep.ground import Ground
from fttune.trial import Trial

if TYPE_CHECKING:
    from fttune.sweep.ledger import Job


class Workshop:
    """Makes jobs of trials; which layers are cached stays as the model that it is given has settled it."""

    def __init__(
        self,
        ground: Ground,
        runtime: Runtime,
        model: CostModel,
        *,
        done: Sequence[Trial],
        records: Sequence[RunRecord],
    ) -> None:
        """`model` and `records` tell of the trials that are done."""
        self._ground, self._runtime, self._model, self._records = ground, runtime, model, records
        self._trials = {trial.id: trial for trial in done}

    def jobs(self, trials: Sequence[Trial]) -> list[Bundle]:
        self._trials |= {trial.id: trial for trial in trials}
        return longest_first(self._model, caching.bundles(self._model, trials))

    def order(self, waiting: Sequence["Job"], records: Sequence[RunRecord]) -> list[int]:
        """Places of jobs that wait, the longest first by what this run's trials have taught; distances at the end."""
        known = [*self._trials.values()]
        records_of_all, computed = [*self._records, *records], self._model.computed
        self._model = cost_model(self._ground, self._runtime, records_of_all, known, computed)
        done = [self._trials[record.trial_id] for record in records if record.trial_id in self._trials]
        bundles = {place: job for place, job in enumerate(waiting) if isinstance(job, Bundle)}
        places = [*bundles]
        first = [places[rank] for rank in ranked(self._model, [*bundles.values()], done)]
        return [*first, *(place for place in range(len(waiting)) if place not in bundles)]
