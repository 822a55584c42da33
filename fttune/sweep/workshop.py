"""Trials made into jobs, in the order they start in, which is settled again by what a run's own trials teach."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fttune import caching
from fttune.bundle import Bundle, bundle
from fttune.cost import CostModel, longest_first, ranked
from fttune.record import RunRecord
from fttune.runtime import Runtime
from fttune.sweep.driver import cost_model
from fttune.sweep.ground import Ground
from fttune.trial import Trial

if TYPE_CHECKING:
    from fttune.sweep.ledger import Job


class Workshop:
    """Makes jobs of trials; which layers are cached is settled by the first ones."""

    def __init__(
        self,
        ground: Ground,
        runtime: Runtime,
        model: CostModel,
        *,
        done: Sequence[Trial],
        records: Sequence[RunRecord],
        chosen: Sequence[Trial],
    ) -> None:
        """`model` and `records` tell of the trials that are done."""
        self._ground, self._runtime, self._model, self._records = ground, runtime, model, records
        self._trials = {trial.id: trial for trial in done}
        self._kept = caching.choose(model, chosen, ground.sweep.resources.cache_gb * 1e9)

    def jobs(self, trials: Sequence[Trial]) -> list[Bundle]:
        self._trials |= {trial.id: trial for trial in trials}
        return longest_first(self._model, caching.without(bundle(trials), self._kept))

    def order(self, waiting: Sequence["Job"], records: Sequence[RunRecord]) -> list[int]:
        """Places of jobs that wait, the longest first by what this run's trials have taught; distances at the end."""
        known = [*self._trials.values()]
        self._model = cost_model(self._ground, self._runtime, [*self._records, *records], known)
        done = [self._trials[record.trial_id] for record in records if record.trial_id in self._trials]
        bundles = {place: job for place, job in enumerate(waiting) if isinstance(job, Bundle)}
        places = [*bundles]
        first = [places[rank] for rank in ranked(self._model, [*bundles.values()], done)]
        return [*first, *(place for place in range(len(waiting)) if place not in bundles)]
