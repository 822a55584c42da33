"""The share of a GPU that each job is given: what the sweep file says, or what a probe on each model measured."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from fttune import footprint
from fttune.bundle import Bundle
from fttune.distance.job import DistanceJob
from fttune.errors import StoreError
from fttune.files import writing
from fttune.footprint import Footprint
from fttune.sweep.ledger import Job

Probe = Callable[[str, Sequence[Bundle]], Sequence[Footprint | None]]  # runs bundles on a GPU of a model


def shares(
    jobs: Sequence[Job], wanted: float | str, models: Sequence[str], folder: Path | None, probe: Probe
) -> list[float]:
    """For each job; that of a distance is a guess, or none. `folder` keeps what was measured for the next run."""
    if wanted != "auto" or not models:
        fixed = 0.0 if wanted == "auto" else float(wanted)
        return [fixed if isinstance(job, Bundle) else _of_distance(job, fixed) for job in jobs]
    largest = _largest([job for job in jobs if isinstance(job, Bundle)])
    kinds = {footprint.kind(job): job for job in largest.values()}
    known = {model: _measured(model, kinds, folder, probe) for model in models}
    return [
        footprint.share(known[model][footprint.kind(largest[_but_for_images(job)])] for model in models)
        if isinstance(job, Bundle)
        else _of_distance(job, footprint.UNKNOWN)
        for job in jobs
    ]


def _largest(bundles: Sequence[Bundle]) -> dict[str, Bundle]:
    """Of those that differ in their number of images alone the one with the most: what it takes is enough for all."""
    return {_but_for_images(one): one for one in sorted(bundles, key=lambda one: one.trials[0].cell.images_per_class)}


def _of_distance(job: DistanceJob, share: float) -> float:
    return share if job.passes else 0.0


def _measured(model: str, kinds: dict[str, Bundle], folder: Path | None, probe: Probe) -> dict[str, Footprint | None]:
    """What each kind of training takes of a model of GPU, each measured once."""
    known = {kind: Footprint.read(footprint.place(folder, model, kind)) if folder else None for kind in kinds}
    missing = [kind for kind, found in known.items() if found is None]
    if not missing:
        return known
    for kind, found in zip(missing, probe(model, [kinds[kind] for kind in missing]), strict=True):
        known[kind] = found
        if found and folder:
            with suppress(StoreError), writing(folder):  # without room it is measured again by the next run
                found.save(footprint.place(folder, model, kind))
    return known


def _but_for_images(bundle: Bundle) -> str:
    trials = tuple(replace(trial, cell=replace(trial.cell, images_per_class=0)) for trial in bundle.trials)
    return footprint.kind(replace(bundle, trials=trials))
