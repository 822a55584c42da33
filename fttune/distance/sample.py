"""The images of a dataset that a distance is measured on, as a backbone sees them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fttune.backbones import catalog
from fttune.backbones.source import SourceMean
from fttune.data.splits import non_test
from fttune.data.store import ImageStore, open_store
from fttune.errors import DataError
from fttune.runtime import Runtime
from fttune.trial import Resize, stored_size

MAX_IMAGES = 2000  # images a distance is measured on unless told, balanced over classes
_BATCH = 256  # images shrunk at once


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
    maximum: int | None = MAX_IMAGES  # images; None: all outside the test set

    def features(self, runtime: Runtime) -> np.ndarray:
        """Penultimate activations float64 [N, D] of at most `maximum` images, cached as a frozen trial's are."""
        # Only a measurement needs torch; a plan that lists measurements does not.
        import torch

        from fttune.feature_cache import FeatureKey, reach
        from fttune.features import CENTRE, Norm, features_at, showings, shown
        from fttune.training.device import give_back, pick_device, placed

        store, rows = self._rows(runtime)
        row, device = catalog.find(self.backbone), pick_device(runtime.device)
        norm = Norm(mean=row.mean, std=row.std)
        key = FeatureKey(
            weights=self.weights_digest,
            data=self.data_digest,
            backbone=self.backbone,
            resize=self.resize,
            image_size=self.image_size,
            norm=str(norm),
            device=device.type,
        )

        def forward(missing: np.ndarray, layers: Sequence[int]) -> Iterator[dict[int, "torch.Tensor"]]:
            net = placed(catalog.load(self.backbone, weights=runtime.weights.get(self.backbone)), device)
            images = shown(store, missing, self.image_size, device)
            return features_at(net, layers, images, norm)

        last, wanted = row.depth - 1, showings(rows, CENTRE)[0]
        try:
            table = reach(runtime.cache, key, [last], wanted, forward, room=runtime.cache_bytes)[last]
        finally:
            give_back()
        return table.take(torch.arange(len(table))).flatten(1).double().numpy()

    def labels(self, runtime: Runtime) -> np.ndarray:
        """The classes of the same images, int64 [N]."""
        store, rows = self._rows(runtime)
        return store.labels[rows]

    def pixels(self, runtime: Runtime, side: int) -> np.ndarray:
        """The same images as the backbone sees them, shrunk to `side` pixels: float32 [N, 3, side, side] in 0..1."""
        import torch
        from torch.nn.functional import interpolate

        from fttune.data.views import centre

        store, rows = self._rows(runtime)
        batches = (store.images(rows[start : start + _BATCH]) for start in range(0, len(rows), _BATCH))
        shown = (centre(torch.from_numpy(batch), self.image_size).float() / 255 for batch in batches)
        small = [interpolate(views, (side, side), mode="bilinear", antialias=True).clamp(0, 1) for views in shown]
        return torch.cat(small).numpy()

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

    def _rows(self, runtime: Runtime) -> tuple[ImageStore, np.ndarray]:
        """The store, and which of its images are in the sample; int64, sorted."""
        store = open_store(
            root=runtime.store, digest=self.data_digest, size=stored_size(self.image_size), resize=self.resize
        )
        rows = non_test(
            dataset=self.dataset,
            classes=store.classes,
            labels=store.labels,
            keys=store.keys,
            pools=store.pools,
            test=self.test_per_class,
            maximum=self.maximum,
        )
        if not len(rows):
            raise DataError(f"dataset '{self.dataset}' has no image outside its test set to measure a distance on")
        return store, rows
