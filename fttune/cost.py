"""What trials cost in seconds: steps x images x the measured times of the stages they pass, corrected by what ran.

Stage times are measured once for each network, size and machine (`fttune.training.probe`) and kept as JSON.
"""

import heapq
import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import prod
from pathlib import Path
from statistics import median
from typing import Any, Literal, Self

from fttune.bundle import Bundle
from fttune.layers import LayerSpec
from fttune.record import RunRecord
from fttune.trial import Trial, digest, fixed_views
from fttune.ways import is_convex

START = 7.0  # seconds until the workers of a local cluster have imported torch (benchmarks/overhead.py)
SET_UP = 0.1  # seconds of a trial that are neither training nor evaluation nor features
SOLVED = 5e-5  # seconds for a training view and class that a convex probe takes, at 1,280 features
FUSED = 0.1  # what one more classifier costs in a bundle, of one alone (benchmarks/frozen.py)
_WAY = 2  # of computing a step: raised where stage times of before are no guide

Output = tuple[str, str, int]  # dataset, backbone, frozen layers

NEARLY = 0.1  # by how much less than the longest left a bundle may cost that goes before others: see `longest_first`


@dataclass(frozen=True, kw_only=True, slots=True)
class StageTimes:
    """Measured seconds of each stage of a network."""

    backbone: str
    image_size: int  # pixels
    threads: int
    device: str
    forward: tuple[float, ...]  # an image, without gradient
    training: tuple[float, ...]  # an image, forward and backward
    lowest: tuple[float, ...]  # the same where the stage is the lowest trained: no gradient is passed on below it
    update: tuple[float, ...]  # a step of the optimiser
    bytes: tuple[int, ...]  # of an image's output, float32

    def trained(self, frozen: int) -> float:
        """Seconds of an image in the stages above the frozen ones, forward and backward."""
        return sum(self.lowest[frozen : frozen + 1]) + sum(self.training[frozen + 1 :])

    def save(self, folder: Path) -> None:
        """One small file; a half-written one is read as none."""
        place = self.place(folder, self.backbone, self.image_size, self.threads, gpu=self.gpu)
        place.write_text(json.dumps(asdict(self)))

    @property
    def gpu(self) -> bool:
        """Whether they were measured on one."""
        return self.device != "cpu"

    @classmethod
    def read(cls, folder: Path, backbone: str, image_size: int, threads: int, *, gpu: bool = False) -> Self | None:
        """None where they were not measured on such a device."""
        try:
            told: dict[str, Any] = json.loads(cls.place(folder, backbone, image_size, threads, gpu=gpu).read_text())
            told |= {name: tuple(value) for name, value in told.items() if isinstance(value, list)}
            found = cls(**told)
        except (OSError, ValueError, TypeError):  # an order, or an estimate, is not worth a sweep
            return None
        return found if found.gpu == gpu else None

    @classmethod
    def known(
        cls, folder: Path, backbone: str, image_size: int, threads: int, share: float | Literal["auto"]
    ) -> Self | None:
        """Those of the device that trials with this `share` of a GPU compute on; of `auto`, a GPU's before a CPU's."""
        kinds = (True, False) if share == "auto" else (share > 0,)
        found = (cls.read(folder, backbone, image_size, threads, gpu=gpu) for gpu in kinds)
        return next((times for times in found if times), None)

    @staticmethod
    def place(folder: Path, backbone: str, image_size: int, threads: int, *, gpu: bool = False) -> Path:
        key = [_WAY, backbone, image_size, threads, *["gpu"] * gpu]  # machines of both kinds may share the folder
        return folder / f"stage-times-{digest(key)[:16]}.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Images:
    """How many images a dataset gives."""

    classes: int
    test: int  # in all
    rest: int | None = None  # in all, beside those of test and val; None: not counted

    def drawn(self, counts: Iterable[int]) -> float:
        """Images in subsets of so many of each class, one for each seed, together: on average, since they overlap."""
        sizes = [count * self.classes for count in counts]
        if not self.rest:
            return sum(sizes)
        return self.rest * (1 - prod(max(0.0, 1 - size / self.rest) for size in sizes))


