"""What an answer rests on: runs that ship with the package and runs of the user's own, each pair with its source."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fttune.analysis.ratios import Distances, Pair, between, distances_of
from fttune.analysis.select import Result, select
from fttune.record import DistanceRecord, RunRecord
from fttune.tracking.table import read_parquet

Choice = tuple[str, int]  # mode, new layers: what a user chooses
FREEZE, TUNE = ("freeze", 1), ("tune", 1)  # what the table compares

SHIPPED = "shipped runs"
PLACE = Path(__file__).parents[1] / "evidence"  # runs.parquet and distances.parquet: docs/recommend.md


@dataclass(frozen=True, kw_only=True, slots=True)
class Body:
    """The runs of one source, paired among themselves alone: budgets of two stores say nothing of each other."""

    name: str  # as an answer calls it
    results: tuple[Result, ...]
    distances: Distances

    @classmethod
    def of(cls, name: str, records: Iterable[RunRecord], distances: Iterable[DistanceRecord]) -> "Body":
        """One result for each cell and seed, chosen on val; failed runs do not count."""
        return cls(name=name, results=tuple(select(records)), distances=distances_of(distances))


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One seed of a fair pair of choices, and where it is from."""

    source: str
    pair: Pair
    data_digest: str
    weights_digest: str
    image_size: int  # pixels
    shared: str  # digest of what both were trained under, the images among it
    resize: str
    val_difference: float  # of val accuracies, as a fraction: to choose by, where `difference` is to report

    @property
    def inputs(self) -> str:
        """`96 px (crop)`: what a distance depends on beside images and network."""
        return inputs(self.image_size, self.resize)

    @property
    def difference(self) -> float:
        """Of test accuracies, as a fraction."""
        return self.pair.numerator - self.pair.denominator


def inputs(image_size: int, resize: str) -> str:
    return f"{image_size} px ({resize})"


def shipped(folder: Path = PLACE) -> Body | None:
    """The project's own runs, out of the package; None where it comes without."""
    if not folder.is_dir():
        return None
    records = read_parquet(folder / "runs.parquet", RunRecord)
    return Body.of(SHIPPED, records, read_parquet(folder / "distances.parquet", DistanceRecord))


def findings(bodies: Sequence[Body], above: Choice = TUNE, below: Choice = FREEZE) -> list[Finding]:
    """Every fair pair of two choices; a pair that two sources have is the first one's."""
    found: dict[tuple[str, str], Finding] = {}
    names = _names(bodies)
    for body in bodies:
        results = {result.trial_id: result for result in body.results}
        for pair in between(body.results, body.distances, above=above, below=below).pairs:
            over, under = results[pair.numerator_id], results[pair.denominator_id]
            data, weights, size, resize = over.place
            found.setdefault(
                (pair.numerator_id, pair.denominator_id),
                Finding(
                    source=body.name,
                    pair=replace(pair, dataset=names[data]),
                    data_digest=data,
                    weights_digest=weights,
                    image_size=size,
                    resize=resize,
                    val_difference=over.val - under.val,
                    shared=over.shared,
                ),
            )
    return list(found.values())


def alone(bodies: Sequence[Body], counts: Callable[[Result], bool]) -> list[str]:
    """A line for each result that says nothing of tuning against freezing, though both were run.

    Of the results that `counts` is true of; where only one of the two was run there is nothing to be said.
    """
    found: list[str] = []
    for body in bodies:
        here = [result for result in body.results if counts(result)]
        if {FREEZE, TUNE} <= {(result.mode, result.random_top) for result in here}:
            found += between(here, {}, above=TUNE, below=FREEZE).unpaired
    return list(dict.fromkeys(found))


def _names(bodies: Sequence[Body]) -> dict[str, str]:
    """What to call the images of a digest: two sets of one name are two sets, one set of two names is one."""
    names: dict[str, str] = {}
    for result in (result for body in bodies for result in body.results):
        names.setdefault(result.place[0], result.dataset)
    times = Counter(names.values())
    return {data: f"{name} ({data[:6]})" if times[name] > 1 else name for data, name in names.items()}
