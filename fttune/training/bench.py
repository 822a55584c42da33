"""What one trial works with: its images, its split, its student, set up from its values."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from fttune.backbones import catalog
from fttune.data.splits import Split, make_split
from fttune.data.store import ImageStore, open_store
from fttune.data.views import view_codes
from fttune.feature_cache import FeatureKey, FeatureTable, reach
from fttune.features import CENTRE, Norm, features_at, showings, shown
from fttune.runtime import Runtime
from fttune.training.device import image_room, pick_device, placed
from fttune.training.inputs import FeatureInputs, Labelled, Viewer, stored
from fttune.training.loop import Leg, Route
from fttune.training.surgery import Student, apply_spec
from fttune.trial import Resize, Trial, stored_size
from fttune.ways import find, is_convex


@dataclass(frozen=True, kw_only=True, slots=True)
class Bench:
    """A trial set up on this machine."""

    trial: Trial
    runtime: Runtime
    device: torch.device
    depths: Sequence[int]  # that one pass over the images is to reach; without the trial's own nothing is cached
    store: ImageStore
    split: Split
    net: nn.Sequential  # as it came
    student: Student
    norm: Norm

    @classmethod
    def set_up(cls, trial: Trial, runtime: Runtime, depths: Sequence[int]) -> Self:
        """Map the images, cut the split, make the student of the first phase; no image is read."""
        cell, hparams = trial.cell, trial.hparams
        if is_convex(cell.way):  # it reads the frozen part's output whether that is worth keeping or not
            depths = sorted({*depths, *trial.depths})
        device, row = pick_device(runtime.device), catalog.find(trial.cell.backbone)
        store = _store(runtime.store, trial.data_digest, stored_size(hparams.image_size), hparams.resize)
        net = network(cell.backbone, runtime)
        return cls(
            trial=trial,
            runtime=runtime,
            device=device,
            depths=depths,
            store=store,
            split=_split(trial, store),
            net=net,
            student=_student(trial, net, 0, len(store.classes)),
            norm=Norm(mean=row.mean, std=row.std),
        )

    @property
    def cached(self) -> bool:
        """Whether the frozen part's output is kept instead of computed at each step."""
        return self.student.spec.frozen in self.depths

    def at(self, phase: int) -> Self:
        """The same in another phase of the training, whose student starts as the source has it.

        Torch's own generators are left as they were: dropout draws from them, in all phases as in one.
        """
        with torch.random.fork_rng(devices=[]):
            return replace(self, student=_student(self.trial, self.net, phase, len(self.store.classes)))

    def leg(self, phase: int) -> Leg:
        """What is trained in a phase, and what it reads. The first has this bench's own student."""
        bench = self.at(phase) if phase else self
        return Leg(student=bench.student, train=bench.train(), val=bench.val())

    def route(self, first: Leg) -> Route:
        """The legs of the whole training, a phase each, of which the first is set up."""
        stops = tuple(accumulate(phase.steps for phase in self.trial.phases))
        return Route(set_up=lambda phase: self.leg(phase) if phase else first, stops=stops)

    def train(self) -> Labelled:
        """In every view that is cached."""
        return self._labelled(self.split.train, view_codes(self.trial.hparams.views))

    def val(self) -> Labelled:
        return self._labelled(self.split.val, CENTRE)

    def test(self) -> Labelled:
        """Opens the test set, which can be done once."""
        return self._labelled(self.split.test.open(), CENTRE)

    def _labelled(self, rows: np.ndarray, codes: np.ndarray) -> Labelled:
        labels, hparams = torch.from_numpy(self.store.labels[rows]).to(self.device), self.trial.hparams
        if self.cached:
            table = self._features(showings(rows, codes).ravel())
            resident = table.to(self.device, image_room(self.device))
            inputs = FeatureInputs(table=resident, images=len(rows), hparams=hparams, device=self.device)
            return Labelled(inputs=inputs, labels=labels, logits=self.student.trained)
        viewer, room = Viewer.of(hparams, self.store.size, rows), image_room(self.device)
        inputs = stored(self.store, rows, self.device, viewer, self.norm, room=room)
        return Labelled(inputs=inputs, labels=labels, logits=self.student.logits)

    def _features(self, wanted: np.ndarray) -> FeatureTable:
        trial = self.trial
        key = FeatureKey(
            weights=trial.weights_digest,
            data=trial.data_digest,
            backbone=trial.cell.backbone,
            resize=trial.hparams.resize,
            image_size=trial.hparams.image_size,
            norm=str(self.norm),
            device=self.device.type,
        )
        own, room = self.student.spec.frozen, self.runtime.cache_bytes
        return reach(self.runtime.cache, key, self.depths, wanted, self._forward, reads=own, room=room)[own]

    def _forward(self, missing: np.ndarray, layers: Sequence[int]) -> Iterator[dict[int, Tensor]]:
        images = shown(self.store, missing, self.trial.hparams.image_size, self.device)
        return features_at(self.net.eval(), layers, images, self.norm)


def _student(trial: Trial, net: nn.Sequential, phase: int, classes: int) -> Student:
    return apply_spec(
        net,
        trial.phases[phase].spec,
        classes=classes,
        bn=find(trial.cell.way).bn or trial.hparams.bn,
        seed=trial.seed_for("init"),
        dropout=trial.hparams.dropout,
        fills=catalog.find(trial.cell.backbone).fills,
    )


def _split(trial: Trial, store: ImageStore) -> Split:
    return make_split(
        dataset=trial.cell.dataset,
        classes=store.classes,
        labels=store.labels,
        keys=store.keys,
        pools=store.pools,
        images_per_class=trial.cell.images_per_class,
        val=trial.val_per_class,
        test=trial.test_per_class,
        seed=trial.seed_for("subset"),
        fold=trial.fold,
    )


def network(backbone: str, runtime: Runtime) -> nn.Sequential:
    """The pre-trained network on the training's device, read once per process; nobody changes its values."""
    return _pretrained(backbone, runtime.weights.get(backbone), pick_device(runtime.device))


@lru_cache(maxsize=4)
def _pretrained(backbone: str, weights: Path | None, device: torch.device) -> nn.Sequential:
    return placed(catalog.load(backbone, weights=weights), device)


@lru_cache(maxsize=8)
def _store(root: Path, data: str, size: int, resize: Resize) -> ImageStore:
    """Mapped once per process; it is read-only."""
    return open_store(root=root, digest=data, size=size, resize=resize)
