"""Where runs come from: commits, versions, data and weights, each with the runs it stands behind; and what is stale."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fttune.record import RunRecord

NONE = "none recorded"


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """One value of one kind, and the runs that have it."""

    kind: str  # `commit`, `data of cub200`
    value: str
    newest: str  # the value of the newest run of this kind
    ages: bool  # whether a run with another value than the newest is stale
    trial_ids: tuple[str, ...]

    @property
    def stale(self) -> bool:
        """Whether newer runs have another value."""
        return self.ages and self.value != self.newest


def origins(records: Sequence[RunRecord]) -> list[Origin]:
    """Of the finished runs, which come oldest first. Kinds stand in a fixed order, values as they first appear."""
    found: dict[tuple[str, bool], dict[str, list[str]]] = {}
    newest: dict[str, str] = {}
    for record in records:
        for kind, value, ages in _of(record) if record.status == "done" else ():
            found.setdefault((kind, ages), {}).setdefault(value or NONE, []).append(record.trial_id)
            newest[kind] = value or NONE
    return [
        Origin(kind=kind, value=value, newest=newest[kind], ages=ages, trial_ids=tuple(ids))
        for (kind, ages), values in sorted(found.items(), key=lambda one: _rank(one[0][0]))
        for value, ids in values.items()
    ]


def _of(record: RunRecord) -> Iterator[tuple[str, str, bool]]:
    """Kind, value, and whether another value makes a run stale: a run on another device is none the worse."""
    yield "commit", record.git_commit, True
    yield "fttune", record.fttune_version, True
    yield "torch", record.torch_version, False
    yield "device", record.device, False
    yield f"data of {record.dataset}", record.data_digest, True
    yield f"weights of {record.backbone}", record.weights_digest, True


def _rank(kind: str) -> tuple[int, str]:
    order = ("commit", "fttune", "torch", "device", "data", "weights")
    return order.index(kind.partition(" ")[0]), kind
