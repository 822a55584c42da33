"""Ratios of test accuracies between two results that differ in one thing alone (the paper's Fig. 1 and 2)."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from fttune.analysis.given import NOTHING, Given
from fttune.analysis.select import Place, Result
from fttune.record import DistanceRecord
from fttune.trial import SEARCHED

# A denominator this close to guessing makes a ratio of noise: with few images a net of many new layers stays there.
NEAR_CHANCE = 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """Two results with everything equal but one thing."""

    dataset: str
    images_per_class: int
    backbone: str
    seed: int
    label: str  # what the ratio is of: a mode (Fig. 1), or `R n` for n new layers (Fig. 2)
    numerator: float  # test accuracy
    denominator: float
    numerator_id: str  # trial ids
    denominator_id: str
    flagged: str  # why the ratio is not averaged in; empty when it is
    distance: float | None  # of the dataset to the backbone's source; None: not measured
    numerator_own: Given = NOTHING  # what its run took
    denominator_own: Given = NOTHING
    numerator_searched: Given = NOTHING  # what the search that chose its setting was given
    denominator_searched: Given = NOTHING
    remark: str = ""  # what should be known of a ratio that is averaged in

    @property
    def ratio(self) -> float:
        """Numerator / denominator; infinite or nan only in flagged pairs."""
        if self.denominator:
            return self.numerator / self.denominator
        return math.inf if self.numerator else math.nan

    @property
    def numerator_given(self) -> Given:
        """All that it took to come by the numerator."""
        return self.numerator_searched + self.numerator_own

    @property
    def denominator_given(self) -> Given:
        """All that it took to come by the denominator."""
        return self.denominator_searched + self.denominator_own

    @property
    def log_ratio(self) -> float:
        """Natural logarithm; only pairs that are not flagged have a finite one."""
        return math.log(self.numerator) - math.log(self.denominator)


@dataclass(frozen=True, kw_only=True, slots=True)
class Pairing:
    """Pairs, and a line for each result that found no fair partner."""

    pairs: tuple[Pair, ...]
    unpaired: tuple[str, ...]

    @property
    def counted(self) -> tuple[Pair, ...]:
        """The pairs that are averaged."""
        return tuple(pair for pair in self.pairs if not pair.flagged)


@dataclass(frozen=True, kw_only=True, slots=True)
class DepthPairing:
    """Fewer new layers against more, everything else equal."""

    mode: str
    top: int  # new layers of the numerator
    random_top: int  # new layers of the denominator
    pairing: Pairing


Distances = Mapping[Place, float]  # cosine distance


def distances_of(records: Iterable[DistanceRecord]) -> Distances:
    """The cosine distance of each place; of several measurements the one on the most images, of the source first."""
    cosine = [record for record in records if record.metric == "cosine" and math.isfinite(record.value)]
    ranked = sorted(cosine, key=lambda record: (record.source_images, record.images, record.id))
    return {(r.data_digest, r.weights_digest, r.image_size, r.resize): r.value for r in ranked}


def tune_to_freeze(results: Sequence[Result], distances: Distances, *, random_top: int = 1) -> Pairing:
    """T / F at equal copy depth: above 1 fine-tuning is better (Fig. 2, Table 3)."""
    here = [result for result in results if result.random_top == random_top and result.mode in ("tune", "freeze")]
    return _pair(here, lambda r: r.mode, ("tune", "freeze"), f"R {random_top}", distances)


def top_to_deeper(
    results: Sequence[Result], distances: Distances, *, random_top: int, mode: str, top: int = 1
) -> Pairing:
    """R(top `top`) / R(top `random_top`) within a mode: above 1 copying more layers is better (Fig. 1)."""
    here = [result for result in results if result.random_top in (top, random_top) and result.mode == mode]
    return _pair(here, lambda r: f"{r.random_top} new", (f"{top} new", f"{random_top} new"), mode, distances)


def compare_depths(results: Sequence[Result], distances: Distances) -> list[DepthPairing]:
    """The fewest new layers against each larger number, tuned then frozen, where a mode has runs of both (Fig. 1)."""
    present = {(result.random_top, result.mode) for result in results}
    tops = sorted({top for top, mode in present if mode in ("tune", "freeze")})
    return [
        DepthPairing(
            mode=mode,
            top=tops[0],
            random_top=deeper,
            pairing=top_to_deeper(results, distances, random_top=deeper, mode=mode, top=tops[0]),
        )
        for deeper in tops[1:]
        for mode in ("tune", "freeze")
        if {(tops[0], mode), (deeper, mode)} <= present
    ]


def between(
    results: Sequence[Result], distances: Distances, *, above: tuple[str, int], below: tuple[str, int]
) -> Pairing:
    """One choice of mode and number of new layers against another, whichever of the two they differ in, or both."""
    kinds = (_choice(*above), _choice(*below))
    here = [result for result in results if _choice(result.mode, result.random_top) in kinds]
    return _pair(here, lambda r: _choice(r.mode, r.random_top), kinds, kinds[0], distances)


def _choice(mode: str, random_top: int) -> str:
    return f"{mode}, {random_top} new"


def _pair(
    results: Sequence[Result],
    axis: Callable[[Result], str],
    kinds: tuple[str, str],
    label: str,
    distances: Distances,
) -> Pairing:
    """Hold everything fixed but `axis`, which names what is above and what is below. Budgets must be equal."""
    numerator, denominator = kinds
    sides: dict[str, dict[tuple[str, int, str, int, str], Result]] = {numerator: {}, denominator: {}}
    for result in results:
        key = (result.dataset, result.images_per_class, result.backbone, result.seed, result.shared)
        sides[axis(result)][key] = result
    above, below = sides[numerator], sides[denominator]
    pairs, unpaired = [], []
    for key in sorted(above.keys() | below.keys()):
        if key not in above or key not in below:
            alone = above.get(key) or below[key]
            lacks = numerator if key not in above else denominator
            unpaired.append(f"{_name(alone)}: no finished run with {lacks} under the same conditions")
        elif fault := _unfair(above[key], below[key]):
            unpaired.append(f"{_name(above[key])}: {fault}")
        else:
            pairs.append(_make(above[key], below[key], label, distances))
    return Pairing(pairs=tuple(pairs), unpaired=tuple(unpaired))


def _make(above: Result, below: Result, label: str, distances: Distances) -> Pair:
    return Pair(
        dataset=above.dataset,
        images_per_class=above.images_per_class,
        backbone=above.backbone,
        seed=above.seed,
        label=label,
        numerator=above.test,
        denominator=below.test,
        numerator_id=above.trial_id,
        denominator_id=below.trial_id,
        flagged=_flag(above, below),
        distance=distances.get(above.place),
        numerator_own=above.own,
        denominator_own=below.own,
        numerator_searched=above.given,
        denominator_searched=below.given,
        remark=_remark(above, below),
    )


def spent(pairs: Iterable[Pair]) -> tuple[Given, Given]:
    """What the numerators and the denominators of pairs took in all; a search counts once for the seeds of its cell."""
    above, below = NOTHING, NOTHING
    searches: dict[tuple[object, ...], Pair] = {}
    for pair in pairs:
        above, below = above + pair.numerator_own, below + pair.denominator_own
        searches[
            pair.dataset, pair.images_per_class, pair.backbone, pair.label, pair.numerator_searched,
            pair.denominator_searched,
        ] = pair  # fmt: skip
    for pair in searches.values():
        above, below = above + pair.numerator_searched, below + pair.denominator_searched
    return above, below


def _unfair(above: Result, below: Result) -> str:
    """Why two results had unequal chances; empty when they had equal ones."""
    if above.tried != below.tried:
        return f"unequal budgets, {above.tried} and {below.tried} settings tried"
    for name in ("trials", "steps", "images"):
        if (a := getattr(above.given, name)) != (b := getattr(below.given, name)):
            return f"unequal budgets, {a:,} and {b:,} {name} of search"
    if above.rule != below.rule:
        return f"searched by other rules, {above.rule} and {below.rule}"
    if above.tried == 1 and above.setting != below.setting:
        settings = zip(SEARCHED, above.setting, below.setting, strict=False)
        return "unequal settings, " + ", ".join(f"{name} {a} and {b}" for name, a, b in settings if a != b)
    return ""


def _flag(above: Result, below: Result) -> str:
    if near := _near_chance(below):
        return f"denominator {below.test:.3f} is within {near}"
    return "" if above.test > 0 else "numerator is 0, so its logarithm is not finite"


def _remark(above: Result, below: Result) -> str:
    """A numerator at chance is a finding (its side failed where the other did not), so it counts, and is told."""
    near = _near_chance(above)
    return f"numerator {above.test:.3f} is within {near}, and counts" if near and not _flag(above, below) else ""


def _near_chance(result: Result) -> str:
    """How near to chance an accuracy is, in words; empty when it is not.

    Of few classes twice chance is out of reach, so half way from chance to 1 is far enough.
    """
    half_way = (1 + result.chance) / 2
    if result.test > min(NEAR_CHANCE * result.chance, half_way):
        return ""
    few = half_way < NEAR_CHANCE * result.chance
    chance = f"chance ({result.chance:.3f})"
    return f"half of the way from {chance} to 1" if few else f"{NEAR_CHANCE:g} times {chance}"


def _name(result: Result) -> str:
    return f"{result.dataset}/{result.images_per_class} {result.spec} s{result.seed}"
