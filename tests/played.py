"""A sweep without processes: the real ledger, meter and tally, on a clock that a test moves."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from fttune.bundle import Bundle
from fttune.plan import Plan
from fttune.record import CurvePoint, RunRecord
from fttune.sweep.ledger import Ledger, Listener
from fttune.sweep.meter import Meter
from fttune.sweep.tally import Tally
from fttune.trial import Trial
from values import HPARAMS, make_trial

TRIALS = tuple(make_trial(seed=seed, hparams=replace(HPARAMS, steps=100, report_every=10)) for seed in range(12))


class Sweep:
    """A sweep that is played through the real ledger, on a clock of its own."""

    def __init__(self, trials: Sequence[Trial] = TRIALS, *, share: float = 0.0, expected: float | None = None) -> None:
        self.now, self.trials = 1000.0, trials
        self.meter = Meter(lambda: self.now)
        plan = Plan(done=(), failed=(), to_run=tuple(trials))
        self.tally = Tally(plan, trials, self.meter, expected=expected, now=lambda: self.now)
        self.listeners: list[Listener] = [self.tally]
        jobs = [Bundle.alone(trial) for trial in trials]
        self.ledger = Ledger(jobs, self.listeners, "abc", shares=[share] * len(jobs), meter=self.meter)

    def start(self, number: int) -> None:
        self.ledger.started(self.ledger.runs[number])

    def step(self, number: int, step: int, *, after: int = 0) -> None:
        """Every report of a trial up to a step, the first being one that was saved where it is not 0."""
        for reported in range(after + 10, step + 10, 10):
            point = CurvePoint(step=reported, train_loss=1.5, val_loss=1.0, val_accuracy=0.25)
            self._tell(number, {"point": asdict(point)})

    def end(self, number: int) -> None:
        record = RunRecord.of(self.trials[number], status="done", val_accuracy=0.5, test_accuracy=0.75, seconds=3.0)
        self._tell(number, {"record": asdict(record)})

    def fail(self, number: int, error: str = "ValueError: no such layer") -> None:
        self._tell(number, {"error": error, "traceback": "", "final": True, "memory": False})

    def left(self) -> float:
        seconds = self.tally.counts().seconds
        assert seconds is not None
        return seconds

    def _tell(self, number: int, news: dict[str, Any]) -> None:
        run = self.ledger.runs[number]
        self.ledger.hear(run, "node", [{"trial": self.trials[number].id, **news}])
