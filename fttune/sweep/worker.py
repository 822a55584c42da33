"""A job on a worker: trials that train together, or a measurement of a distance; needs no Ray."""

import gc
import logging
import platform
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cache
from typing import Any

from fttune.bundle import Bundle
from fttune.errors import MachineError, StoppedError, UsageError
from fttune.footprint import Footprint
from fttune.garbage import uncollected
from fttune.record import RunRecord
from fttune.runtime import Runtime
from fttune.sweep.ledger import Job, keys
from fttune.sweep.supply import Supply

_PAUSE = 0.5  # seconds that what is to be told is gathered for; each report costs both sides milliseconds
_LONGEST = 8.0  # seconds that a job which is told to stop may take to save

News = dict[str, Any]

_log = logging.getLogger("fttune")


class Work:
    """One job on a thread of its own, so that whoever waits for it can still hear signals."""

    def __init__(self, job: Job, runtime: Runtime, supply: Supply | None = None) -> None:
        self.ended = False  # and everything it had to tell was taken
        self._news: queue.SimpleQueue[News | None] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(job, runtime, supply), name="fttune-job", daemon=True)
        self._thread.start()

    def take(self, pause: float = _PAUSE) -> list[News]:
        """What there is to tell after at most `pause` seconds, or as soon as the job ends."""
        taken, until = [], time.monotonic() + pause
        while not self.ended:
            try:
                news = self._news.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                break
            if news is None:
                self.ended = True
            else:
                taken.append(news)
        return taken

    def stop(self) -> None:
        """Ask the job to save what it has reached and to end."""
        self._stop.set()

    def join(self) -> None:
        """Wait until a job that was asked to stop has ended, but not for a step that takes longer than seconds."""
        self._thread.join(_LONGEST)

    def _run(self, job: Job, runtime: Runtime, supply: Supply | None) -> None:
        notes = _Notes(self._tell)
        logger = logging.getLogger("fttune")
        logger.addHandler(notes)
        try:
            work(job, runtime, self._tell, self._stop.is_set, supply)
        finally:
            logger.removeHandler(notes)
            self._news.put(None)

    def _tell(self, **news: Any) -> None:
        self._news.put(news)


def work(
    job: Job,
    runtime: Runtime,
    tell: Callable[..., None],
    stopped: Callable[[], bool],
    supply: Supply | None = None,
) -> None:
    """Run a job and tell what it came to; an error is told as a result, so that the process lives on for the next."""
    try:
        _load_torch()
        if supply:
            supply.ensure(job, runtime.store)
        if isinstance(job, Bundle):
            _train(job, runtime, tell, stopped)
        else:
            tell(distance=asdict(job.measure(runtime)))
    except StoppedError:
        tell(stopped=True)
    except (Exception, SystemExit) as error:  # the latter from a user's own code: this process is not its to end
        for key in keys(job):
            tell(trial=key, **_told(error))


def _load_torch() -> None:
    """MachineError where that fails: a library that it misses is an OSError, one of another release a RuntimeError."""
    try:
        with uncollected():  # a third of the time
            import fttune.training.run  # noqa: F401
    except Exception as error:
        raise MachineError(f"{platform.node()} cannot train, since its installation is not whole: {error}") from error


def _train(bundle: Bundle, runtime: Runtime, tell: Callable[..., None], stopped: Callable[[], bool]) -> None:
    # Here, not above: the driver that hands out jobs needs no torch.
    from fttune.training.device import give_back
    from fttune.training.run import run_bundle

    _set_apart()
    records: list[RunRecord] = []
    try:
        records = run_bundle(bundle, runtime, lambda trial, point: tell(trial=trial.id, point=asdict(point)), stopped)
    except StoppedError:
        raise
    except Exception as error:
        if len(bundle.trials) == 1:
            return tell(trial=bundle.trials[0].id, **_told(error))
        kind = f"{type(error).__name__}: {error}".splitlines()[0]
        _log.warning("%d trials that train at once have failed, and run one by one: %s", len(bundle.trials), kind)
    if not records:
        # One by one, so that each is told as soon as it ends, and what is wrong with one is not the end of the others;
        # out here, since the error's traceback holds what the bundle had in memory.
        give_back()
        for trial in bundle.trials:
            _train(replace(bundle, trials=(trial,)), runtime, tell, stopped)
    for record in records:
        tell(trial=record.trial_id, record=asdict(record))
    return None


@cache
def _set_apart() -> None:
    """Leave what was imported out of the search for garbage after each trial, which took a fifth of a second."""
    gc.collect()
    gc.freeze()


def measure(bundle: Bundle, runtime: Runtime, supply: Supply | None = None) -> Footprint | str | None:
    """What a bundle takes of a GPU; None where the process sees none; a line where the bundle fails.

    The other bundles are measured all the same.
    """
    try:
        from fttune.training.probe import footprint

        if supply:
            supply.ensure(bundle, runtime.store)
        return footprint(bundle, runtime)
    except Exception as error:
        return f"what {bundle.trials[0].name} takes of a GPU was not measured: {_line(error).splitlines()[0]}"


def _told(error: Exception | SystemExit) -> News:
    """What is told of an error.

    `final`: what the user gave is wrong, and stays so; `memory`: a GPU had no room; `lacks`: what the machine is found
    to lack, as `MachineError` has it, None where the fault is not the machine's.
    """
    return {
        "error": _line(error),
        "traceback": traceback.format_exc(),
        "final": isinstance(error, UsageError),
        "memory": _is_out_of_memory(error),
        "lacks": error.lacks if isinstance(error, MachineError) else None,
    }


def _line(error: BaseException) -> str:
    return str(error) if isinstance(error, MachineError) else f"{type(error).__name__}: {error}"


def _is_out_of_memory(error: BaseException) -> bool:
    """Of a GPU's; the libraries below torch have words of their own for it, which reach Python as plain errors."""
    torch = sys.modules.get("torch")  # an error in loading it is told here too
    words = ("CUDA error: out of memory", "_STATUS_ALLOC_FAILED")
    own = torch is not None and isinstance(error, torch.OutOfMemoryError)
    return own or (isinstance(error, RuntimeError) and any(one in str(error) for one in words))


class _Notes(logging.Handler):
    """Passes on what training warns of."""

    def __init__(self, tell: Callable[..., None]) -> None:
        super().__init__(logging.WARNING)
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        self._tell(note=record.getMessage())
