"""From the user's images and the runs at hand to an answer: where they lie, what is known there, what is not."""

import math
from collections import Counter
from collections.abc import Callable, Sequence

from fttune.analysis.answer import Answer, Images, Near, Place
from fttune.analysis.cells import CONFIDENCE, cells, effect
from fttune.analysis.evidence import Body, Finding, alone, findings, inputs
from fttune.analysis.options import View, best_of, options_of
from fttune.analysis.phrases import told
from fttune.analysis.published import published_runs, published_verdict
from fttune.analysis.recommend import BANDS, DISTANCE_EDGES, IMAGE_EDGES, Verdict, band, recommend, verdict
from fttune.analysis.support import asked_of, doubts, remarks
from fttune.analysis.trend import Trend
from fttune.record import DistanceRecord

_NEAREST = 3  # cells shown


def advise(images: Images, distance: DistanceRecord, bodies: Sequence[Body], *, depth: int) -> Answer:
    """Answer for images at a distance, with a network of `depth` layers; costs and the sweep to verify are not in it.

    Runs on these very images are an answer by themselves; the table's word is what it is without them.
    """
    known = findings(bodies)
    pool = _pool(known, distance)
    mine = cells([f for f in known if _is_own(f, distance) and f.pair.images_per_class == images.per_class])
    own = _own(mine, distance)
    places = _places(images, distance, pool)
    lone = _alone(bodies, images, distance)
    unsure = (*lone, *doubts(images, distance, pool, places))
    decisive = own if own and own.effect.low is not None else None
    word, why = _decide(decisive, places, unsure)
    counts = _in_cell(decisive, known) if decisive else _elsewhere(distance, pool, places[0])
    view = View(bodies=bodies, counts=counts, own=decisive is not None)
    wide = View(bodies=bodies, counts=_elsewhere(distance, pool), own=False)
    options = options_of(view, wide, depth, word)
    spec, gain = best_of(view, options, word)
    sure = decisive or (not unsure and (word is not Verdict.BOTH or gain))
    return Answer(
        images=images,
        distance=distance,
        verdict=word,
        spec=spec if sure else None,
        gain=gain if sure else None,
        why=why,
        doubts=() if decisive else unsure,
        remarks=(*_of_own(mine, own, distance), *(lone if decisive else ()), *remarks(images, distance, pool, places)),
        own=own,
        measured=decisive is not None,
        places=places,
        expected=Trend.fit([f.pair for f in pool], confidence=CONFIDENCE).at(distance.value, images.per_class),
        near=_nearest(pool, images, distance),
        options=options,
    )


def _is_own(finding: Finding, distance: DistanceRecord) -> bool:
    return (finding.data_digest, finding.weights_digest) == (distance.data_digest, distance.weights_digest)


def _pool(known: Sequence[Finding], distance: DistanceRecord) -> list[Finding]:
    """Placed pairs on other images: of the same network and inputs, or else of any inputs, or else of any network."""
    others = [f for f in known if f.pair.distance is not None and f.data_digest != distance.data_digest]
    alike = [f for f in others if f.weights_digest == distance.weights_digest] or others
    here = inputs(distance.image_size, distance.resize)
    return [f for f in alike if f.inputs == here] or alike


def _places(images: Images, distance: DistanceRecord, pool: Sequence[Finding]) -> tuple[Place, ...]:
    """The box of the measured values first, then those that the interval or the median class reaches into."""
    edges = {"distance_edges": DISTANCE_EDGES, "image_edges": IMAGE_EDGES}
    table = recommend([f.pair for f in pool], [], **edges, confidence=CONFIDENCE)
    places = []
    for row in _reached((distance.value, distance.low, distance.high), DISTANCE_EDGES):
        for column in _reached((images.per_class, images.per_class, images.usual), IMAGE_EDGES):
            here = [f for f in pool if _bands(f) == (row, column)]
            places.append(
                Place(
                    distance=row,
                    images=column,
                    verdict=table.box(row, column).verdict,
                    effect=effect(here),
                    sources=dict(Counter(f.source for f in here if not f.pair.flagged)),
                    published=published_verdict(row, column),
                    published_runs=published_runs(row, column),
                )
            )
    return tuple(places)


def _reached(values: tuple[float, float, float], edges: tuple[float, float]) -> list[str]:
    """The band of the first value, then every other from that of the second to that of the third."""
    here, low, high = (BANDS.index(band(value, edges)) for value in values)
    return [BANDS[here], *(BANDS[place] for place in range(low, high + 1) if place != here)]


