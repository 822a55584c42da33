"""What `fttune recommend` answers, as values: the user's images, their place, the evidence, the choices."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fttune.analysis.given import NOTHING, Given
from fttune.analysis.recommend import Verdict
from fttune.analysis.trend import Expected
from fttune.record import DistanceRecord


@dataclass(frozen=True, kw_only=True, slots=True)
class Images:
    """How many images there are, and how many of each class are left to train on; an official test set apart."""

    dataset: str
    classes: int
    images: int  # decoded, of all classes
    smallest: int  # images of a class
    quarter: int  # that three quarters of the classes have at least
    median: float
    largest: int
    smallest_class: str
    val: int  # images of each class, held out to select by
    test: int | None  # images of each class, held out to test on; None: the official test set
    fits: int  # training images of each class that the smallest class allows
    asked: int | None = None  # training images of each class, where the user said

    @property
    def per_class(self) -> int:
        """Training images of each class that the question is about."""
        return self.asked or self.fits

    @property
    def usual(self) -> int:
        """Training images that the median class has: what the question would be about if classes could differ."""
        return self.asked or self.fits + int(self.median) - self.smallest


@dataclass(frozen=True, kw_only=True, slots=True)
class Effect:
    """One choice against another over fair pairs: the ratio of test accuracies and their difference, 95 %."""

    pairs: int  # counted
    flagged: int  # near chance, shown and not counted
    datasets: tuple[str, ...]
    ratio: float | None  # geometric mean; None: no pair
    low: float | None  # None: nothing to resample
    high: float | None
    difference: float | None  # arithmetic mean of accuracies, as a fraction
    difference_low: float | None
    difference_high: float | None
    given: Given = NOTHING  # what the one choice took, flagged pairs and searches of its settings included
    other_given: Given = NOTHING  # what the other took


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A box of the table that the images fall into, ours beside the published one."""

    distance: str  # band
    images: str  # band
    verdict: Verdict  # of the runs at hand, without those on these very images
    effect: Effect  # tuned against frozen, one new layer
    sources: Mapping[str, int]  # pairs, by whose they are
    published: Verdict
    published_runs: int  # datasets times splits of the paper's own grid that lie in it

    @property
    def thin(self) -> bool:
        """Whether it rests on one dataset."""
        return len(self.effect.datasets) == 1

    @property
    def differs(self) -> bool:
        """Whether the runs at hand say another word than the published table."""
        return self.verdict not in (Verdict.NONE, self.published)


@dataclass(frozen=True, kw_only=True, slots=True)
class Near:
    """One measured cell: a dataset with so many images per class, tuned against frozen over its seeds."""

    source: str  # whose runs
    dataset: str
    images_per_class: int
    backbone: str
    image_size: int  # pixels
    resize: str
    distance: float | None
    effect: Effect
    tuned: tuple[str, ...]  # trial ids, by seed
    frozen: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Option:
    """Something to do: a layer spec, what it is expected to gain over freezing all but the last layer, its cost."""

    spec: str
    mode: str
    random_top: int  # new layers
    depth: int  # layers of the network
    tried: bool  # whether the sweep to verify with holds it
    effect: Effect | None  # against freezing with one new layer; None: that itself
    seconds: float | None = None  # of one training here
    seconds_from: str = ""  # logged runs, or stage times


@dataclass(frozen=True, kw_only=True, slots=True)
class Trying:
    """How to find out: a sweep over the candidates."""

    sweep: Mapping[str, Any]  # the tree of a sweep file
    file: str | None  # where it was written; None: nowhere yet
    command: str
    trials: int
    to_run: int  # of them
    failed: int  # of them; the command leaves them as they are unless it is given --retry-failed
    seconds: float | None  # of what is to run, on this machine


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """The whole answer; prints as text, and `document` is the same as JSON-able values."""

    images: Images
    distance: DistanceRecord
    verdict: Verdict  # with one new layer
    spec: str | None  # what to do; None: try
    # Of `spec` over the verdict with one new layer, where it did better than that; its interval allows for the choices
    # that were held against each other on test.
    gain: Effect | None
    why: str
    doubts: tuple[str, ...]  # why the runs at hand do not carry a word for these images; empty: they do
    remarks: tuple[str, ...]  # what else should be known
    own: Near | None  # measured on these very images
    measured: bool  # whether `own` is what the answer and the effects of the options are from
    places: tuple[Place, ...]  # the first is where the measured distance lies
    expected: Expected  # by the smooth model over all runs on other images, beside the boxes
    near: tuple[Near, ...]  # nearest first
    options: tuple[Option, ...]
    trying: Trying | None = None

    @property
    def document(self) -> dict[str, Any]:
        """JSON-able values; the keys are described in docs/recommend.md."""
        told = asdict(self)
        places = [asdict(place) | {"thin": place.thin, "differs": place.differs} for place in self.places]
        images = told["images"] | {"per_class": self.images.per_class}
        return told | {"images": images, "places": places}

    def __str__(self) -> str:
        from fttune.analysis.words import lines

        return "\n".join(lines(self))
