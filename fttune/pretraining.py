"""What `fttune pretrain` does: from a recipe to a network that sweeps may name."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fttune.backbones import catalog, networks
from fttune.backbones.source import write_means
from fttune.backbones.tensors import save_weights
from fttune.code import commit
from fttune.data.dataset import Dataset, kept, left_out
from fttune.data.store import ImageStore, find_digest
from fttune.distance.sample import Sample
from fttune.errors import AbsentDataError, UsageError
from fttune.files import claimed, place
from fttune.recipe import Recipe
from fttune.runtime import Runtime
from fttune.sweep.ground import dataset_row, decode
from fttune.terminal import Decoding, Stepping, print_facts, say
from fttune.training.checkpoint import difference, file_of
from fttune.training.pretrain import Pretraining, Trained, pretrain
from fttune.trial import stored_size

DONE, INTERRUPTED = 0, 130


def pretrain_network(recipe: Recipe, *, again: str, as_json: bool) -> int:
    """Train the network of a recipe unless it is there, and register it; gives the exit code.

    `again` is the command that goes on after an interruption. Raises UsageError where another recipe has its name.
    """
    runtime = Runtime(store=place("store"), cache=place("features"), git_commit=commit())
    catalog.find(recipe.backbone).check_size("train.image_size", recipe.train.image_size)
    row = kept(dataset_row(recipe.source, recipe.dataset, recipe.data.root))
    if _is_there(recipe, _job(recipe, row, _digest(recipe, row, runtime))):
        say(f"{recipe.network} is there already, with these settings: {networks.folder(recipe.network)}")
        _show(recipe.network, as_json=as_json)
        return DONE
    with _alone(recipe.network):
        size, resize = stored_size(recipe.train.image_size), recipe.train.resize
        with Decoding() as progress:
            store = decode(row, size, resize, recipe.data.corrupt, runtime.store, progress)
        job = _job(recipe, row, store.digest)
        trained = _train(recipe.network, job, store, runtime)
        if trained is None:
            say(f"interrupted; everything so far is saved, and this goes on: {again}")
            return INTERRUPTED
        networks.register(recipe.network, partial(_fill, recipe.network, job, store, runtime, trained))
    _show(recipe.network, as_json=as_json)
    return DONE


def _digest(recipe: Recipe, row: Dataset, runtime: Runtime) -> str:
    """Of the images as they are decoded here; empty where they are not, or not even here."""
    try:
        return find_digest(row.source(), root=runtime.store, corrupt=recipe.data.corrupt) or ""
    except AbsentDataError:
        return ""


def _job(recipe: Recipe, row: Dataset, data_digest: str) -> Pretraining:
    hparams = recipe.train.hparams()
    return Pretraining(
        backbone=recipe.backbone,
        source=recipe.source,
        data_digest=data_digest,
        val_per_class=recipe.dataset.val or row.val,
        test_per_class=_test(recipe, row) if data_digest else None,
        hparams=hparams,
        seed=recipe.seed,
        checkpoint_every=recipe.checkpoint_every or hparams.report_every,
    )


def _test(recipe: Recipe, row: Dataset) -> int | None:
    """Test images of each class that a sweep on the same images has unless told otherwise; None: the official ones."""
    if any(ref.pool == "test" for ref in row.source().images):
        return None
    return recipe.dataset.test or left_out(row)


def _is_there(recipe: Recipe, job: Pretraining) -> bool:
    """Whether the network is registered; UsageError when it came from another recipe.

    Images that are not decoded on this machine cannot be told from those it was trained on.
    """
    facts = networks.provenance(recipe.network)
    there = networks.folder(recipe.network)
    if facts is None and there.exists():
        raise UsageError(f"{there} stands in the way: it is no network of ours; remove it or give another name")
    if facts is None:
        return False
    unseen = {} if job.data_digest else {"data_digest": "", "test_per_class": None}
    terms = facts["recipe"] | unseen
    if apart := difference(terms, job.terms):
        raise UsageError(
            f"{recipe.network} was trained by another recipe: {apart}; give this one another name, or remove {there}"
        )
    return True


def _train(name: str, job: Pretraining, store: ImageStore, runtime: Runtime) -> Trained | None:
    path = file_of(networks.workshop(name), "checkpoint")
    with Stepping(name, job.hparams.steps) as watcher, _stopping() as stopped:
        return pretrain(job, store, runtime, path=path, watcher=watcher, interrupted=stopped)


def _fill(name: str, job: Pretraining, store: ImageStore, runtime: Runtime, trained: Trained, made: Path) -> None:
    """Write everything there is to know of a network into the folder `made`."""
    file = networks.weights_in(made)
    save_weights(trained.net, file)
    weights = catalog.weights_digest(name, file)
    sample = Sample(
        dataset=job.source,
        data_digest=store.digest,
        test_per_class=job.test_per_class,
        backbone=name,
        weights_digest=weights,
        image_size=job.hparams.image_size,
        resize=job.hparams.resize,
    )
    told = f"images of {job.source} outside its test set, which {name} was trained and validated on"
    write_means(made, name, [sample.mean(replace(runtime, weights={name: file}), source=job.source, provenance=told)])
    networks.write_provenance(made, _provenance(name, job, store, runtime, trained) | {"weights_digest": weights})


def _provenance(name: str, job: Pretraining, store: ImageStore, runtime: Runtime, trained: Trained) -> dict[str, Any]:
    shown = job.hparams.steps * min(job.hparams.batch_size, trained.train_images)
    return {
        "network": name,
        "backbone": job.backbone,
        "source": {
            "dataset": job.source,
            "digest": store.digest,
            "classes": store.classes,
            "test_per_class": job.test_per_class,
            "train_images": trained.train_images,
            "val_images": trained.val_images,
        },
        "train": asdict(job.hparams),
        "seed": job.seed,
        "recipe": job.terms,
        "final": asdict(trained.curve[-1]),
        "best": asdict(trained.best),
        "seconds": trained.seconds,
        "images_per_second": shown / trained.seconds,
        "device": trained.device,
        "versions": {package: version(package) for package in ("fttune", "torch", "numpy", "pillow")},
        "git_commit": runtime.git_commit,
        "curve": [asdict(point) for point in trained.curve],
    }


def _show(name: str, *, as_json: bool) -> None:
    facts = networks.provenance(name)
    assert facts is not None  # it was registered a moment ago
    print_facts(
        {
            "network": name,
            "source": facts["source"]["dataset"],
            "classes": len(facts["source"]["classes"]),
            "training images": facts["source"]["train_images"],
            "steps": facts["final"]["step"],
            "val accuracy": facts["final"]["val_accuracy"],
            "best val accuracy": facts["best"]["val_accuracy"],
            "best step": facts["best"]["step"],
            "seconds": facts["seconds"],
            "images per second": facts["images_per_second"],
            "weights": str(networks.weights_in(networks.folder(name))),
            "weights digest": facts["weights_digest"],
        },
        as_json=as_json,
    )


@contextmanager
def _alone(name: str) -> Iterator[None]:
    """Hold a network on this machine; UsageError while another process trains it."""
    with claimed(place("state") / f"pretrain-{name}.lock") as free:
        if not free:
            raise UsageError(f"{name} is being trained by another process")
        yield


@contextmanager
def _stopping() -> Iterator[Callable[[], bool]]:
    """Gives whether Ctrl-C was pressed, or the process asked to end; a second Ctrl-C ends it at once."""
    asked: list[int] = []

    def ask(number: int, _: object) -> None:
        asked.append(number)
        signal.signal(signal.SIGINT, before[signal.SIGINT])
        say("stopping after this step")

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
