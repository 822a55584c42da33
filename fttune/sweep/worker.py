"""A job on a worker: trials that train together, or a measurement of a distance; needs no Ray."""

import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

from fttune.bundle import Bundle
from fttune.distance.job import DistanceJob
from fttune.runtime import Runtime

Job = Bundle | DistanceJob
_PAUSE = 0.5  # seconds that what is to be told is gathered for; each report costs both sides milliseconds


class Wire:
    """Gathers what a worker has to tell the driver, as plain values."""

    def __init__(self, report: Callable[[dict[str, Any]], None]) -> None:
        self._report = report
        self._news: list[dict[str, Any]] = []
        self._sent = time.monotonic()

    def tell(self, **news: Any) -> None:
        self._news.append(news)
        if "point" in news and time.monotonic() > self._sent + _PAUSE:
            self.send()

    def send(self) -> None:
        self._report({"news": self._news})
        self._news, self._sent = [], time.monotonic()


def work(job: Job, runtime: Runtime, wire: Wire) -> None:
    """Run a job and tell what it came to; an error is told as a result, so that the process lives on for the next."""
    if isinstance(job, Bundle):
        return _train(job, runtime, wire)
    try:
        wire.tell(distance=asdict(job.measure(runtime)))
    except Exception as error:
        wire.tell(**_told(error))
    return None


def _train(bundle: Bundle, runtime: Runtime, wire: Wire) -> None:
    # Here, not above: the driver that hands out jobs needs no torch.
    from fttune.training.run import run_bundle

    try:
        records = run_bundle(bundle, runtime, lambda trial, point: wire.tell(trial=trial.id, point=asdict(point)))
    except Exception as error:
        if len(bundle.trials) == 1:
            return wire.tell(trial=bundle.trials[0].id, **_told(error))
        # One by one, so that what is wrong with one is not the end of the others.
        for trial in bundle.trials:
            _train(replace(bundle, trials=(trial,)), runtime, wire)
        return None
    for record in records:
        wire.tell(record=asdict(record))
    return None


def _told(error: Exception) -> dict[str, str]:
    return {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