@dataclass(frozen=True, kw_only=True, slots=True)
class CostModel:
    """Seconds of trials; None for one whose network or dataset is not known yet."""

    times: Mapping[tuple[str, int], StageTimes]  # by backbone and image size
    images: Mapping[str, Images]  # by dataset
    computed: Collection[Output] = ()  # of frozen layers that are not kept, but computed at each step
    factors: Mapping[tuple[object, ...], float] = field(default_factory=dict)  # what was measured / what was expected
    passing: Mapping[str, float] = field(default_factory=dict)  # the same of passes over images, by backbone

    def seconds(self, trial: Trial) -> float | None:
        """Of a trial alone, what is kept of its frozen part's output being there."""
        return self.together(trial, 1)

    def together(self, trial: Trial, count: int) -> float | None:
        """Of `count` trials like this one that train at once."""
        expected = self._expected(trial)
        return None if expected is None else expected * _fused(count) * self._factor(trial, count)

    def features(self, trials: Iterable[Trial]) -> dict[Trial, float]:
        """Seconds of the passes over images that cached trials share; each stands at the first trial that needs it."""
        cached = {trial: depths for trial in trials if (depths := self._kept(trial))}
        deepest: dict[object, int] = {}
        for trial, depths in cached.items():
            deepest[_shared(trial)] = max(deepest.get(_shared(trial), 0), *depths)
        passed: dict[object, dict[int, int]] = {}  # images per class, by seed
        return {trial: self._pass(trial, deepest[_shared(trial)], passed) for trial in cached}

    def _kept(self, trial: Trial) -> tuple[int, ...]:
        """The numbers of frozen layers whose output is read for a trial; that of a convex probe always is."""
        if is_convex(trial.cell.way):
            return trial.depths
        return tuple(depth for depth in trial.depths if output_of(trial, depth) not in self.computed)

    def _pass(self, trial: Trial, deepest: int, passed: dict[object, dict[int, int]]) -> float:
        """Of the showings that no trial before this one needed; `passed` is brought up to date."""
        found = self._known(trial)
        if found is None:
            return 0.0
        times, images = found
        before = passed.get(_shared(trial), {})
        held_out = 0 if before else images.classes * trial.val_per_class + images.test
        after = before | {trial.seed: max(trial.cell.images_per_class, before.get(trial.seed, 0))}
        passed[_shared(trial)] = after
        more = images.drawn(after.values()) - images.drawn(before.values())
        shown = more * fixed_views(trial.hparams.views) + held_out
        # Learned passes that took less may have found their features there; of those to come nobody knows.
        slower = max(self._factor(trial, 1), self.passing.get(trial.cell.backbone, 0.0))
        return shown * sum(times.forward[:deepest]) * slower

    def corrected(self, records: Sequence[RunRecord], trials: Sequence[Trial]) -> "CostModel":
        """The same model, held against finished trials that made all their steps on all images."""
        done = {
            record.trial_id: record
            for record in records
            if record.status == "done" and record.pruned_step is None and record.fold is None and record.seconds
        }
        known = {t: done[t.id] for t in trials if t.id in done and self._timed_on(t, done[t.id])}
        ratios: dict[tuple[object, ...], list[float]] = {}
        for trial, record in known.items():
            # A bundle's seconds were shared out among its trials.
            expected = (self._expected(trial) or 0.0) * _fused(record.together) / record.together
            ratio = ((record.seconds or 0.0) - (record.feature_seconds or 0.0)) / expected
            for key in _groups(trial, record.together):
                ratios.setdefault(key, []).append(ratio)
        factors = {key: median(values) for key, values in ratios.items()}
        return replace(self, factors=factors, passing=self._passing(known))

    def _passing(self, known: Mapping[Trial, RunRecord]) -> dict[str, float]:
        """By how much longer passes took than expected, by backbone; in sum, since any trial may have made one.

        Half of it may be waiting, of two trials that need the same at once.
        """
        expected, taken = defaultdict[str, float](float), defaultdict[str, float](float)
        for trial, seconds in replace(self, factors={}, passing={}).features(known).items():
            expected[trial.cell.backbone] += seconds
            taken[trial.cell.backbone] += known[trial].feature_seconds or 0.0
        return {name: taken[name] / seconds / 2 for name, seconds in expected.items() if seconds}

    def _timed_on(self, trial: Trial, record: RunRecord) -> bool:
        """Whether it ran on what its stages were timed on: a GPU says nothing of a processor."""
        found = self._known(trial)
        return bool(found and found[0].device == record.device)

    def _factor(self, trial: Trial, count: int) -> float:
        return next((self.factors[key] for key in _groups(trial, count) if key in self.factors), 1.0)

    def _known(self, trial: Trial) -> tuple[StageTimes, Images] | None:
        times = self.times.get((trial.cell.backbone, trial.hparams.image_size))
        images = self.images.get(trial.cell.dataset)
        return (times, images) if times and images else None

    def _expected(self, trial: Trial) -> float | None:
        found = self._known(trial)
        if found is None:
            return None
        times, images = found
        train, val = (images.classes * count for count in (trial.cell.images_per_class, trial.val_per_class))
        if is_convex(trial.cell.way):
            return SET_UP + SOLVED * train * fixed_views(trial.hparams.views) * images.classes
        batch, kept, spent, looked = min(trial.hparams.batch_size, train), self._kept(trial), 0.0, 0.0
        for spec, steps, reports in looks(trial):
            cached = spec.frozen if spec.frozen in kept else 0
            step = sum(times.forward[cached : spec.frozen]) + times.trained(spec.frozen)
            looked = sum(times.forward[cached:])
            spent += steps * (batch * step + sum(times.update[spec.frozen :])) + reports * val * looked
        return SET_UP + spent + (images.test + train) * looked