def _bands(finding: Finding) -> tuple[str, str]:
    assert finding.pair.distance is not None
    return band(finding.pair.distance, DISTANCE_EDGES), band(finding.pair.images_per_class, IMAGE_EDGES)


def _own(mine: Sequence[Near], distance: DistanceRecord) -> Near | None:
    """What was measured on these images: with these inputs, else with others; None where no pair counts."""
    here = [cell for cell in mine if cell.effect.pairs]
    return min(here, key=lambda cell: (not _is_like(cell, distance), -cell.effect.pairs), default=None)


def _is_like(cell: Near, distance: DistanceRecord) -> bool:
    return (cell.image_size, cell.resize) == (distance.image_size, distance.resize)


def _of_own(mine: Sequence[Near], own: Near | None, distance: DistanceRecord) -> list[str]:
    """Why runs on these images are not the answer, or not quite, where there are some."""
    if own is None:
        return ["runs on these very images came out near chance, so they decide nothing"] if mine else []
    had, asked = inputs(own.image_size, own.resize), inputs(distance.image_size, distance.resize)
    other = [] if _is_like(own, distance) else [f"the runs on these very images had inputs of {had}, not of {asked}"]
    one = ["one seed on these very images decides nothing"] if own.effect.low is None else []
    return [*other, *one] + [
        f"runs on these very images under other settings are not counted in: {told(cell.effect)}"
        for cell in mine
        if cell is not own and cell.effect.pairs
    ]


def _alone(bodies: Sequence[Body], images: Images, distance: DistanceRecord) -> tuple[str, ...]:
    """What was measured on these images and is in no pair, in one line; nothing where all is."""
    own = (distance.data_digest, distance.weights_digest)
    lines = alone(bodies, lambda r: r.place[:2] == own and r.images_per_class == images.per_class)
    if not lines:
        return ()
    more = f", and {len(lines) - 1} more" if len(lines) > 1 else ""
    return (f"runs on these very images that make no fair pair are left out: {lines[0]}{more}",)


def _nearest(pool: Sequence[Finding], images: Images, distance: DistanceRecord) -> tuple[Near, ...]:
    """Nearest first, where a band of distance is as far as the images of a band are (a factor of five)."""

    def away(cell: Near) -> float:
        across = ((cell.distance or 0.0) - distance.value) / 0.2
        along = math.log(cell.images_per_class / images.per_class) / math.log(5)
        return math.hypot(across, along)

    return tuple(sorted(cells(pool), key=away)[:_NEAREST])


def _in_cell(own: Near, known: Sequence[Finding]) -> Callable[[Finding], bool]:
    """Whether a pair is of the cell's images, trained under the same settings."""
    (shared,) = {f.shared for f in known if f.pair.numerator_id in own.tuned}
    return lambda f: (f.pair.images_per_class, f.shared) == (own.images_per_class, shared)


def _elsewhere(
    distance: DistanceRecord, pool: Sequence[Finding], place: Place | None = None
) -> Callable[[Finding], bool]:
    """Whether a pair is on other images, of network and inputs as in the pool, and in a box (None: wherever)."""
    kinds = {(f.weights_digest, f.inputs) for f in pool}

    def counts(f: Finding) -> bool:
        others = f.pair.distance is not None and f.data_digest != distance.data_digest
        placed = place is None or (others and _bands(f) == (place.distance, place.images))
        return others and placed and (f.weights_digest, f.inputs) in kinds

    return counts


def _decide(own: Near | None, places: Sequence[Place], unsure: Sequence[str]) -> tuple[Verdict, str]:
    """The word, and why in a sentence."""
    if own:
        word = verdict(own.effect.ratio, own.effect.low, own.effect.high)
        return word, _MEASURED[word]
    if unsure:
        return Verdict.BOTH, "the runs at hand do not carry a word for these images, so try both"
    words = {place.verdict for place in asked_of(places)}
    if len(words) > 1:
        return Verdict.BOTH, "the boxes that these images may lie in say different words, so try both"
    (word,) = words
    return word, _FOUND[word]


_MEASURED = {
    Verdict.TUNE: "tuning was better on these very images",
    Verdict.FREEZE: "freezing was better on these very images",
    Verdict.BOTH: "runs on these very images do not tell the two apart; freezing costs less",
}
_FOUND = {
    Verdict.TUNE: "tuning was better on sets like this one",
    Verdict.FREEZE: "freezing was better on sets like this one",
    Verdict.BOTH: "on sets like this one the runs do not tell the two apart, so try both",
}
