"""One measurement: a metric between a sample and a source, or a score of a sample alone."""

from dataclasses import dataclass

import numpy as np

from fttune.backbones.source import SourceMean
from fttune.distance.metrics import Measured, Metric, find, scored
from fttune.distance.sample import Sample
from fttune.record import DistanceRecord
from fttune.runtime import Runtime
from fttune.trial import seed_from

OWN = "own labels"  # in the place of a source, of a score


@dataclass(frozen=True, kw_only=True, slots=True)
class DistanceJob:
    """One measurement: the distance of a sample to a source, given as its mean or as images; a score needs none."""

    sample: Sample
    source: SourceMean | Sample | None
    metric: str = "cosine"

    @property
    def dataset(self) -> str:
        return self.sample.dataset

    @property
    def id(self) -> str:
        """The id of the record that this job makes."""
        nothing = Measured(value=0, low=0, high=0, spread="bootstrap", images=0, source_images=0)
        return self._record(nothing).id

    @property
    def possible(self) -> bool:
        """Whether what is known of the source is enough: a mean alone tells nothing apart."""
        if self._row.score or self.source is None:
            return self._row.score is not None
        return isinstance(self.source, Sample) or not self._row.needs_images

    @property
    def _row(self) -> Metric:
        return find(self.metric)

    @property
    def _seed(self) -> int:
        return seed_from("distance", self.dataset) % 2**32

    def measure(self, runtime: Runtime) -> DistanceRecord:
        """Raises DataError when a side has no image outside its test set, UsageError without the images it needs."""
        if runtime.threads:
            import torch

            torch.set_num_threads(runtime.threads)
        if score := self._row.score:
            features, labels = self.sample.features(runtime), self.sample.labels(runtime)
            return self._record(scored(score, features, labels, repeats=self._row.repeats, seed=self._seed))
        source, source_images = self._source(runtime)
        target = self._pixels(self.sample, runtime) if self._row.reads == "pixels" else self.sample.features(runtime)
        return self._record(self._row.measure(source, target, source_images=source_images, seed=self._seed))

    def _source(self, runtime: Runtime) -> tuple[np.ndarray, int]:
        """What the metric reads of the source, and from how many images."""
        self._row.check_source(images=isinstance(self.source, Sample))
        assert self.source is not None  # it is `possible`
        if isinstance(self.source, SourceMean):
            return self.source.vector.astype(np.float64), self.source.images
        if self._row.reads == "pixels":
            images = self._pixels(self.source, runtime)
            return images, len(images)
        features = self.source.features(runtime)
        return (features.mean(0) if self._row.reads == "means" else features), len(features)

    def _pixels(self, sample: Sample, runtime: Runtime) -> np.ndarray:
        return sample.pixels(runtime, self._row.side or sample.image_size)

    def _record(self, measured: Measured) -> DistanceRecord:
        source = None if self._row.score else self.source
        return DistanceRecord(
            dataset=self.dataset,
            backbone=self.sample.backbone,
            source=source.dataset if isinstance(source, Sample) else source.source if source else OWN,
            metric=self.metric,
            image_size=self.sample.image_size,
            resize=self.sample.resize,
            value=measured.value,
            low=measured.low,
            high=measured.high,
            spread=measured.spread,
            images=measured.images,
            source_images=measured.source_images,
            repeats=measured.repeats,
            seed=self._seed,
            side=self._row.side or self.sample.image_size,
            chance=self._row.chance,
            data_digest=self.sample.data_digest,
            source_digest=source.data_digest if isinstance(source, Sample) else "",
            test_per_class=self.sample.test_per_class,
            maximum=self.sample.maximum,
            weights_digest=self.sample.weights_digest,
        )
