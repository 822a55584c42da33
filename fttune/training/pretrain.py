"""A source network, from fresh values to its last step; stopped at any step it goes on as if it never had been.

All layers learn at the full rate, dropout drops, BatchNorm follows the batches with the momentum of its own network
(Yosinski et al. 2014; there is no copied layer to spare). The weights are those of the last step.
"""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import nn

from fttune.backbones import catalog
from fttune.backbones.catalog import Backbone
from fttune.backbones.staged import initialise, replace_classifier
from fttune.data.splits import train_and_val
from fttune.data.store import ImageStore
from fttune.errors import FttuneError
from fttune.features import Norm
from fttune.layers import LayerSpec
from fttune.record import CurvePoint
from fttune.runtime import Runtime
from fttune.training import checkpoint
from fttune.training.device import device_name, own_generators, pick_device, placed
from fttune.training.inputs import Labelled, StoredInputs, Viewer
from fttune.training.loop import score
from fttune.training.steps import Training
from fttune.training.surgery import Student
from fttune.trial import HParams, seed_from


@dataclass(frozen=True, kw_only=True, slots=True)
class Pretraining:
    """One training from scratch: everything that its weights follow from, and how often it is saved."""

    backbone: str
    source: str  # what the dataset is called
    data_digest: str  # of its images
    val_per_class: int  # images of each class held out
    test_per_class: int | None  # images of each class that a sweep may test on, left out; None: the official test set
    hparams: HParams
    seed: int
    checkpoint_every: int  # steps; changes nothing in the weights

    @property
    def terms(self) -> checkpoint.Terms:
        """What must be equal for a training to go on; how often it reports may change.

        An official test set is in the digest of the images and never trained on, so it is no term.
        """
        told = asdict(self)
        if self.test_per_class is None:
            del told["test_per_class"]
        hparams = told.pop("hparams")
        del told["checkpoint_every"], hparams["report_every"]
        return told | hparams

    def seed_for(self, purpose: str) -> int:
        """The seed of one random stream, below 2**63."""
        return seed_from("pretrain", purpose, self.source, self.seed)

    def next_stop(self, step: int) -> int:
        """The next step after which to report or to save."""
        coming = (step // every * every + every for every in (self.hparams.report_every, self.checkpoint_every))
        return min(*coming, self.hparams.steps)


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """What a training from scratch came to."""

    net: nn.Sequential  # of the last step, in eval mode, on the CPU
    train_images: int
    val_images: int
    curve: tuple[CurvePoint, ...]
    seconds: float  # of training and evaluation, in all processes that took part
    device: str

    @property
    def best(self) -> CurvePoint:
        """The report with the highest val accuracy; the earliest of equals."""
        return max(self.curve, key=lambda point: point.val_accuracy)


class Watcher(Protocol):
    """Who is told how a training goes."""

    def at(self, step: int) -> None:
        """So many steps are done; told first where the training begins or goes on."""
        ...

    def point(self, point: CurvePoint) -> None: ...


def pretrain(
    job: Pretraining,
    store: ImageStore,
    runtime: Runtime,
    *,
    path: Path,
    watcher: Watcher,
    interrupted: Callable[[], bool] = lambda: False,
) -> Trained | None:
    """Train, saving to the checkpoint at `path` and going on from it; None when `interrupted`, with all saved.

    Bit-equal to an uninterrupted training on a CPU with the same number of threads. Raises FttuneError when the loss
    leaves the numbers, DataError when a class has too few images.
    """
    if runtime.threads:
        torch.set_num_threads(runtime.threads)
    device = pick_device(runtime.device)
    rows = train_and_val(
        dataset=job.source,
        classes=store.classes,
        labels=store.labels,
        keys=store.keys,
        pools=store.pools,
        val=job.val_per_class,
        test=job.test_per_class,
    )
    row = catalog.find(job.backbone)
    student = fresh(row, len(store.classes), job.seed_for("init"))
    placed(student.trained, device)
    train, val = (_labelled(store, part, job.hparams, row, student, device) for part in rows)
    with own_generators(job.seed_for("dropout")):
        training = Training.begin(student, len(train.labels), job.hparams, seed=job.seed_for("order"))
        course = _Course(job, training, path)
        if not course.follow(train, val, watcher, interrupted):
            return None
    return Trained(
        net=student.trained.eval().cpu(),
        train_images=len(train.labels),
        val_images=len(val.labels),
        curve=tuple(course.curve),
        seconds=course.seconds,
        device=device_name(device),
    )


def fresh(row: Backbone, classes: int, seed: int) -> Student:
    """A network of a family with every layer initialised anew, each from `seed` and its position; all of it learns."""
    net = catalog.build(row.name)
    replace_classifier(net, classes)
    for position, stage in enumerate(net):
        initialise(stage, seed_from("layer", seed, position), row.fills[position] if row.fills else None)
    return Student(frozen=net[:0], trained=net, spec=LayerSpec(frozen=0, tuned=0, random=row.depth), bn="batch")


class _Course:
    """A training with its curve and its clock, taken up from the checkpoint where there is one."""

    def __init__(self, job: Pretraining, training: Training, path: Path) -> None:
        self.job, self.training, self.path = job, training, path
        self.curve: list[CurvePoint] = []
        self.seconds = 0.0
        if saved := checkpoint.load(path, job.terms):
            training.resume(saved["training"])
            self.curve = [CurvePoint(**point) for point in saved["curve"]]
            self.seconds = saved["seconds"]

    def follow(self, train: Labelled, val: Labelled, watcher: Watcher, interrupted: Callable[[], bool]) -> bool:
        """Go to the last step; False when interrupted before it."""
        training, steps = self.training, self.job.hparams.steps
        start = time.perf_counter() - self.seconds
        watcher.at(training.step)
        halted = False
        while training.step < steps and not halted:
            training.advance(train, self.job.next_stop(training.step), interrupted)
            halted = interrupted()
            self._check()
            if training.since and self._due(self.job.hparams.report_every):
                self.curve.append(self._look(val))
                watcher.point(self.curve[-1])
            self.seconds = time.perf_counter() - start
            if halted or self._due(self.job.checkpoint_every):
                self._save()
            watcher.at(training.step)
        return training.step == steps

    def _due(self, every: int) -> bool:
        return self.training.step % every == 0 or self.training.step == self.job.hparams.steps

    def _look(self, val: Labelled) -> CurvePoint:
        loss, scores = self.training.mean_loss(), score(self.training.student, val)
        return CurvePoint(step=self.training.step, train_loss=loss, val_loss=scores.loss, val_accuracy=scores.accuracy)

    def _check(self) -> None:
        """Nothing that is no number may reach a checkpoint."""
        if math.isfinite(self.training.total.item()):
            return
        saved = f", remove {self.path.parent}" if self.path.exists() else ""
        raise FttuneError(
            f"the training loss must stay finite, but it left the numbers before step {self.training.step}:"
            f" lower train.lr ({self.job.hparams.lr:g}){saved} and start again"
        )

    def _save(self) -> None:
        curve = [asdict(point) for point in self.curve]
        state = {"training": self.training.state(), "curve": curve, "seconds": self.seconds}
        checkpoint.save(self.path, self.job.terms, state)


def _labelled(
    store: ImageStore, rows: np.ndarray, hparams: HParams, row: Backbone, student: Student, device: torch.device
) -> Labelled:
    viewer, norm = Viewer.of(hparams, store.size, rows), Norm(mean=row.mean, std=row.std)
    inputs = StoredInputs(store=store, rows=rows, device=device, viewer=viewer, norm=norm)
    return Labelled(inputs=inputs, labels=torch.from_numpy(store.labels[rows]).to(device), logits=student.logits)