def output_of(trial: Trial, depth: int) -> Output:
    """What `depth` frozen layers of a trial's network make of its images."""
    return trial.cell.dataset, trial.cell.backbone, depth


def looks(trial: Trial) -> Iterator[tuple[LayerSpec, int, int]]:
    """Of each phase its spec, its steps, and how often val is looked at in it."""
    hparams, start = trial.hparams, 0
    for phase in trial.phases:
        stop = start + phase.steps
        last = stop == hparams.steps and stop % hparams.report_every != 0
        yield phase.spec, phase.steps, stop // hparams.report_every - start // hparams.report_every + last
        start = stop


def price(model: CostModel, trials: Sequence[Trial]) -> Callable[[Trial], float] | None:
    """What orders trials: their seconds, where they are known of all."""
    seconds = {trial: model.seconds(trial) for trial in trials}
    known = {trial: value for trial, value in seconds.items() if value is not None}
    return known.__getitem__ if trials and len(known) == len(trials) else None


def jobs(model: CostModel, bundles: Sequence[Bundle], done: Sequence[Trial] = ()) -> list[float] | None:
    """Seconds of each bundle, with the passes over images that no `done` trial made; None where one is not known."""
    features = model.features([*done, *(trial for bundle in bundles for trial in bundle.trials)])
    spent: list[float] = []
    for bundle in bundles:
        own = model.together(bundle.trials[0], len(bundle.trials))
        if own is None:
            return None
        spent.append(own + sum(features.get(trial, 0.0) for trial in bundle.trials))
    return spent


def longest_first(model: CostModel, bundles: Sequence[Bundle]) -> list[Bundle]:
    """Bundles in the order of `ranked`."""
    return [bundles[place] for place in ranked(model, bundles)]


def ranked(model: CostModel, bundles: Sequence[Bundle], done: Sequence[Trial] = ()) -> list[int]:
    """Places of bundles by falling cost, so that no long one is left to run alone at the end; as they are if one is
    unknown.

    Of those that cost nearly the same, the ones on the same images and network go one after another: what they share
    is then still in memory, and still in a cache with room for less than everything.
    """
    spent = jobs(model, bundles, done)
    if spent is None:
        return list(range(len(bundles)))
    shared = [_shared(bundle.trials[0]) for bundle in bundles]
    left, order = sorted(range(len(bundles)), key=spent.__getitem__, reverse=True), list[int]()
    while left:
        first = left[0]
        like = [p for p in left if shared[p] == shared[first] and spent[p] >= (1 - NEARLY) * spent[first]]
        order += like
        gone = {*like}
        left = [place for place in left if place not in gone]
    return order


def makespan(seconds: Iterable[float], slots: int) -> float:
    """When the last of the jobs ends, each starting in its turn in the slot that is free first."""
    free = [0.0] * max(1, slots)
    for job in seconds:
        heapq.heapreplace(free, free[0] + job)
    return max(free)


def _fused(count: int) -> float:
    """What trials that train at once cost together, of one alone."""
    return 1 + FUSED * (count - 1)


def _groups(trial: Trial, count: int) -> tuple[tuple[object, ...], ...]:
    """Where a factor is looked for, the narrowest first; `count` train at once."""
    backbone, mode = trial.cell.backbone, trial.cell.mode
    return (backbone, mode, count > 1), (backbone, mode), (backbone,), ()


def _shared(trial: Trial) -> object:
    hparams = trial.hparams
    return trial.data_digest, trial.cell.backbone, hparams.image_size, hparams.resize
