"""Whose turn it is: a sweep is run by one driver at a time, whatever machine each is on."""

import time
from collections.abc import Callable

from fttune.errors import UsageError
from fttune.tracking.claim import BEAT, Claim
from fttune.tracking.runs import Tracker
from fttune.tracking.writer import Writer

_PATIENCE = BEAT + 5  # seconds in which a driver that lives gives a sign of it


def await_turn(tracker: Tracker, sweep: str, say: Callable[[str], None], patience: float = _PATIENCE) -> Claim | None:
    """The claim of a driver that is gone, for `Writer.hold` to take over; None where there is none.

    UsageError while another driver runs the sweep. One that is silent is given `patience` seconds: its clock may be
    wrong, or the tracker may have been away.
    """
    held = tracker.claim(sweep)
    if held is None or held.gone:
        return held
    if not held.fresh:
        say(f"{heard(held)}; taking over in {patience:.0f} s unless it gives a sign of life")
        time.sleep(patience)
        now = tracker.claim(sweep)
        if now is None or now == held:
            return now
        held = now
    raise UsageError(_taken(sweep, held))


def take_turn(writer: Writer, tracker: Tracker, sweep: str, over: Claim | None) -> None:
    """Claim the sweep for the writer, over what `await_turn` gave; UsageError where another driver was quicker."""
    if not writer.hold(over):
        held = tracker.claim(sweep)
        raise UsageError(_taken(sweep, held) if held else f"sweep '{sweep}' was run by another driver meanwhile")


def _taken(sweep: str, held: Claim) -> str:
    return (
        f"sweep '{sweep}' is being run by {held.host} (process {held.pid}), last heard {ago(held.age)};"
        " `fttune status` shows how it goes, and a minute after it was killed another may take over"
    )


def heard(held: Claim) -> str:
    """That a driver has been silent, as far as that can be told."""
    when = f"at {held.heard:%Y-%m-%d %H:%M} UTC, ahead of the clock here" if held.ahead else ago(held.age)
    return f"the driver on {held.host} (process {held.pid}) was last heard {when}"


def ago(seconds: float) -> str:
    """A time in the past, in the unit one would say it in."""
    for name, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {name} ago"
    return f"{seconds:.0f} s ago"
