"""CaffeNet, the paper's network: AlexNet as BVLC/caffe defines it (models/bvlc_reference_caffenet), in RGB.

It differs from torchvision's AlexNet in widths, in groups (conv2, conv4, conv5) and in local response normalisation,
which here comes after pooling. Dropout feeds fc7 and fc8, so that the input of the classifier is the clean fc7.
"""

from torch import nn

from fttune.backbones.caffemodel import PREFIX
from fttune.backbones.catalog import BACKBONES
from fttune.backbones.staged import initialise

LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
_PLACES = ("0.0", "1.0", "2.0", "3.0", "4.0", "5.0", "6.1", "7.1")


def build(*, classes: int = 1000) -> nn.Sequential:
    """The network with Caffe's fresh values, for images [B, 3, H, W] of 199 to 230 px, of which pool5 makes 6 x 6.

    Pixels are 0..255 less the mean of each channel, which the row's `mean` and `std` say. 60,965,224 values.
    """
    net = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 96, 11, stride=4), *_pooled(), _normalised()),
        nn.Sequential(nn.Conv2d(96, 256, 5, padding=2, groups=2), *_pooled(), _normalised()),
        nn.Sequential(nn.Conv2d(256, 384, 3, padding=1), nn.ReLU(inplace=True)),
        nn.Sequential(nn.Conv2d(384, 384, 3, padding=1, groups=2), nn.ReLU(inplace=True)),
        nn.Sequential(nn.Conv2d(384, 256, 3, padding=1, groups=2), *_pooled(), nn.Flatten()),
        nn.Sequential(nn.Linear(256 * 6 * 6, 4096), nn.ReLU(inplace=True)),
        nn.Sequential(nn.Dropout(0.5), nn.Linear(4096, 4096), nn.ReLU(inplace=True)),
        nn.Sequential(nn.Dropout(0.5), nn.Linear(4096, classes)),
    )
    if not next(net.parameters()).is_meta:
        for position, (stage, fill) in enumerate(zip(net, BACKBONES["caffenet"].fills, strict=True)):
            initialise(stage, position, fill)
    return net


def rename(key: str) -> str:
    """Where a value that was read from a caffemodel stands in the staged network; another name is left as it is.

    >>> rename("caffe.fc7.weight")
    '6.1.weight'
    """
    layer, _, value = key.removeprefix(PREFIX).rpartition(".")
    return f"{_PLACES[LAYERS.index(layer)]}.{value}" if key.startswith(PREFIX) and layer in LAYERS else key


def _pooled() -> tuple[nn.Module, nn.Module]:
    # Caffe rounds up; at 227 px nothing is left to round.
    return nn.ReLU(inplace=True), nn.MaxPool2d(3, stride=2, ceil_mode=True)


def _normalised() -> nn.LocalResponseNorm:
    # Caffe divides alpha by the size too.
    return nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0)
