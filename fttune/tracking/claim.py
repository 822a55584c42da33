"""Who runs a sweep: a claim on its parent run that one driver at a time holds, and the signs of life on it."""

import json
import os
import platform
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from fttune.trial import digest

BEAT = 15.0  # seconds between two signs of life
FRESH = 60.0  # seconds after the last one in which a driver counts as alive

_BOOT, _PROCESSES = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
_TURN = "driver"  # a param `driver.N` for each driver that a sweep has had: MLflow lets nobody change a param
_TAG = "fttune.claim"  # the last sign of life of the last of them


class Client(Protocol):
    """What is needed of an MlflowClient."""

    def get_run(self, run_id: str) -> Any: ...

    def log_param(self, run_id: str, key: str, value: Any) -> Any: ...

    def set_tag(self, run_id: str, key: str, value: Any) -> Any: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """How far a sweep is."""

    total: int = 0  # trials
    done: int = 0
    running: int = 0
    failed: int = 0
    seconds: float | None = None  # to go, by the cost model


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """A driver that runs a sweep, as it was last heard of."""

    host: str
    pid: int
    machine: str  # tells whether the pid can be looked up here: one boot of one machine, one space of process ids
    owner: str  # told from every other driver by it
    since: datetime
    heard: datetime
    counts: Counts = field(default_factory=Counts)
    ended: bool = False

    @classmethod
    def own(cls) -> "Claim":
        """A new claim of this process."""
        now = _now()
        return cls(
            host=platform.node(), pid=os.getpid(), machine=_machine(), owner=uuid.uuid4().hex, since=now, heard=now
        )

    @property
    def age(self) -> float:
        """Seconds since its last sign of life, by the clock of this machine."""
        return max(0.0, (_now() - self.heard).total_seconds())

    @property
    def ahead(self) -> bool:
        """Whether its clock, or ours, is wrong by so much that its age tells nothing."""
        return (self.heard - _now()).total_seconds() > FRESH

    @property
    def gone(self) -> bool:
        """Whether its process ran on this machine and is dead."""
        return self.machine == _machine() and not _lives(self.pid)

    @property
    def fresh(self) -> bool:
        """Whether its driver must be taken to be alive, as far as its clock can be believed."""
        return not self.gone and not self.ahead and self.age < FRESH

    def heard_now(self, counts: Counts, *, ended: bool = False) -> "Claim":
        return replace(self, heard=_now(), counts=counts, ended=ended)


def of_run(data: Any) -> Claim | None:
    """The claim that stands in the data of a sweep's run; None where its last driver ended."""
    turn = _turns(data.params)
    if not turn:
        return None
    first, last = _read(data.params[_key(turn)]), _read(data.tags.get(_TAG, ""))
    if last is None or first is None or last.owner != first.owner:
        return first  # it has not given a sign of life since it claimed the sweep
    return None if last.ended else last


def take(client: Client, run_id: str, own: Claim, over: Claim | None) -> bool:
    """Claim a sweep that is free, or held by `over`, which is gone; False where another driver holds it.

    Of several drivers that try at once the database lets one write the param of the next turn.
    """
    data = client.get_run(run_id).data
    held = of_run(data)
    if held and (over is None or held.owner != over.owner):
        return False
    key = _key(_turns(data.params) + 1)
    try:
        client.log_param(run_id, key, _text(own))
    except Exception:
        # A refusal and an answer that was lost look alike: what stands there now tells them apart.
        taken = _read(client.get_run(run_id).data.params.get(key, ""))
        if taken is None:
            raise
        return taken.owner == own.owner
    return True


def beat(client: Client, run_id: str, own: Claim) -> bool:
    """Give a sign of life, or say that it ended; False, with nothing written, where another driver took the sweep."""
    data = client.get_run(run_id).data
    held = _read(data.params.get(_key(_turns(data.params)), ""))
    if held is None or held.owner != own.owner:
        return False
    client.set_tag(run_id, _TAG, _text(own))
    return True


def _key(turn: int) -> str:
    return f"{_TURN}.{turn}"


def _turns(params: Mapping[str, str]) -> int:
    """How many drivers a sweep has had."""
    numbers = (key.removeprefix(f"{_TURN}.") for key in params if key.startswith(f"{_TURN}."))
    return max((int(number) for number in numbers if number.isdecimal()), default=0)


def _text(claim: Claim) -> str:
    return json.dumps(asdict(claim), default=datetime.isoformat)


def _read(text: str) -> Claim | None:
    """None for what is no claim: nobody who wrote it can be asked."""
    try:
        row: dict[str, Any] = json.loads(text)
        row |= {name: datetime.fromisoformat(row[name]) for name in ("since", "heard")}
        row |= {"counts": Counts(**row["counts"])}
        return Claim(**row)
    except (ValueError, TypeError, LookupError):
        return None


def _now() -> datetime:
    return datetime.now(UTC)


def _machine() -> str:
    """A restart and a container count process ids anew; where neither can be told, the name must do."""
    try:
        known = [_BOOT.read_text(), str(_PROCESSES.readlink())]
    except OSError:
        known = []
    return digest([platform.node(), *known])[:16]


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # it is another user's
    return True
