"""What one training is: the question it belongs to, its settings, and the seed; its id follows from these."""

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Literal

from fttune.errors import ConfigError, unknown
from fttune.layers import LayerSpec
from fttune.ways import PLAIN, Phase, check_fit, phases

Views = str  # center, flip, crop, or fixed-K such as fixed-8
Resize = Literal["crop", "warp"]
BatchNorm = Literal["source", "batch"]
Biases = Literal["plain", "caffe"]
Dropout = Literal["trained", "all"]
Purpose = Literal["subset", "init", "order"]

MAX_VIEWS = 255  # fixed views of an image; beyond them a random crop at each step costs less than the room they take
_KINDS = {"center": 1, "flip": 2, "crop": 0}

# Settings that a search may choose for each cell, in the order in which lower ones are preferred among equals.
SEARCHED = ("lr", "copied_lr_scale", "weight_decay", "momentum", "steps", "batch_size", "bn")

# Part of every id: raise it when a change of the code changes the numbers that equal settings produce.
SCIENCE = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """The scientific question; analysis pairs cells that differ in one field."""

    dataset: str  # catalog name, or the name a sweep gives to a folder
    images_per_class: int  # training images of each class
    backbone: str
    spec: LayerSpec
    way: str = PLAIN  # how the spec is trained: a name of `fttune.ways`

    def __post_init__(self) -> None:
        check_fit(self.way, self.spec)

    @property
    def mode(self) -> str:
        """What a grid calls it: the way, or what the spec says where that is plain."""
        return self.spec.mode.value if self.way == PLAIN else self.way

    @property
    def label(self) -> str:
        """The spec, and the way where it is not plain: `T(1-7)R(8) lpft`."""
        return str(self.spec) if self.way == PLAIN else f"{self.spec} {self.way}"


@dataclass(frozen=True, kw_only=True, slots=True)
class HParams:
    """Settings of the training, equal for both members of a pair."""

    lr: float  # rate of the new layers
    copied_lr_scale: float = 0.2  # rate of tuned copied layers / rate of new layers (paper, section 3)
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch_size: int = 32  # images; a smaller training set is one batch
    steps: int  # optimiser steps
    lr_drop_steps: tuple[int, ...] = ()  # steps after which the rate is divided by ten
    report_every: int  # optimiser steps between two evaluations on val
    views: Views = "fixed-2"  # what of an image is shown: `fttune.data.views`
    image_size: int = 128  # pixels, height and width of the network's input
    resize: Resize = "crop"  # short side to fit and centre cut, or warp to a square
    bn: BatchNorm = "source"  # statistics of tuned copied BatchNorm layers: fixed, or of the batch
    biases: Biases = "plain"  # as weights are, or Caffe's way: twice the rate, no decay
    dropout: Dropout = "trained"  # which stages drop in training: those trained, or frozen ones too, as in Caffe

    def __post_init__(self) -> None:
        for name in ("lr", "batch_size", "steps", "report_every", "image_size"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"train.{name} must be > 0, but got {getattr(self, name)}")
        for name in ("copied_lr_scale", "weight_decay"):
            if getattr(self, name) < 0:
                raise ConfigError(f"train.{name} must be >= 0, but got {getattr(self, name)}")
        if not 0 <= self.momentum < 1:
            raise ConfigError(f"train.momentum must be in [0, 1), but got {self.momentum}")
        fixed_views(self.views)
        if self.dropout == "all" and fixed_views(self.views):
            raise ConfigError(
                f"train.dropout: all needs train.views: crop (other views are cached), but got {self.views}"
            )


@dataclass(frozen=True, kw_only=True)  # no slots: its id is kept
class Trial:
    """One training. `id` is a hash of everything that changes the science; machine settings are never in it."""

    cell: Cell
    hparams: HParams
    seed: int  # negative where settings are tried: -1 is the first draw; from 0 on the results that are compared
    val_per_class: int  # images of each class held out for selection
    test_per_class: int | None  # images of each class held out for the test; None: the dataset's own test set
    data_digest: str  # of the source images; empty while the dataset is not prepared
    weights_digest: str  # of the pre-trained weights
    fold: tuple[int, int] | None = None  # (k, K): of train and val as one, part k of K is held out in place of val
    bar: tuple[tuple[int, float], ...] = ()  # (step, val accuracy): a report below it there is the last

    @cached_property
    def id(self) -> str:
        """Sixteen hexadecimal digits, equal on every machine and in every process."""
        told = asdict(self)
        # A setting added later leaves the ids of trials without it as they were; a changed default raises SCIENCE.
        usual = {field.name: field.default for field in fields(HParams)}
        told["hparams"] = {name: value for name, value in told["hparams"].items() if value != usual[name]}
        for name in ("fold", "bar"):
            if not told[name]:
                del told[name]
        if self.cell.way == PLAIN:
            del told["cell"]["way"]
        return digest({"science": SCIENCE, **told})[:16]

    @property
    def name(self) -> str:
        """What a person reads in a list of runs, such as `cub200/20 T(1-7)R(8) s0`."""
        return f"{self.cell.dataset}/{self.cell.images_per_class} {self.cell.label} {draw_name(self.seed, self.fold)}"

    @cached_property
    def phases(self) -> tuple[Phase, ...]:
        """Which layers are trained in which steps."""
        return phases(self.cell.way, self.cell.spec, self.hparams.steps)

    @property
    def depths(self) -> tuple[int, ...]:
        """How many layers are frozen in any phase, ascending; empty where the views are drawn anew at each step."""
        frozen = {phase.spec.frozen for phase in self.phases} - {0}
        return tuple(sorted(frozen)) if fixed_views(self.hparams.views) else ()

    def seed_for(self, purpose: Purpose) -> int:
        """The seed of one random stream, below 2**63.

        It depends on the purpose, the dataset and the seed alone, so the two members of a pair share their training
        subset, the initial values of their new layers and the order of their batches.
        """
        return seed_from(purpose, self.cell.dataset, self.seed)


def draw_name(seed: int, fold: tuple[int, int] | None = None) -> str:
    """`s0`; `s-1 2/3` where the second of three folds is held out."""
    return f"s{seed} {fold[0]}/{fold[1]}" if fold else f"s{seed}"


def fixed_views(views: Views) -> int:
    """How many fixed views of each image there are; 0 where every step draws anew, so that nothing can be cached.

    Raises ConfigError for any other value.
    """
    if views in _KINDS:
        return _KINDS[views]
    name, _, count = views.partition("-")
    if name != "fixed" or not count.isdecimal():
        raise ConfigError(f"train.views: {unknown('value', views, [*_KINDS, 'fixed-K'])}")
    if not 2 <= int(count) <= MAX_VIEWS:
        raise ConfigError(f"train.views: fixed must be from 2 to {MAX_VIEWS} (1 is center), but got {count}")
    return int(count)


def stored_size(image_size: int) -> int:
    """Side of a stored image in pixels: ceil(image_size / 0.875), so 224 is cut from 256; Caffe's 227 is too."""
    return 256 if image_size == 227 else -(-image_size * 8 // 7)


def digest(value: object) -> str:
    """SHA-256 of a JSON-able value, independent of the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=list).encode()).hexdigest()


def seed_from(*parts: object) -> int:
    """A seed below 2**63 derived from what it is for; equal parts give equal seeds on every machine."""
    return int(digest(parts)[:16], 16) >> 1
