"""Every error a user can meet, as one tree; each states the rule, the value and the place.

    FttuneError                 exit code 1
    ├── UsageError              exit code 2: something the user gave cannot be used
    │   ├── ConfigError         the sweep file or an override
    │   ├── SpecError           a layer spec
    │   ├── DataError           images, splits, the image store
    │   │   └── AbsentDataError   an official download that is not on this machine
    │   └── WeightsError        pre-trained weights
    ├── UnreachableError        exit code 4: the tracker or the cluster did not answer
    ├── MachineError            exit code 1: a machine of the cluster lacks what a trial reads; another may have it
    ├── StoppedError            exit code 1: a training was asked to stop; what it reached is saved
    └── StoreError              exit code 1: a file of ours (store, cache, spool) cannot be read or written

Errors are caught in one place, `fttune.cli`, which prints the message as one line.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class FttuneError(Exception):
    """Base of all errors raised on purpose; `exit_code` is what the command line returns."""

    exit_code = 1


class UsageError(FttuneError):
    """Something the user gave cannot be used."""

    exit_code = 2


class ConfigError(UsageError):
    """The sweep file or one of its overrides breaks a rule."""


class SpecError(UsageError):
    """A layer spec such as `T(1-7)R(8)` breaks a rule."""


class DataError(UsageError):
    """Images are missing, broken or too few."""


class AbsentDataError(DataError):
    """The official download of a dataset is not on this machine; it can be counted, not read."""


class WeightsError(UsageError):
    """Pre-trained weights are missing, broken or of another network."""


class UnreachableError(FttuneError):
    """The tracker or the cluster did not answer."""

    exit_code = 4


class MachineError(FttuneError):
    """A machine of the cluster lacks what a trial reads, or the room for it; another may have it.

    `lacks` is the digest of those images or weights; empty where the machine can train nothing at all.
    """

    def __init__(self, line: str, *, lacks: str = "") -> None:
        super().__init__(line)
        self.lacks = lacks


class StoppedError(FttuneError):
    """A training ended before its last step because it was asked to, with what it reached saved."""


class StoreError(FttuneError):
    """A file that fttune keeps for itself cannot be read or written."""


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """One line for a name that is not in a list: the nearest match, or the whole list when nothing is near.

    >>> unknown("dataset", "digts", ["digits", "glyphs"])
    "unknown dataset 'digts'; did you mean 'digits'?"
    """
    names = sorted(known)
    near = get_close_matches(name, names, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(names)}"
    return f"unknown {kind} '{name}'; {hint}"
