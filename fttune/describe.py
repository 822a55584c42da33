"""What a backbone, a dataset, a spec, a distance or this machine is, as plain rows for the command line."""

import os
import shutil
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import Any

import numpy as np

from fttune.backbones import catalog as backbones
from fttune.backbones.source import SourceMean, available, source_mean
from fttune.data import catalog as datasets
from fttune.data.catalog import Dataset
from fttune.data.store import ImageStore
from fttune.distance import DistanceJob, Sample
from fttune.errors import DataError, FttuneError
from fttune.files import place
from fttune.layers import LayerSpec
from fttune.runtime import Runtime, cores
from fttune.sweep.ground import decode
from fttune.terminal import Decoding, Row
from fttune.trial import stored_size

DISTANCE_SIZE = 224  # pixels, where none is asked for
_DISTANCE_BANDS = ((0.2, "low"), (0.4, "medium"))  # the paper's, section 4


def spec_rows(backbone: str, text: str, image_size: int | None, classes: int, scale: float) -> list[Row]:
    """One row for each layer: what it is, what it gives, and what the spec does with it."""
    row = backbones.find(backbone)
    spec = LayerSpec.parse(text, depth=row.depth)
    from fttune.backbones.staged import output_shapes, replace_classifier

    size = image_size or row.image_size
    if size < row.min_image_size:
        raise DataError(f"--image-size: {backbone} needs at least {row.min_image_size} px, but got {size}")
    net = backbones.outline(backbone)
    replace_classifier(net, classes)
    shapes = output_shapes(net, size)
    rates = {"frozen": 0.0, "tuned": scale, "random": 1.0}
    return [
        {
            "layer": layer,
            "name": name,
            "output": "x".join(map(str, shape)),
            "parameters": sum(p.numel() for p in stage.parameters()),
            "is": spec.kind_of(layer),
            "rate": rates[spec.kind_of(layer)],
        }
        for layer, (name, shape, stage) in enumerate(zip(row.layers, shapes, net, strict=True), start=1)
    ]


def dataset_rows() -> list[Row]:
    return [
        {
            "name": row.name,
            "classes": row.classes,
            "task": row.task,
            "images per class": ", ".join(map(str, row.images_per_class)),
            "val": row.val,
            "test": row.test or "official",
            "about": row.about,
        }
        for row in datasets.DATASETS.values()
    ]


def backbone_rows() -> list[Row]:
    return [
        {
            "name": row.name,
            "layers": row.depth,
            "image size": row.image_size,
            "source": row.source,
            "distances at": ", ".join(map(str, available(row.name))) or "-",
            "weights": _weights(row.name),
        }
        for row in backbones.listed()
    ]


def prepared(target: str, *, image_size: int | None, skip_corrupt: bool) -> Row:
    """Decode a dataset and say what it holds."""
    row = find(target)
    size = stored_size(image_size or DISTANCE_SIZE)
    with Decoding() as progress:
        store = decode(row, size, "crop", "skip" if skip_corrupt else "refuse", place("store"), progress)
    counts = np.bincount(store.labels, minlength=len(store.classes))
    return {
        "dataset": row.name,
        "classes": len(store.classes),
        "images": len(store.labels),
        "smallest class": f"{store.classes[counts.argmin()]} ({counts.min()} images)",
        "largest class": f"{store.classes[counts.argmax()]} ({counts.max()} images)",
        "left out as corrupt": len(store.skipped),
        "left out as exact copies": len(store.copies),
        "stored side": size,
        "digest": store.digest,
    }


def measured(target: str, *, source: str | None, backbone: str, image_size: int | None) -> Row:
    """The cosine distance of a target, with its interval and band."""
    row, size = backbones.find(backbone), image_size or DISTANCE_SIZE
    runtime = Runtime(store=place("store"), cache=place("features"))
    origin = _source(source, backbone, size, runtime) if source else source_mean(backbone, size, "crop")
    if origin is None:
        sizes = ", ".join(map(str, available(backbone))) or "none"
        raise DataError(
            f"no source mean of {row.name} is shipped at {size} px (sizes shipped: {sizes}); "
            "choose one with --image-size, or name the source's images with --source"
        )
    record = DistanceJob(sample=_sample(target, backbone, size, runtime), source=origin).measure(runtime)
    band = next((name for edge, name in _DISTANCE_BANDS if record.value < edge), "high")
    return {
        "target": record.dataset,
        "backbone": record.backbone,
        "source": record.source,
        "metric": record.metric,
        "value": record.value,
        "interval": [record.low, record.high],
        "band": band,
        "images": record.images,
        "source images": record.source_images,
        "image size": record.image_size,
        "data digest": record.data_digest,
        "weights digest": record.weights_digest,
    }


def checks() -> Row:
    """What this machine has; a value that starts with `error:` is a fault."""
    facts: dict[str, Any] = {"python": python_version(), "cores": cores()}
    facts |= {name: version(name) for name in ("fttune", "torch", "torchvision", "ray", "mlflow", "optuna", "pyarrow")}
    facts["gpus"] = _gpus()
    for name in ("store", "features", "state", "networks"):
        facts[name] = _room(place(name))
    facts |= {f"weights of {row.name}": _weights(row.name) for row in backbones.listed()}
    facts["tracker"] = _tracker()
    return facts


def find(target: str) -> Dataset:
    """A dataset by its name in the catalog, or a folder of class folders."""
    if target in datasets.DATASETS or not (Path(target).is_dir() or os.sep in target):
        return datasets.find(target)
    folder = Path(target).resolve()
    return datasets.folder(folder.name, folder)


def _sample(name: str, backbone: str, size: int, runtime: Runtime) -> Sample:
    """Every image of a dataset, decoded if need be."""
    row = find(name)
    return Sample(
        dataset=row.name,
        data_digest=_store(row, size, runtime).digest,
        test_per_class=0,
        backbone=backbone,
        weights_digest=backbones.weights_digest(backbone),
        image_size=size,
        resize="crop",
    )


def _source(name: str, backbone: str, size: int, runtime: Runtime) -> SourceMean:
    """The mean activation over another dataset's images, as the source to measure from."""
    sample = _sample(name, backbone, size, runtime)
    return sample.mean(runtime, source=sample.dataset, provenance=f"the images of {name}")


def _store(row: Dataset, size: int, runtime: Runtime) -> ImageStore:
    with Decoding() as progress:
        return decode(row, stored_size(size), "crop", "refuse", runtime.store, progress)


def _weights(name: str) -> str:
    try:
        return backbones.weights_digest(name)[:16]
    except FttuneError as error:
        return f"missing: {error}"


def _gpus() -> str:
    import torch

    count = torch.cuda.device_count()
    return ", ".join(torch.cuda.get_device_name(index) for index in range(count)) or "none"


def _room(folder: Path) -> str:
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    state = "" if os.access(there, os.W_OK) else "error: not writable; "
    return f"{state}{folder} ({shutil.disk_usage(there).free / 1e9:.0f} GB free)"


def _tracker() -> str:
    from fttune.tracking.runs import Tracker, resolve_uri

    uri = resolve_uri(None)
    try:
        Tracker(uri, "fttune")
    except FttuneError as error:
        return f"error: {error}"
    return uri
