"""What trials leave on disk that have come to an end."""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from fttune.record import CurvePoint, DistanceRecord, RunRecord
from fttune.runtime import Runtime
from fttune.trial import Trial


class Leftovers:
    """A listener that removes the checkpoint of a trial once its end is known here, and not before.

    Those of the `done`, too, which a driver that was killed may have left. To run once more what has failed
    (`--retry-failed`) is to start anew: what failed three times may stand in the checkpoint.
    """

    def __init__(self, runtime: Runtime, done: Iterable[Trial] = ()) -> None:
        self._folder = runtime.checkpoints
        ended = {trial.id for trial in done}
        for file in self._folder.glob("*.*") if self._folder else ():
            if file.stem in ended:
                _remove(file)

    def started(self, trial: Trial) -> None:
        """Its checkpoint is what it goes on from."""

    def point(self, trial_id: str, point: CurvePoint) -> None:
        """It is under way."""

    def distance(self, record: DistanceRecord) -> None:
        """It is saved nowhere."""

    def finished(self, record: RunRecord, traceback: str = "") -> None:
        for file in self._folder.glob(f"{record.trial_id}.*") if self._folder else ():
            _remove(file)


def _remove(file: Path) -> None:
    with suppress(OSError):  # a file too much stops no sweep
        file.unlink()
