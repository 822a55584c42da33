"""What trials that have failed for good leave on disk."""

from contextlib import suppress

from fttune.record import CurvePoint, DistanceRecord, RunRecord
from fttune.runtime import Runtime
from fttune.trial import Trial


class Leftovers:
    """A listener that removes the checkpoint of a trial which is not tried again; its own end removes that of another.

    To run it once more (`--retry-failed`) is to start anew: what failed three times may stand in the checkpoint.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._folder = runtime.checkpoints

    def started(self, trial: Trial) -> None:
        """Its checkpoint is what it goes on from."""

    def point(self, trial_id: str, point: CurvePoint) -> None:
        """It is under way."""

    def distance(self, record: DistanceRecord) -> None:
        """It is saved nowhere."""

    def finished(self, record: RunRecord, traceback: str = "") -> None:
        if record.status != "failed" or self._folder is None:
            return
        for file in self._folder.glob(f"{record.trial_id}.*"):
            with suppress(OSError):  # a file too much stops no sweep
                file.unlink()
