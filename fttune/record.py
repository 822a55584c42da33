"""What is kept of one trial and of one distance measurement: flat values, one row of the table each."""

from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import Any, Literal, Self

from fttune.trial import Trial
from fttune.ways import PLAIN

Status = Literal["done", "failed"]
version = cache(metadata.version)  # of a package; a file is read for it, and every record tells two


@dataclass(frozen=True, kw_only=True, slots=True)
class CurvePoint:
    """One report of a running trial; one step of its learning curve."""

    step: int  # optimiser steps taken
    train_loss: float  # mean cross-entropy since the last report
    val_loss: float  # cross-entropy on the validation images
    val_accuracy: float  # top-1, fraction of the validation images


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRecord:
    """The result of one trial: one MLflow run, one row of the runs table.

    Accuracies are fractions; a failed trial has None for what was not measured and its reason in `error`.
    """

    trial_id: str
    status: Status
    error: str = ""  # one line; empty when done

    dataset: str
    images_per_class: int
    backbone: str
    spec: str  # `T(1-7)R(8)`
    mode: str  # freeze, tune, mixed, scratch, or the way where it is not plain
    depth: int  # layers of the backbone
    random_top: int  # layers initialised anew
    seed: int

    lr: float
    copied_lr_scale: float
    momentum: float
    weight_decay: float
    batch_size: int
    steps: int
    lr_drop_steps: str  # comma-separated
    report_every: int
    views: str
    image_size: int
    resize: str
    bn: str
    biases: str = "plain"
    dropout: str = "trained"
    way: str = PLAIN  # how the spec was trained: `fttune.ways`

    classes: int | None = None  # of the dataset; chance is 1 / classes
    dropped_classes: int | None = None  # left out as too small for the largest split
    dataset_images: int | None = None  # of all classes used, every part
    smallest_class: int | None = None  # images, every part
    train_images: int | None = None
    val_images: int | None = None
    test_images: int | None = None
    val_accuracy: float | None = None  # top-1 at the best step
    val_mean_class_accuracy: float | None = None  # mean over classes of each class's accuracy
    test_accuracy: float | None = None  # read once, with the weights of the best step
    test_mean_class_accuracy: float | None = None
    train_accuracy: float | None = None  # on the unaugmented training images, at the best step
    fold: int | None = None  # of train and val as one, the part that was held out in place of val
    folds: int | None = None  # parts in all
    val_curve: str = ""  # val accuracy at each report, comma-separated
    pruned_step: int | None = None  # where a search ended the training; None: at its end
    resumed_step: int | None = None  # that the last of several processes went on from; None: one trained it all
    best_step: int | None = None  # the step with the best val accuracy; ties go to the lower val loss; None: no steps
    convex_c: float | None = None  # of a convex probe: the inverse regularisation that val preferred
    seconds: float | None = None  # the whole trial
    data_seconds: float | None = None  # opening the store, cutting the subset
    feature_seconds: float | None = None  # computing or reading the frozen part's output
    train_seconds: float | None = None
    eval_seconds: float | None = None
    gpu_seconds: float | None = None  # share of a GPU x seconds; None: on the CPU
    images_per_second: float | None = None  # training images / train_seconds
    together: int = 1  # trials that were trained as one computation; seconds are each one's share
    peak_memory_mb: float | None = None  # of the device; of the process on CPU

    data_digest: str
    weights_digest: str
    device: str = ""  # cpu, or the GPU's name
    torch_version: str = ""
    fttune_version: str = ""
    git_commit: str = ""

    @property
    def role(self) -> str:
        """`search` where a setting was tried, which follows from the seed; empty: a result that is compared."""
        return "search" if self.seed < 0 else ""

    @property
    def label(self) -> str:
        """As `Cell.label`: the spec, and the way where it is not plain."""
        return self.spec if self.way == PLAIN else f"{self.spec} {self.way}"

    @classmethod
    def of(cls, trial: Trial, *, status: Status, **measured: Any) -> Self:
        """The record of a trial: what was asked, filled in from the trial, and what was measured."""
        cell, hparams = trial.cell, trial.hparams
        settings: dict[str, Any] = {name: getattr(hparams, name) for name in hparams.__slots__}
        settings["lr_drop_steps"] = ",".join(map(str, hparams.lr_drop_steps))
        return cls(
            trial_id=trial.id,
            status=status,
            dataset=cell.dataset,
            images_per_class=cell.images_per_class,
            backbone=cell.backbone,
            spec=str(cell.spec),
            mode=cell.mode,
            way=cell.way,
            depth=cell.spec.depth,
            random_top=cell.spec.random,
            seed=trial.seed,
            fold=trial.fold and trial.fold[0],
            folds=trial.fold and trial.fold[1],
            data_digest=trial.data_digest,
            weights_digest=trial.weights_digest,
            torch_version=version("torch"),
            fttune_version=version("fttune"),
            **(settings | measured),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class DistanceRecord:
    """How far a target's images lie from a backbone's source; one row of the distances table."""

    dataset: str
    backbone: str
    source: str  # whose images the target is held against; `own labels` of a score
    metric: str  # a row of `fttune.distance.metrics`: a distance, or a score, of which larger is more transferable
    image_size: int  # pixels, that the backbone is shown; the distance depends on it
    resize: str
    value: float
    low: float
    high: float
    spread: str = "bootstrap"  # what low and high are: a 95 % interval, or the range over repeated draws
    images: int  # target images used, none of them from the test set
    source_images: int
    repeats: int = 1  # draws of images to train and test on
    seed: int = 0  # of the resampling or of the first draw
    side: int | None = None  # pixels, that the metric reads
    chance: float | None = None  # of an accuracy
    data_digest: str
    source_digest: str = ""  # of the source's images; empty: a mean that was measured before
    test_per_class: int | None = None  # target images left out; None: its own test set
    maximum: int | None = None  # images of either side that were allowed; None: all
    weights_digest: str

    @property
    def id(self) -> str:
        """What makes a measurement the same measurement."""
        parts = (self.dataset, self.backbone, self.source, self.metric, self.image_size, self.resize)
        digests = (self.data_digest[:16], self.source_digest[:16], self.weights_digest[:16])
        return "/".join(map(str, (*parts, self.test_per_class, self.maximum, *digests)))
