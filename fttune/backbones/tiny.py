"""A network of four layers for tests and first tries: its features are random filters, never trained on anything."""

from torch import nn

from fttune.backbones.staged import initialise
from fttune.backbones.unit import Unit


def build(*, classes: int = 10) -> nn.Sequential:
    """The network for images [B, 3, H, W] from 16 px, about 7,000 values, the same in every process.

    Three convolutions halve the image and a linear layer reads the mean over positions.
    """
    net = nn.Sequential(
        _convolution(3, 8),
        _convolution(8, 16),
        Unit(*_convolution(16, 32), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        nn.Sequential(nn.Dropout(0.2), nn.Linear(32, classes)),
    )
    for position, stage in enumerate(net):
        initialise(stage, position)
    return net


def _convolution(entering: int, leaving: int) -> Unit:
    layer = nn.Conv2d(entering, leaving, 3, stride=2, padding=1, bias=False)
    return Unit(layer, nn.BatchNorm2d(leaving), nn.ReLU(inplace=True))
