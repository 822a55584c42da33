"""What a sweep stands on, on this machine: its datasets, its backbones, the settings, and from these its trials."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fttune.backbones import catalog as backbones
from fttune.backbones.catalog import Backbone
from fttune.backbones.source import available, source_mean
from fttune.config import DatasetEntry, DatasetGrid, Sweep
from fttune.data import catalog as datasets
from fttune.data.catalog import Dataset
from fttune.data.classes import halved
from fttune.data.splits import make_split
from fttune.data.store import Corrupt, ImageStore, build, find_digest
from fttune.distance import DistanceJob, Sample
from fttune.errors import ConfigError, unknown
from fttune.files import place, writing
from fttune.plan import BackboneFacts, DatasetFacts, Facts, expand
from fttune.runtime import Runtime
from fttune.sweep.search import draw_settings
from fttune.trial import Resize, Trial, stored_size

Progress = Callable[[str, int, int], None]  # dataset, images done, images in all


@dataclass(frozen=True, kw_only=True, slots=True)
class Ground:
    """A sweep's trials on this machine, and the measurements that place them in the table."""

    sweep: Sweep
    facts: Facts
    trials: tuple[Trial, ...]

    @property
    def unprepared(self) -> list[str]:
        """Datasets not decoded on this machine: their trials are counted, but cannot be told from new ones."""
        return [name for name, facts in self.facts.datasets.items() if not facts.digest]

    def distances(self) -> tuple[list[DistanceJob], list[str]]:
        """The measurements this sweep needs, and a line for each backbone whose source was never measured."""
        jobs, missing = [], []
        train = self.sweep.train
        for backbone in self.sweep.grid.backbones:
            source = source_mean(backbone, train.image_size, train.resize)
            if source is None or source.weights_digest != self.facts.backbones[backbone].weights_digest:
                sizes = ", ".join(map(str, available(backbone))) or "none"
                missing.append(
                    f"no source mean is shipped for {backbone} at {train.image_size} px with these weights"
                    f" (sizes shipped: {sizes}), so its datasets have no distance and no place in the table"
                )
                continue
            jobs += [
                DistanceJob(
                    sample=Sample(
                        dataset=name,
                        data_digest=facts.digest,
                        test_per_class=facts.test,
                        backbone=backbone,
                        weights_digest=source.weights_digest,
                        image_size=train.image_size,
                        resize=train.resize,
                    ),
                    source=source,
                )
                for name, facts in self.facts.datasets.items()
            ]
        return jobs, missing


def survey(sweep: Sweep, runtime: Runtime) -> Ground:
    """Look at what is there without writing anything; datasets that are not decoded yet stay without a digest."""
    return _ground(
        sweep,
        runtime,
        lambda name, row: find_digest(row.source(), root=runtime.store, corrupt=sweep.data.corrupt) or "",
    )


def prepare(sweep: Sweep, runtime: Runtime, progress: Progress) -> Ground:
    """Decode every dataset that is not decoded yet, then take stock."""

    def digest(name: str, row: Dataset) -> str:
        size = stored_size(sweep.train.image_size)
        store = decode(row, size, sweep.train.resize, sweep.data.corrupt, runtime.store, progress)
        _check_room(store, row, sweep.grid.datasets[name])
        return store.digest

    for name in sweep.grid.backbones:
        _check_weights(name, runtime)
    return _ground(sweep, runtime, digest)


def decode(row: Dataset, size: int, resize: Resize, corrupt: Corrupt, root: Path, progress: Progress) -> ImageStore:
    """The store of one dataset, built if need be."""
    return build(
        row.source(),
        name=row.name,
        size=size,
        resize=resize,
        root=root,
        corrupt=corrupt,
        progress=lambda done, total: progress(row.name, done, total),
    )


def dataset_row(name: str, entry: DatasetEntry) -> Dataset:
    """The catalog row of a dataset in the grid, or a row made for its folder; all of it, or half of its classes."""
    if entry.path:
        row = datasets.folder(name, entry.path, val=entry.val, test=entry.test)
    else:
        row = datasets.find(entry.of or name)
    return halved(row, entry.half, name) if entry.half else row


def _ground(sweep: Sweep, runtime: Runtime, digest: Callable[[str, Dataset], str]) -> Ground:
    # Names are checked before the first image is read.
    rows = {name: dataset_row(name, entry) for name, entry in sweep.grid.datasets.items()}
    known = {name: backbones.find(name) for name in sweep.grid.backbones}
    _check_fit(sweep, known)
    weights = {name: backbones.weights_digest(name, runtime.weights.get(name)) for name in known}
    depths = {name: BackboneFacts(depth=row.depth, weights_digest=weights[name]) for name, row in known.items()}
    for name in known:
        sweep.grid.layer_specs(depths[name].depth)
    facts = Facts(
        datasets={
            name: _dataset_facts(row, sweep.grid.datasets[name], digest(name, row)) for name, row in rows.items()
        },
        backbones=depths,
    )
    return Ground(sweep=sweep, facts=facts, trials=tuple(expand(sweep, facts, draw_settings(sweep))))


def _check_fit(sweep: Sweep, known: Mapping[str, Backbone]) -> None:
    size = sweep.train.image_size
    for name, row in known.items():
        if size < row.min_image_size:
            raise ConfigError(f"train.image_size: {name} needs at least {row.min_image_size} px, but got {size}")
    for name in sweep.data.weights:
        if name not in known:
            raise ConfigError(f"data.weights: {unknown('backbone of this grid', name, known)}")


def _check_weights(backbone: str, runtime: Runtime) -> None:
    """Read a weights file once before the first trial needs it; a mark remembers that it is whole."""
    path = runtime.weights.get(backbone)
    known = place("state") / f"weights-{backbone}-{backbones.weights_digest(backbone, path)[:16]}"
    if not known.exists():
        backbones.load(backbone, weights=path)
        with writing(known.parent):
            known.touch()


def _check_room(store: ImageStore, row: Dataset, entry: DatasetGrid) -> None:
    """Raise before the first trial when the largest subset does not fit beside val and test."""
    make_split(
        dataset=row.name,
        classes=store.classes,
        labels=store.labels,
        keys=store.keys,
        pools=store.pools,
        images_per_class=max(entry.images_per_class),
        val=entry.val or row.val,
        test=entry.test or row.test,
        seed=0,
    )


def _dataset_facts(row: Dataset, entry: DatasetGrid, digest: str) -> DatasetFacts:
    return DatasetFacts(digest=digest, val=entry.val or row.val, test=entry.test or row.test)
