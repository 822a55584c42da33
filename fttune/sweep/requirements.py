"""What a sweep requires of what it names: networks that fit, weights that are whole, images enough for a split."""

from collections.abc import Mapping

from fttune.backbones import catalog as backbones
from fttune.backbones.backbone import Backbone
from fttune.config import Sweep
from fttune.data.dataset import Dataset
from fttune.data.splits import make_split
from fttune.data.store import ImageStore
from fttune.distance import metrics
from fttune.entries import DatasetGrid
from fttune.errors import ConfigError, unknown
from fttune.files import place, writing
from fttune.runtime import Runtime


def check_fit(sweep: Sweep, known: Mapping[str, Backbone]) -> None:
    """Raise ConfigError where a network cannot take the images, or a name is none."""
    for row in known.values():
        row.check_size("train.image_size", sweep.train.image_size)
    for name in sweep.data.weights:
        if name not in known:
            raise ConfigError(f"data.weights: {unknown('backbone of this grid', name, known)}")
    for name in sweep.distance.metrics:
        if name not in metrics.METRICS:
            raise ConfigError(f"distance.metrics: {unknown('metric', name, metrics.METRICS)}")


def check_weights(backbone: str, runtime: Runtime) -> None:
    """Read a weights file once before the first trial needs it; a mark remembers that it is whole."""
    path = runtime.weights.get(backbone)
    known = place("state") / f"weights-{backbone}-{backbones.weights_digest(backbone, path)[:16]}"
    if not known.exists():
        backbones.load(backbone, weights=path)
        with writing(known.parent):
            known.touch()


def check_room(store: ImageStore, row: Dataset, entry: DatasetGrid) -> None:
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
