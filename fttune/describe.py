"""What a backbone, a dataset, a spec, a distance or this machine is, as plain rows for the command line."""

import os
import shutil
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import Any

from fttune.backbones import catalog as backbones
from fttune.backbones.source import available, source_mean
from fttune.data import catalog as datasets
from fttune.data.catalog import locate
from fttune.data.dataset import Dataset, left_out
from fttune.data.store import ImageStore
from fttune.distance import metrics
from fttune.distance.job import OWN, DistanceJob
from fttune.distance.sample import Sample
from fttune.errors import DataError, FttuneError
from fttune.files import place
from fttune.inventory import IMAGE_SIZE
from fttune.layers import LayerSpec
from fttune.runtime import Runtime, cores
from fttune.secrets import masked
from fttune.sweep.ground import decode
from fttune.terminal import Decoding, Row, say
from fttune.trial import stored_size
from fttune.ways import check_fit, is_convex, phases

_DISTANCE_BANDS = ((0.2, "low"), (0.4, "medium"))  # the paper's, section 4


def spec_rows(
    backbone: str, text: str, image_size: int | None, classes: int, scale: float, way: str | None = None
) -> list[Row]:
    """One row for each layer: what it is, what it gives, and what the spec does with it, in the way it is trained."""
    row = backbones.find(backbone)
    spec = LayerSpec.parse(text, depth=row.depth)
    begun = {} if way is None else _begun(spec, way)
    from fttune.backbones.staged import output_shapes, replace_classifier

    size = image_size or row.image_size
    row.check_size("--image-size", size)
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
            **({} if way is None else {"learns after": begun.get(layer)}),
        }
        for layer, (name, shape, stage) in enumerate(zip(row.layers, shapes, net, strict=True), start=1)
    ]


def _begun(spec: LayerSpec, way: str) -> dict[int, str]:
    """After which share of the steps each layer begins to learn; a layer that never does has none."""
    check_fit(way, spec)
    if is_convex(way):
        return {spec.depth: "no steps: solved"}
    begun: dict[int, str] = {}
    done = 0
    for phase in phases(way, spec, 100):
        for layer in range(phase.spec.frozen + 1, spec.depth + 1):
            begun.setdefault(layer, f"{done} %")
        done += phase.steps
    return begun


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
        for row in datasets.rows().values()
    ]


def backbone_rows() -> list[Row]:
    return [
        {
            "name": row.name,
            "layers": row.depth,
            "image size": row.image_size,
            "source": row.source,
            "distances at": ", ".join(map(str, available(row.name))) or "-",
            "weights": _weights(row.name).partition(":")[0],  # `doctor` says where missing ones are looked for
        }
        for row in backbones.listed()
    ]


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """What `fttune distance` was asked."""

    target: str
    source: str | None  # None: what the backbone was trained on, as far as it ships
    backbone: str
    image_size: int | None  # pixels
    images: int | None  # of either side at most; None: all
    root: Path | None  # of official downloads


def measured(asked: Measurement, metric: str) -> Row:
    """The distances and scores of a target, one row for each metric, and what they rest on.

    `all` is every one of them, but for those that need the source's images where these are not named.
    """
    row, size = backbones.find(asked.backbone), asked.image_size or IMAGE_SIZE
    row.check_size("--image-size", size)
    names = list(metrics.METRICS) if metric == "all" else [metric]
    if metric != "all":
        metrics.find(metric).check_source(images=asked.source is not None)
    runtime = Runtime(store=place("store"), cache=place("features"))
    source = _sample(asked.source, asked, size, runtime) if asked.source else source_mean(asked.backbone, size, "crop")
    if source is None and not {*names} <= {*metrics.SCORES}:
        sizes = ", ".join(map(str, available(asked.backbone))) or "none"
        raise DataError(
            f"no source mean of {row.name} is shipped at {size} px (sizes shipped: {sizes}); "
            "choose one with --image-size, or name the source's images with --source"
        )
    sample = _sample(asked.target, asked, size, runtime)
    jobs = [DistanceJob(sample=sample, source=source, metric=name) for name in names]
    rows = [_measured(job, runtime) if metric != "all" or job.possible else _unmeasured(job) for job in jobs]
    return {
        "target": sample.dataset,
        "backbone": asked.backbone,
        "source": source.dataset if isinstance(source, Sample) else source.source if source else OWN,
        "image size": size,
        "data digest": sample.data_digest,
        "weights digest": sample.weights_digest,
        "metrics": rows,
    }


def measured_lines(facts: Row) -> list[str]:
    """What `measured` gives, for a person."""
    head = f"{facts['target']} from {facts['source']}, {facts['backbone']} at {facts['image size']} px"
    width = max(8, *(len(row["metric"]) + 2 for row in facts["metrics"]))
    return [head, *(f"{row['metric']:<{width}}{_told(row)}" for row in facts["metrics"])]


def _told(row: Row) -> str:
    if row["value"] is None:
        return row["note"]
    band = f", {row['band']}" if row["band"] else ""
    chance = f", chance {row['chance']}" if row["chance"] else ""
    numbers = f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]{band}{chance}"
    count = f"n = {row['images']:,}" + (f" and {row['source images']:,}" if row["source images"] else "")
    return f"{numbers}; {count}, {row['interval']}; {row['note']}"


def _measured(job: DistanceJob, runtime: Runtime) -> Row:
    if sys.stderr.isatty():
        say(f"measuring {job.metric}")
    record = job.measure(runtime)
    cosine = record.metric == "cosine"
    return {
        "metric": record.metric,
        "value": record.value,
        "low": record.low,
        "high": record.high,
        "interval": "95 % interval" if record.spread == "bootstrap" else f"range of {record.repeats} draws",
        "band": next((name for edge, name in _DISTANCE_BANDS if record.value < edge), "high") if cosine else None,
        "chance": record.chance,
        "images": record.images,
        "source images": record.source_images,
        "seed": record.seed,
        "side": record.side,
        "note": metrics.find(record.metric).about,
    }


def _unmeasured(job: DistanceJob) -> Row:
    """A row with nothing but the reason."""
    names = ("value", "low", "high", "interval", "band", "chance", "images", "source images", "seed", "side")
    return {"metric": job.metric, **dict.fromkeys(names), "note": "not measured: needs the images of --source"}


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


def _sample(target: str, asked: Measurement, size: int, runtime: Runtime) -> Sample:
    """Every image of a dataset but its test set, decoded if need be."""
    row = locate(target, root=asked.root)
    test = left_out(row)
    if test != row.test:
        say(f"{row.name}: a class has fewer than {row.test} images, so none is left out as a test set")
    return Sample(
        dataset=row.name,
        data_digest=_store(row, size, runtime).digest,
        test_per_class=test,
        backbone=asked.backbone,
        weights_digest=backbones.weights_digest(asked.backbone),
        image_size=size,
        resize="crop",
        maximum=asked.images,
    )


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
    return masked(uri)
