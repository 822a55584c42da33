"""Where the runs at hand end: why they may not carry a word for some images, and what else to know of them."""

from collections.abc import Iterator, Sequence

from fttune.analysis.answer import Images, Place
from fttune.analysis.evidence import Finding, inputs
from fttune.analysis.recommend import Verdict
from fttune.record import DistanceRecord

SAME = 0.02  # of cosine distance: two halves of a source lie up to 0.007 apart, so what is nearer is no other distance
_SMALL = 1.5  # times the smallest class, that a quarter of the classes falls short of: a few classes hold back the rest
_COARSE = 5  # test images of each class
FAR = 0.1  # of cosine distance, half a band: beyond it no measured set is like these images


def doubts(images: Images, distance: DistanceRecord, pool: Sequence[Finding], places: Sequence[Place]) -> Iterator[str]:
    """A line for each reason not to follow the runs; none where the images lie among them."""
    if not pool:
        yield "there is no run to go by: none ships for this network, and none of yours is logged"
        return
    networks = sorted({f.pair.backbone for f in pool})
    if not any(f.weights_digest == distance.weights_digest for f in pool):
        yield f"no run is of {distance.backbone}; those shown are of {', '.join(networks)}, as are their distances"
    here, others = inputs(distance.image_size, distance.resize), sorted({f.inputs for f in pool})
    if here not in others:
        yield f"no run had inputs of {here}; those shown, and their distances, are at {', '.join(others)}"
    yield from _beyond(distance.value, pool)
    counts = sorted({f.pair.images_per_class for f in pool})
    if not counts[0] <= images.per_class <= counts[-1]:
        which = "fewer" if images.per_class < counts[0] else "more"
        yield f"{images.per_class} images per class are {which} than any run had ({counts[0]} to {counts[-1]})"
    for place in asked_of(places):
        box = f"the box of distance {place.distance} and images {place.images}"
        if place.verdict is Verdict.NONE:
            yield f"no run lies in {box}"
        elif place.thin:
            yield f"{box} rests on one set alone ({place.effect.datasets[0]})"


def remarks(
    images: Images, distance: DistanceRecord, pool: Sequence[Finding], places: Sequence[Place]
) -> Iterator[str]:
    """A line for each thing that makes the place or the evidence less certain than it looks."""
    if images.asked is None and images.quarter >= _SMALL * images.smallest:
        yield (
            f"the smallest class decides; --option min_per_class={images.quarter} leaves out the classes with fewer"
            f" than {images.quarter} images, at most a quarter of them"
        )
    if images.test is not None and images.test < _COARSE:
        yield f"only {images.test} images of each class can be held out to test on: a coarse measure"
    rows = list(dict.fromkeys(place.distance for place in places))
    if len(rows) > 1:
        yield (
            f"the interval of the distance, {distance.low:.3f} to {distance.high:.3f}, reaches over a band edge:"
            f" boxes of distance {' and '.join(rows)} are both shown"
        )
    columns = list(dict.fromkeys(place.images for place in places))
    if len(columns) > 1:
        yield (
            f"by the smallest class there are {images.per_class} to train on, by the median class {images.usual}:"
            f" the answer is for images {columns[0]}; what the table says for {columns[1]} is shown"
        )
    if any(len(place.effect.datasets) in (2, 3) for place in places):
        yield "a box that rests on two or three sets is little to go by, whatever its interval"


def asked_of(places: Sequence[Place]) -> list[Place]:
    """The boxes of the number of images that was asked about, without those that the median class lies in."""
    return [place for place in places if place.images == places[0].images]


def _beyond(value: float, pool: Sequence[Finding]) -> Iterator[str]:
    measured = {f.pair.distance or 0.0: f.pair.dataset for f in pool}
    least, most = min(measured), max(measured)
    if not least - SAME <= value <= most + SAME:
        yield f"a distance of {value:.3f} lies beyond those that runs were made at ({least:.3f} to {most:.3f})"
        return
    close = min(measured, key=lambda other: abs(other - value))
    if abs(close - value) > FAR:
        yield f"no set with runs lies within {FAR:g} of this distance; the nearest is {measured[close]} at {close:.3f}"
