"""One run for one trial though many open it in the same instant: MLflow knows no tag that is unique."""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from fttune.tracking import fields

if TYPE_CHECKING:
    from fttune.tracking.client import Run

_PAUSE = 0.05  # seconds between two looks
_PATIENCE = 5.0  # seconds; who opened a run and has not used it by then is gone


def settle(run: "Run", look: Callable[[], Sequence["Run"]], delete: Callable[[str], None], *, own: bool) -> "Run":
    """The one of the runs opened at once that stays, `run` or another; `run` is deleted if it is our own and another.

    `look` gives all of them that there are now. A run is in use once it has a status. The oldest one in use stays,
    else the oldest: who sees that it is not their own gives way at once, and who sees that it is waits for the others,
    one of whom may have looked before it was there.
    """
    until = time.monotonic() + _PATIENCE
    while True:
        runs = sorted(look(), key=lambda run: (run.info.start_time, run.info.run_id))
        used = [run for run in runs if fields.STATUS in run.data.tags]
        first = next(iter(used or runs), run)
        if own and first.info.run_id != run.info.run_id:
            delete(run.info.run_id)
            own = False
        if used or (own and len(runs) == 1) or time.monotonic() > until:
            return first
        time.sleep(_PAUSE)
