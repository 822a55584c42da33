"""EfficientNet-Lite (TensorFlow TPU models, 2020): EfficientNet without squeeze-and-excitation, with ReLU6.

Layers: the stem, seven groups of blocks, the head convolution, the classifier. Stochastic depth, which the original
training used, is left out: a block always runs.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from fttune.backbones.convolution import SameConv2d
from fttune.backbones.unit import Unit

# The published weights were trained in TensorFlow. Top-1 of Lite0 on 1,000 ImageNet photos, one of each class, at
# 224 px: 87.5 % with this epsilon and TensorFlow's padding, 85.9 % with torch's 1e-5, 80.6 % with symmetric padding.
_EPSILON = 1e-3
_MOMENTUM = 0.01  # weight of a new batch in the running statistics; 0.99 in TensorFlow's words

_STEM, _HEAD = 32, 1280  # channels, the same in the whole family


@dataclass(frozen=True, kw_only=True, slots=True)
class _Group:
    """Blocks of one resolution and width; the first of them has the stride."""

    blocks: int
    kernel: int  # pixels
    stride: int  # pixels
    expand: int  # channels inside a block / channels that enter it
    channels: int


_GROUPS = (
    _Group(blocks=1, kernel=3, stride=1, expand=1, channels=16),
    _Group(blocks=2, kernel=3, stride=2, expand=6, channels=24),
    _Group(blocks=2, kernel=5, stride=2, expand=6, channels=40),
    _Group(blocks=3, kernel=3, stride=2, expand=6, channels=80),
    _Group(blocks=3, kernel=5, stride=1, expand=6, channels=112),
    _Group(blocks=4, kernel=5, stride=2, expand=6, channels=192),
    _Group(blocks=1, kernel=3, stride=1, expand=6, channels=320),
)


def build(*, width: float = 1.0, depth: float = 1.0, dropout: float = 0.2, classes: int = 1000) -> nn.Sequential:
    """The network with fresh values; `width` and `depth` are the family's coefficients, 1.0 for Lite0.

    Takes images [B, 3, H, W] of any size from 32 px. Stem and head keep their width, first and last group their depth.
    """
    stages: list[nn.Module] = [_convolution(3, _STEM, kernel=3, stride=2)]
    channels = _STEM
    for group, blocks in zip(_GROUPS, _blocks(depth), strict=True):
        wide = _round_channels(group.channels * width)
        sizes = [channels, *[wide] * (blocks - 1)]
        strides = [group.stride, *[1] * (blocks - 1)]
        stages.append(
            nn.Sequential(
                *(
                    Block(size, wide, kernel=group.kernel, stride=stride, expand=group.expand)
                    for size, stride in zip(sizes, strides, strict=True)
                )
            )
        )
        channels = wide
    head = _convolution(channels, _HEAD, kernel=1)
    stages.append(Unit(*head, nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    stages.append(nn.Sequential(nn.Dropout(dropout), nn.Linear(_HEAD, classes)))
    return nn.Sequential(*stages)


_PARTS = {
    "_expand_conv": "expand.0",
    "_bn0": "expand.1",
    "_depthwise_conv": "depthwise.0",
    "_bn1": "depthwise.1",
    "_project_conv": "project.0",
    "_bn2": "project.1",
}
_ENDS = {"_conv_stem": "0.0", "_bn0": "0.1", "_conv_head": "8.0", "_bn1": "8.1", "_fc": "9.1"}
_BLOCK_KEY = re.compile(r"_blocks\.(\d+)\.(\w+)\.(\w+)")


def rename(key: str, *, depth: float = 1.0) -> str:
    """Where a value of the published weights stands in the staged network; an unknown name is left as it is.

    >>> rename("_blocks.2._bn1.weight")
    '2.1.depthwise.1.weight'
    """
    block = _BLOCK_KEY.fullmatch(key)
    if not block:
        part, _, value = key.rpartition(".")
        return f"{_ENDS[part]}.{value}" if part in _ENDS else key
    places = [f"{group}.{index}" for group, blocks in enumerate(_blocks(depth), start=1) for index in range(blocks)]
    number, part, value = int(block[1]), block[2], block[3]
    if number >= len(places) or part not in _PARTS:
        return key
    return f"{places[number]}.{_PARTS[part]}.{value}"


class Block(nn.Module):
    """An inverted residual: widen, convolve each channel by itself, narrow; the input is added where shapes agree."""

    def __init__(self, entering: int, leaving: int, *, kernel: int, stride: int, expand: int) -> None:
        super().__init__()
        wide = entering * expand
        self.expand = _convolution(entering, wide, kernel=1) if expand > 1 else nn.Identity()
        self.depthwise = _convolution(wide, wide, kernel=kernel, stride=stride, groups=wide)
        self.project = _convolution(wide, leaving, kernel=1)[:-1]
        self.residual = stride == 1 and entering == leaving

    def forward(self, images: Tensor) -> Tensor:
        inner = self.project(self.depthwise(self.expand(images)))
        return inner + images if self.residual else inner


def _convolution(entering: int, leaving: int, *, kernel: int, stride: int = 1, groups: int = 1) -> Unit:
    """Convolution, normalisation, ReLU6."""
    if stride == 1:
        # An odd kernel at stride 1 needs no asymmetric padding, whatever the size.
        layer = nn.Conv2d(entering, leaving, kernel, padding=kernel // 2, groups=groups, bias=False)
    else:
        layer = SameConv2d(entering, leaving, kernel, stride, groups=groups, bias=False)
    norm = nn.BatchNorm2d(leaving, eps=_EPSILON, momentum=_MOMENTUM)
    return Unit(layer, norm, nn.ReLU6(inplace=True))


def _blocks(depth: float) -> Iterator[int]:
    """Blocks of each group."""
    for position, group in enumerate(_GROUPS):
        fixed = position in (0, len(_GROUPS) - 1)
        yield group.blocks if fixed else math.ceil(group.blocks * depth)


def _round_channels(channels: float) -> int:
    """The nearest multiple of 8, never more than a tenth below `channels`."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded
