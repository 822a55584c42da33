"""What a run may take in all, and the brake that ends it: at its budget, at the first failure, or when it was taken."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from fttune.errors import ConfigError, unknown
from fttune.sweep.meter import Meter

if TYPE_CHECKING:
    from fttune.sweep.ledger import Outcome


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """What one `fttune run` may take; None: any."""

    gpu_hours: float | None = None  # share of a GPU x time, of every run of a job
    hours: float | None = None  # since the command was given
    trials: float | None = None  # that come to an end

    @classmethod
    def parse(cls, texts: Sequence[str]) -> "Budget":
        """Of `key=value` texts; ConfigError for the first that is none."""
        limits: dict[str, float] = {}
        for text in texts:
            key, value = _limit(text, [field.name for field in fields(cls)])
            if key in limits:
                raise ConfigError(f"--budget: '{key}' stands twice")
            limits[key] = value
        return cls(**limits)

    def reached(self, *, gpu_hours: float, hours: float, trials: float) -> str:
        """Which limit is reached, with what was taken of it; empty: none is."""
        taken = {"gpu_hours": gpu_hours, "hours": hours, "trials": trials}
        for name, value in taken.items():
            limit: float | None = getattr(self, name)
            if limit is not None and value >= limit:
                return f"{name}={limit:g} ({value:.4g} taken)"
        return ""


class Brake:
    """Says when a sweep is to stop before its end; asked between any two events, so it answers at once."""

    def __init__(
        self,
        budget: Budget,
        meter: Meter,
        *,
        fail_fast: bool = False,
        lost: Callable[[], bool] = lambda: False,
        since: float | None = None,
    ) -> None:
        """`since` is when the command was given, by `time.monotonic`; None: now."""
        self.reached = ""  # the limit of the budget that ended the sweep
        self.pulled = False  # it has said that the sweep is to stop
        self.meter = meter
        self.budget = budget
        self._lost = lost
        self._fail_fast = fail_fast
        self._since = time.monotonic() if since is None else since

    @property
    def notes(self) -> list[str]:
        """A line for a limit that limited nothing."""
        idle = self.budget.gpu_hours is not None and not self.meter.gpu_hours
        return ["--budget gpu_hours: nothing ran on a GPU, so it ended nothing; hours and trials do"] if idle else []

    def __call__(self, outcome: "Outcome") -> bool:
        self.reached = self.reached or self.budget.reached(
            gpu_hours=self.meter.gpu_hours,
            hours=(time.monotonic() - self._since) / 3600,
            trials=len(outcome.finished) + len(outcome.failed),
        )
        self.pulled = bool(self.reached or self._lost() or (self._fail_fast and outcome.failed))
        return self.pulled


def _limit(text: str, known: Sequence[str]) -> tuple[str, float]:
    key, equals, value = text.partition("=")
    if key not in known:
        raise ConfigError(f"--budget: {unknown('key', key, known)}")
    if not equals:
        raise ConfigError(f"--budget '{text}' must read key=value, such as {key}=20")
    try:
        number = int(value) if key == "trials" else float(value)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        kind = "a whole number" if key == "trials" else "a number"
        raise ConfigError(f"--budget: {key} must be {kind} above 0, but got '{value}'")
    return key, number
