"""One trial, from its values to its record, in any process: needs neither Ray nor MLflow."""

import copy
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fttune.backbones import catalog
from fttune.data.splits import Split, make_split
from fttune.data.store import ImageStore, open_store
from fttune.data.views import FIXED_VIEWS
from fttune.features import FeatureKey, Norm, cached, features_at
from fttune.record import RunRecord
from fttune.runtime import Runtime
from fttune.training.device import device_name, own_generators, peak_memory, pick_device
from fttune.training.inputs import FeatureInputs, ImageInputs, Inputs, Labelled
from fttune.training.loop import Report, fit, score
from fttune.training.surgery import Student, apply_spec
from fttune.trial import Resize, Trial, digest, stored_size


def run_trial(trial: Trial, runtime: Runtime, report: Report) -> RunRecord:
    """Train and test one trial; `report` is called after every `report_every` steps.

    Deterministic by seed on a CPU with a fixed number of threads. The test set is opened once, after training.
    """
    if runtime.threads:
        torch.set_num_threads(runtime.threads)
    watch = _Watch()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with own_generators(trial.seed_for("order")):
        return _run(trial, runtime, report, watch)


def _run(trial: Trial, runtime: Runtime, report: Report, watch: "_Watch") -> RunRecord:
    bench = _set_up(trial, runtime, watch)
    train = bench.labelled(bench.split.train, "train")
    val = bench.labelled(bench.split.val, "val")
    watch.lap("feature")
    outcome = fit(bench.student, train, val, trial.hparams, seed=trial.seed_for("order"), report=report)
    watch.lap("fit")
    test = bench.labelled(bench.split.test.open(), "test")
    watch.lap("feature")
    scores, train_scores = score(bench.student, test), score(bench.student, train)
    watch.lap("eval")
    shown = outcome.steps * min(trial.hparams.batch_size, len(bench.split.train))
    return RunRecord.of(
        trial,
        status="done",
        git_commit=runtime.git_commit,
        classes=len(bench.store.classes),
        dropped_classes=len(bench.store.dropped),
        dataset_images=len(bench.store.labels),
        smallest_class=int(np.bincount(bench.store.labels).min()),
        train_images=len(train.labels),
        val_images=len(val.labels),
        test_images=len(test.labels),
        val_accuracy=outcome.val.accuracy,
        val_mean_class_accuracy=outcome.val.mean_class_accuracy,
        test_accuracy=scores.accuracy,
        test_mean_class_accuracy=scores.mean_class_accuracy,
        train_accuracy=train_scores.accuracy,
        best_step=outcome.best_step,
        seconds=watch.total(),
        data_seconds=watch.laps["data"],
        feature_seconds=watch.laps["feature"],
        train_seconds=outcome.train_seconds,
        eval_seconds=outcome.eval_seconds + watch.laps["eval"],
        images_per_second=shown / outcome.train_seconds,
        peak_memory_mb=peak_memory(bench.device),
        device=device_name(bench.device),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Bench:
    """What one trial works with."""

    trial: Trial
    runtime: Runtime
    device: torch.device
    store: ImageStore
    split: Split
    student: Student
    norm: Norm

    def labelled(self, rows: np.ndarray, part: str) -> Labelled:
        """Images `rows` as the student reads them: the frozen part's cached output when the views allow it."""
        labels = torch.from_numpy(self.store.labels[rows]).to(self.device)
        views = FIXED_VIEWS[self.trial.hparams.views]
        if self.student.spec.frozen and views:
            shown = views if part == "train" else 1
            features = tuple(self._features(rows, view) for view in range(shown))
            inputs: Inputs = FeatureInputs(views=features, hparams=self.trial.hparams)
            return Labelled(inputs=inputs, labels=labels, logits=self.student.trained)
        inputs = ImageInputs(images=self._images(rows).to(self.device), hparams=self.trial.hparams, norm=self.norm)
        return Labelled(inputs=inputs, labels=labels, logits=self.student.logits)

    def _images(self, rows: np.ndarray) -> Tensor:
        return torch.from_numpy(self.store.images(rows))

    def _features(self, rows: np.ndarray, view: int) -> Tensor:
        trial, hparams = self.trial, self.trial.hparams
        key = FeatureKey(
            weights=trial.weights_digest,
            data=trial.data_digest,
            images=digest(rows.tolist()),
            backbone=trial.cell.backbone,
            resize=hparams.resize,
            image_size=hparams.image_size,
            view=view,
            layer=trial.cell.spec.frozen,
        )
        frozen = self.student.frozen
        return cached(
            self.runtime.cache,
            key,
            lambda: features_at(
                frozen,
                len(frozen),
                self._images(rows).to(self.device),
                view=view,
                size=hparams.image_size,
                norm=self.norm,
            ),
        ).to(self.device)


def _set_up(trial: Trial, runtime: Runtime, watch: "_Watch") -> _Bench:
    cell, hparams = trial.cell, trial.hparams
    device = pick_device(runtime.device)
    store = _store(runtime.store, trial.data_digest, stored_size(hparams.image_size), hparams.resize)
    split = make_split(
        dataset=cell.dataset,
        classes=store.classes,
        labels=store.labels,
        keys=store.keys,
        pools=store.pools,
        images_per_class=cell.images_per_class,
        val=trial.val_per_class,
        test=trial.test_per_class,
        seed=trial.seed_for("subset"),
    )
    watch.lap("data")
    net = copy.deepcopy(_pretrained(cell.backbone, runtime.weights.get(cell.backbone)))
    row = catalog.find(cell.backbone)
    student = apply_spec(
        net,
        cell.spec,
        classes=len(store.classes),
        bn=hparams.bn,
        seed=trial.seed_for("init"),
        dropout=hparams.dropout,
        fills=row.fills,
    )
    student.frozen.to(device)
    student.trained.to(device)
    norm = Norm(mean=row.mean, std=row.std)
    watch.lap("model")
    return _Bench(trial=trial, runtime=runtime, device=device, store=store, split=split, student=student, norm=norm)


@lru_cache(maxsize=2)
def _pretrained(backbone: str, weights: Path | None) -> nn.Sequential:
    """Read once per process; callers copy it."""
    return catalog.load(backbone, weights=weights)


@lru_cache(maxsize=8)
def _store(root: Path, data: str, size: int, resize: Resize) -> ImageStore:
    """Mapped once per process; it is read-only."""
    return open_store(root=root, digest=data, size=size, resize=resize)


class _Watch:
    """Wall seconds of a trial by what they went to."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = dict.fromkeys(("data", "model", "feature", "fit", "eval"), 0.0)
        self._start = self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] += now - self._last
        self._last = now

    def total(self) -> float:
        return time.perf_counter() - self._start
