"""What keeps a trial's training safe: saved by the clock and when it is told to stop, taken up where it stood."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fttune.errors import FttuneError, StoppedError
from fttune.training import checkpoint

_log = logging.getLogger("fttune")


def never() -> bool:
    """Nobody asks this training to stop."""
    return False


@dataclass(kw_only=True, slots=True)
class Keeper:
    """Saves a training to `path` every `every` seconds and once `stopped`; None: nowhere."""

    path: Path | None = None
    terms: checkpoint.Terms = field(default_factory=dict)
    every: float = float("inf")
    stopped: Callable[[], bool] = never
    _saved: float = field(default_factory=time.monotonic)
    _stepped: bool = False  # since it was saved: however short `every` is, there is a step between two checkpoints

    def due(self) -> bool:
        """Whether to save now; asked before each step."""
        stepped, self._stepped = self._stepped, True
        return self.stopped() or (stepped and time.monotonic() > self._saved + self.every)

    def load(self) -> dict[str, Any] | None:
        """The state to go on from. One that cannot be used is removed: the trial then starts anew, to the same end."""
        if self.path is None:
            return None
        try:
            return checkpoint.load(self.path, self.terms)
        except FttuneError as error:
            _log.warning("%s; it is removed, and the trial starts anew", error)
            self.path.unlink(missing_ok=True)
            return None

    def save(self, state: dict[str, Any]) -> None:
        """Save, and raise StoppedError if the training is to stop. Where there is no room it goes on unsaved."""
        if self.path is not None:
            try:
                checkpoint.save(self.path, self.terms, state)
            except (FttuneError, FileNotFoundError) as error:
                # The latter where another sweep takes up the same trial: half a file looks like what a dead one left.
                _log.warning("the trial goes on without a checkpoint: %s", error)
        self._saved, self._stepped = time.monotonic(), False
        if self.stopped():
            raise StoppedError("the training was asked to stop")
