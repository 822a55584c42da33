"""torchvision's AlexNet (Krizhevsky 2014, the one-tower variant), cut into the paper's eight layers.

It is not CaffeNet: no local response normalisation, no groups, other widths. Dropout feeds fc6 and fc7; there is none
before the classifier.
"""

import torchvision
from torch import nn

_PLACES = {
    "features.0": "0.0",
    "features.3": "1.0",
    "features.6": "2.0",
    "features.8": "3.0",
    "features.10": "4.0",
    "classifier.1": "5.1",
    "classifier.4": "6.1",
    "classifier.6": "7.0",
}


def build(*, classes: int = 1000) -> nn.Sequential:
    """The network with torchvision's fresh values, for images [B, 3, H, W] from 63 px."""
    whole = torchvision.models.alexnet(weights=None, num_classes=classes)
    convolutions, linear = whole.features, whole.classifier
    return nn.Sequential(
        _renumbered(convolutions[0:3]),
        _renumbered(convolutions[3:6]),
        _renumbered(convolutions[6:8]),
        _renumbered(convolutions[8:10]),
        nn.Sequential(*convolutions[10:13], whole.avgpool, nn.Flatten()),
        _renumbered(linear[0:3]),
        _renumbered(linear[3:6]),
        _renumbered(linear[6:7]),
    )


def rename(key: str) -> str:
    """Where a value of torchvision's state dict stands in the staged network; an unknown name is left as it is.

    >>> rename("classifier.4.weight")
    '6.1.weight'
    """
    part, _, value = key.rpartition(".")
    return f"{_PLACES[part]}.{value}" if part in _PLACES else key


def _renumbered(part: nn.Sequential) -> nn.Sequential:
    """The same modules, numbered from 0: a slice keeps the numbers of the whole."""
    return nn.Sequential(*part)
