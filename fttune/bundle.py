"""Which trials one job runs: those that can be trained as one computation, and what their images are cached for."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from fttune.trial import HParams, Trial, fixed_views
from fttune.ways import PLAIN

MOST = 64  # trials trained at once
_SPARE = 1.5  # combinations of seed and setting that may be trained for each that is asked for


@dataclass(frozen=True, kw_only=True, slots=True)
class Bundle:
    """Trials that are equal but for seed, lr, weight decay and momentum; more than one only where they train together.

    `depths`: how many frozen layers there are in any trial on the same images and network, so that one pass over the
    images serves them all. Never part of a result.
    """

    trials: tuple[Trial, ...]
    depths: tuple[int, ...] = ()

    @classmethod
    def alone(cls, trial: Trial) -> "Bundle":
        return cls(trials=(trial,), depths=trial.depths)


def bundle(trials: Sequence[Trial]) -> list[Bundle]:
    """Jobs for the trials that a sweep is to run, in their order: a job stands where its first trial stood."""
    depths = _depths(trials)
    groups: dict[object, list[Trial]] = {}
    for trial in trials:
        groups.setdefault(_likeness(trial), []).append(trial)
    return [
        Bundle(trials=tuple(part), depths=depths.get(_images(group[0]), ()))
        for group in groups.values()
        for part in _parts(group)
    ]


def _parts(group: Sequence[Trial]) -> Iterator[Sequence[Trial]]:
    """At most `MOST` trials each, of which every combination of seed and setting is trained, asked for or not."""
    for start in range(0, len(group), MOST):
        part = group[start : start + MOST]
        combinations = len({trial.seed for trial in part}) * len({trial.hparams for trial in part})
        yield from [part] if combinations <= _SPARE * len(part) else _grids(part)


def _grids(trials: Sequence[Trial]) -> Iterable[Sequence[Trial]]:
    """The trials by seeds that have the same settings: then no combination is missing."""
    settings: dict[int, set[HParams]] = {}
    for trial in trials:
        settings.setdefault(trial.seed, set()).add(trial.hparams)
    grids: dict[frozenset[HParams], list[Trial]] = {}
    for trial in trials:
        grids.setdefault(frozenset(settings[trial.seed]), []).append(trial)
    return grids.values()


def _depths(trials: Iterable[Trial]) -> Mapping[object, tuple[int, ...]]:
    """The numbers of frozen layers, ascending, for each network and set of images."""
    found: dict[object, set[int]] = {}
    for trial in trials:
        if trial.depths:
            found.setdefault(_images(trial), set()).update(trial.depths)
    return {key: tuple(sorted(depths)) for key, depths in found.items()}


def _images(trial: Trial) -> object:
    hparams = trial.hparams
    return trial.data_digest, trial.cell.backbone, trial.weights_digest, hparams.image_size, hparams.resize


def _likeness(trial: Trial) -> object:
    """Equal for trials that train together: only the classifier is trained, on cached features, and to its end.

    Folds may differ in their number of images, so those of one fold train together.
    """
    spec = trial.cell.spec
    plain = trial.cell.way == PLAIN and not trial.bar
    if not plain or not spec.frozen or spec.tuned or spec.random > 1 or not fixed_views(trial.hparams.views):
        return trial
    alike = replace(trial.hparams, lr=1.0, weight_decay=0.0, momentum=0.0)
    return replace(trial, hparams=alike, seed=0)
