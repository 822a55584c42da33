"""What a sweep stands on, on this machine: its datasets, its backbones, the settings, and from these its trials."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from fttune.backbones import catalog as backbones
from fttune.backbones.source import SourceMean, offered, source_mean
from fttune.config import Sweep
from fttune.data import catalog as datasets
from fttune.data.classes import too_small
from fttune.data.dataset import Dataset, left_out
from fttune.data.given import given
from fttune.data.store import Corrupt, ImageStore, build, find_digest
from fttune.distance import metrics
from fttune.distance.job import DistanceJob
from fttune.distance.sample import Sample
from fttune.entries import DatasetEntry, DatasetGrid
from fttune.errors import AbsentDataError, WeightsError
from fttune.files import place
from fttune.plan import BackboneFacts, DatasetFacts, Facts
from fttune.record import RunRecord
from fttune.runtime import Runtime
from fttune.sweep.agenda import Agenda, Asked, check
from fttune.sweep.requirements import check_fit, check_room, check_weights
from fttune.sweep.study import Studies
from fttune.sweep.unseen import check_unseen
from fttune.tracking.uri import database_file, resolve_uri
from fttune.trial import Resize, Trial, digest, stored_size

Progress = Callable[[str, int, int], None]  # dataset, images done, images in all


@dataclass(frozen=True, kw_only=True)  # no slots: its trials are kept
class Ground:
    """A sweep's trials on this machine, and the measurements that place them in the table."""

    sweep: Sweep
    facts: Facts
    rows: Mapping[str, Dataset]  # by the names of the grid
    source: "NamedSource | None" = None  # None: the means that ship with the backbones
    absent: tuple[str, ...] = ()  # a line for each backbone whose weights are not on this machine

    @cached_property
    def trials(self) -> tuple[Trial, ...]:
        """Those that are asked for before anything has run: all of a grid, the first of a search."""
        return self.asked(()).trials

    def asked(self, records: Sequence[RunRecord]) -> Asked:
        """The trials that are asked for after these results. Writes nothing."""
        return self.agenda(keep=False).asked({record.trial_id: record for record in records})

    def agenda(self, *, keep: bool) -> Agenda:
        """What asks for trials; with `keep` the studies of a search are written down."""
        if self.sweep.search.sampler != "tpe":
            return Agenda(self.sweep, self.facts)
        name = f"{self.sweep.tracking.experiment}/{self.sweep.name}"
        return Agenda(self.sweep, self.facts, Studies(studies_file(self.sweep), name, keep=keep))

    @property
    def unprepared(self) -> list[str]:
        """Datasets not decoded on this machine: their trials are counted, but cannot be told from new ones."""
        return [name for name, facts in self.facts.datasets.items() if not facts.digest]

    @property
    def undecoded(self) -> list[Dataset]:
        """Every dataset that is to be decoded here, that of the distances included."""
        rows = [self.rows[name] for name in self.unprepared]
        return [*rows, self.source.row] if self.source and not self.source.facts.digest else rows

    @property
    def whole(self) -> bool:
        """Whether every trial has its id; it has none where images are not decoded or weights are not here."""
        return not self.unprepared and not self.absent

    @property
    def remarks(self) -> list[str]:
        """A line for each dataset with other classes than the catalog expects, and for what is left out of the grid."""
        found = {name: (self.facts.datasets[name].classes, row.classes) for name, row in self.rows.items()}
        return [*self.sweep.grid.remarks, *self.sweep.search.remarks] + [
            f"{name}: {classes} classes are used, the catalog expects {expected}"
            for name, (classes, expected) in found.items()
            if classes and expected and classes != expected
        ]

    def distances(self) -> tuple[list[DistanceJob], list[str]]:
        """The measurements this sweep needs, and a line for each that cannot be made."""
        jobs, missing = [], []
        for backbone in self.sweep.grid.backbones:
            source = self._source(backbone)
            if source is None and not {*self.sweep.distance.metrics} <= {*metrics.SCORES}:
                missing.append(self._no_source(backbone))
            wanted = [
                DistanceJob(sample=self._sample(name, facts, backbone), source=source, metric=metric)
                for name, facts in self.facts.datasets.items()
                for metric in self.sweep.distance.metrics
            ]
            jobs += [job for job in wanted if job.possible]
            if source and (impossible := sorted({job.metric for job in wanted if not job.possible})):
                missing.append(
                    f"not measured for {backbone}: {', '.join(impossible)}; distance.source names the images"
                )
        return jobs, missing

    def _source(self, backbone: str) -> SourceMean | Sample | None:
        if self.source:
            return self._sample(self.source.row.name, self.source.facts, backbone)
        train = self.sweep.train
        mean = source_mean(backbone, train.image_size, train.resize)
        known = mean and mean.weights_digest == self.facts.backbones[backbone].weights_digest
        return mean if known else None

    def _no_source(self, backbone: str) -> str:
        train = self.sweep.train
        return (
            f"no source mean is shipped for {backbone} at {train.image_size} px, resize {train.resize}, with these"
            f" weights (sizes shipped: {offered(backbone)}), so its datasets have no distance and no place in the table"
            "; distance.source may name the source's images"
        )

    def _sample(self, name: str, facts: DatasetFacts, backbone: str) -> Sample:
        train = self.sweep.train
        return Sample(
            dataset=name,
            data_digest=facts.digest,
            test_per_class=facts.test,
            backbone=backbone,
            weights_digest=self.facts.backbones[backbone].weights_digest,
            image_size=train.image_size,
            resize=train.resize,
            maximum=None if (images := self.sweep.distance.images) == "all" else images,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedSource:
    """The dataset that a sweep measures distances from."""

    row: Dataset
    facts: DatasetFacts


@dataclass(frozen=True, kw_only=True, slots=True)
class _Found:
    """What is on this machine of a dataset; None: its images are not."""

    digest: str = ""
    classes: int | None = None
    official: int | None = None  # images of its own test set
    images: int | None = None  # in all


def survey(sweep: Sweep, runtime: Runtime) -> Ground:
    """Look at what is there without writing anything; what is not here or not decoded yet stays without a digest."""
    absent: list[str] = []

    def data(name: str, row: Dataset) -> _Found:
        try:
            source = row.source()
            digest = find_digest(source, root=runtime.store, corrupt=sweep.data.corrupt) or ""
        except AbsentDataError:
            return _Found()
        official = sum(ref.pool == "test" for ref in source.images)
        return _Found(digest=digest, classes=len(source.classes), official=official, images=len(source.images))

    def weights(name: str) -> str:
        try:
            return backbones.weights_digest(name, runtime.weights.get(name))
        except WeightsError as error:
            absent.append(str(error))
            return ""

    return _ground(sweep, data, weights, absent)


def prepare(sweep: Sweep, runtime: Runtime, progress: Progress) -> Ground:
    """Decode every dataset that is not decoded yet, then take stock."""

    def data(name: str, row: Dataset) -> _Found:
        size = stored_size(sweep.train.image_size)
        store = decode(row, size, sweep.train.resize, sweep.data.corrupt, runtime.store, progress)
        if name in sweep.grid.datasets:
            check_room(store, row, sweep.grid.datasets[name])
        return _Found(
            digest=store.digest,
            classes=len(store.classes),
            official=store.pools.count("test"),
            images=len(store.labels),
        )

    def weights(name: str) -> str:
        check_weights(name, runtime)
        return backbones.weights_digest(name, runtime.weights.get(name))

    return _ground(sweep, data, weights)


def decode(row: Dataset, size: int, resize: Resize, corrupt: Corrupt, root: Path, progress: Progress) -> ImageStore:
    """The store of one dataset, built if need be."""
    source = row.source()
    return build(
        source,
        name=row.name,
        size=size,
        resize=resize,
        root=root,
        corrupt=corrupt,
        dropped=too_small(source),
        progress=lambda done, total: progress(row.name, done, total),
    )


def dataset_row(name: str, entry: DatasetEntry, root: Path | None) -> Dataset:
    """The catalog row of a dataset in the grid, or one made for the images it names; under its name in the grid."""
    options = entry.options | ({"half": entry.half} if entry.half else {})
    targets = {"folder": entry.path, "torchvision": entry.torchvision, "hf": entry.hf, "parquet": entry.parquet}
    for kind, place_of in targets.items():
        if place_of is not None:
            return given(name, f"{kind}:{place_of}", root=root, options=options, val=entry.val, test=entry.test)
    return replace(datasets.find(entry.of or name, root=root, options=options), name=name)


def _ground(
    sweep: Sweep, data: Callable[[str, Dataset], _Found], weights: Callable[[str], str], absent: Sequence[str] = ()
) -> Ground:
    # Names are checked before the first file is read, weights before the first image.
    rows = {name: dataset_row(name, entry, sweep.data.root) for name, entry in sweep.grid.datasets.items()}
    known = {name: backbones.find(name) for name in sweep.grid.backbones}
    check_fit(sweep, known)
    for row in known.values():
        sweep.grid.asked(row.depth)
    networks = {name: BackboneFacts(depth=row.depth, weights_digest=weights(name)) for name, row in known.items()}
    entries = sweep.grid.datasets
    sets = {name: _dataset_facts(row, entries[name], data(name, row)) for name, row in rows.items()}
    check_unseen(networks, sets)
    facts = Facts(datasets=sets, backbones=networks)
    check(sweep, facts)
    source = _named_source(sweep, data)
    return Ground(sweep=sweep, facts=facts, rows=rows, source=source, absent=tuple(absent))


def studies_file(sweep: Sweep) -> Path:
    """Where the Optuna studies of a tracker's sweeps are kept: beside its database, else on this machine."""
    uri = resolve_uri(sweep.tracking.uri)
    file = database_file(uri)
    return file.with_name(f"{file.stem}.studies") if file else place("state") / f"{digest(uri)[:16]}.studies"


def _named_source(sweep: Sweep, data: Callable[[str, Dataset], _Found]) -> NamedSource | None:
    if sweep.distance.source is None:
        return None
    row = datasets.locate(sweep.distance.source, root=sweep.data.root)
    digest = data(row.name, row).digest
    # Without a digest its images are not here to be counted.
    facts = DatasetFacts(digest=digest, val=row.val, test=left_out(row) if digest else row.test)
    return NamedSource(row=row, facts=facts)


def _dataset_facts(row: Dataset, entry: DatasetGrid, found: _Found) -> DatasetFacts:
    test = entry.test or row.test
    held = found.official if test is None or found.classes is None else found.classes * test
    return DatasetFacts(
        digest=found.digest,
        val=entry.val or row.val,
        test=test,
        classes=found.classes,
        test_images=held,
        images=found.images,
    )
