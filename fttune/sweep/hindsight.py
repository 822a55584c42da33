"""How wrong an estimate was: kept beside a sweep's other files on this machine, for the next plan of it."""

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from fttune.errors import DataError, StoreError
from fttune.files import replacing, writing
from fttune.sweep.progress import clock


@dataclass(frozen=True, kw_only=True, slots=True)
class Hindsight:
    """Of a run's trials, from its start to the end of the last."""

    trials: int
    expected: float  # seconds
    taken: float  # seconds

    @property
    def off(self) -> float:
        """By what part of the time that it took."""
        return abs(self.expected - self.taken) / self.taken

    @property
    def words(self) -> str:
        return f"estimated {clock(self.expected)}, took {clock(self.taken)} ({self.off:.0%} off)"

    def save(self, path: Path) -> None:
        """A note is worth no sweep: where it cannot be written there is none."""
        with suppress(StoreError, DataError, OSError), writing(path.parent), replacing(path) as temporary:
            temporary.write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """None where no run was estimated and came to its end."""
        try:
            return cls(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            return None
