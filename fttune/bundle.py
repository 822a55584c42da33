"""Which trials one job runs: those that can be trained as one computation, and what their images are cached for."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from fttune.trial import Trial, fixed_views
from fttune.ways import PLAIN

MOST = 64  # trials trained at once


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
        Bundle(trials=tuple(group[start : start + MOST]), depths=depths.get(_images(group[0]), ()))
        for group in groups.values()
        for start in range(0, len(group), MOST)
    ]


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
