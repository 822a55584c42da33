"""Pieces of sentences: effects with their intervals, times, counts, and lines that fit a terminal."""

from textwrap import wrap

from fttune.analysis.answer import Effect
from fttune.analysis.trend import Expected

_WIDTH = 100  # columns
_LARGE = 1000  # a ratio that is no longer written out


def wrapped(text: str, lead: str = "  ") -> list[str]:
    """A sentence in lines that fit, the first behind `lead`, the others under it."""
    return wrap(text, _WIDTH, initial_indent=lead, subsequent_indent=" " * len(lead), break_on_hyphens=False)


def told(effect: Effect) -> str:
    """`1.076 [1.046, 1.106], +4.9 points [+2.2, +8.5]`."""
    if effect.ratio is None or effect.difference is None:
        return ""
    return f"{ratio(effect)}, {points(effect)}"


def ratio(effect: Effect | Expected) -> str:
    """`1.076 [1.046, 1.106]`."""
    form = ".3f" if effect.high is None or effect.high < _LARGE else ".1e"
    return f"{effect.ratio:.3f}{_interval(effect.low, effect.high, form)}"


def points(effect: Effect) -> str:
    if effect.difference is None:
        return "not measured"
    hundred = [None if v is None else 100 * v for v in (effect.difference_low, effect.difference_high)]
    return f"{100 * effect.difference:+.1f} points{_interval(hundred[0], hundred[1], '+.1f')}"


def _interval(low: float | None, high: float | None, form: str) -> str:
    return "" if low is None or high is None else f" [{low:{form}}, {high:{form}}]"


def duration(seconds: float) -> str:
    """`1.2 s`, `45 s`, `3 min`, `2.5 h`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
