"""How far a target's images lie from the images a backbone was trained on."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from fttune.backbones import catalog
from fttune.backbones.source import SourceMean
from fttune.data.splits import non_test
from fttune.data.store import open_store
from fttune.errors import DataError
from fttune.record import DistanceRecord
from fttune.runtime import Runtime
from fttune.trial import Resize, digest, seed_from, stored_size

MAX_IMAGES = 2000  # target images a distance is measured on, balanced over classes
_RESAMPLES = 1000

Metric = Callable[[np.ndarray, np.ndarray], np.ndarray]


def cosine(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """`1 - s.t / (|s| |t|)` for a source mean [D] and target means [..., D]; the paper's section 3.1.

    The paper prints it without the square roots of the norms; its Table 2 only fits the true cosine. Between means of
    non-negative activations it lies in [0, 1]. 1 where a mean is zero.
    """
    norms = np.linalg.norm(source) * np.linalg.norm(target, axis=-1)
    return 1 - np.divide(target @ source, norms, out=np.zeros_like(norms), where=norms > 0)


METRICS: dict[str, Metric] = {"cosine": cosine}


def bootstrap(metric: Metric, source: np.ndarray, target: np.ndarray, *, seed: int) -> tuple[float, float]:
    """The 95 % percentile interval of a metric over resampled target images [N, D]; the source mean stays fixed."""
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(len(target), np.full(len(target), 1 / len(target)), size=_RESAMPLES)
    values = metric(source, (counts @ target) / len(target))
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """Images of a prepared dataset as a backbone sees them: its classifier stage's input, centre views, dropout off.

    The test set that `test_per_class` names is left out.
    """

    dataset: str
    data_digest: str
    test_per_class: int | None  # 0: nothing is left out; None: the dataset's own test set
    backbone: str
    weights_digest: str
    image_size: int  # pixels
    resize: Resize

    def features(self, runtime: Runtime) -> np.ndarray:
        """Penultimate activations float64 [N, D] of at most MAX_IMAGES images, cached as a frozen trial's are."""
        # Only a measurement needs torch; a plan that lists measurements does not.
        import torch

        from fttune.features import FeatureKey, Norm, cached, features_at

        store = open_store(
            root=runtime.store, digest=self.data_digest, size=stored_size(self.image_size), resize=self.resize
        )
        rows = non_test(
            labels=store.labels, keys=store.keys, pools=store.pools, test=self.test_per_class, maximum=MAX_IMAGES
        )
        if not len(rows):
            raise DataError(f"dataset '{self.dataset}' has no image outside its test set to measure a distance on")
        row = catalog.find(self.backbone)
        key = FeatureKey(
            weights=self.weights_digest,
            data=self.data_digest,
            images=digest(rows.tolist()),
            backbone=self.backbone,
            resize=self.resize,
            image_size=self.image_size,
            view=0,
            layer=row.depth - 1,
        )

        def compute() -> Iterator[torch.Tensor]:
            net = catalog.load(self.backbone, weights=runtime.weights.get(self.backbone))
            images = torch.from_numpy(store.images(rows))
            norm = Norm(mean=row.mean, std=row.std)
            return features_at(net, row.depth - 1, images, view=0, size=self.image_size, norm=norm)

        return cached(runtime.cache, key, compute).flatten(1).double().numpy()

    def mean(self, runtime: Runtime, *, source: str, provenance: str) -> SourceMean:
        """The mean over the sample, to measure other datasets from."""
        features = self.features(runtime)
        return SourceMean(
            vector=features.mean(0).astype(np.float32),
            images=len(features),
            source=source,
            image_size=self.image_size,
            resize=self.resize,
            weights_digest=self.weights_digest,
            provenance=provenance,
            standard_error=(features.std(0, ddof=1) / np.sqrt(len(features))).astype(np.float32),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class DistanceJob:
    """One measurement: the distance of a sample to the source of its backbone."""

    sample: Sample
    source: SourceMean
    metric: str = "cosine"

    @property
    def dataset(self) -> str:
        return self.sample.dataset

    @property
    def id(self) -> str:
        """The id of the record that this job makes."""
        return self._record(0.0, (0.0, 0.0), 0).id

    def measure(self, runtime: Runtime) -> DistanceRecord:
        """Raises DataError when the dataset has no image outside its test set."""
        features = self.sample.features(runtime)
        metric, source = METRICS[self.metric], self.source.vector.astype(np.float64)
        value = float(metric(source, features.mean(0)))
        interval = bootstrap(metric, source, features, seed=seed_from("distance", self.dataset))
        return self._record(value, interval, len(features))

    def _record(self, value: float, interval: tuple[float, float], images: int) -> DistanceRecord:
        return DistanceRecord(
            dataset=self.dataset,
            backbone=self.sample.backbone,
            source=self.source.source,
            metric=self.metric,
            image_size=self.sample.image_size,
            resize=self.sample.resize,
            value=value,
            low=interval[0],
            high=interval[1],
            images=images,
            source_images=self.source.images,
            data_digest=self.sample.data_digest,
            weights_digest=self.sample.weights_digest,
        )
