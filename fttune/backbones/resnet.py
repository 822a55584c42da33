"""torchvision's ResNets (He et al. 2015), each residual block one layer: the stem, the blocks, the classifier."""

from collections.abc import Sequence

from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet


def build(*, blocks: Sequence[int], bottleneck: bool = False, classes: int = 1000) -> nn.Sequential:
    """The network with torchvision's fresh values, for images [B, 3, H, W] from 32 px.

    `blocks` counts the blocks of the four resolutions, `bottleneck` chooses their kind: (2, 2, 2, 2) without is
    ResNet-18, (3, 4, 6, 3) with is ResNet-50.
    """
    whole = ResNet(Bottleneck if bottleneck else BasicBlock, list(blocks), num_classes=classes)
    *lower, last = [block for group in (whole.layer1, whole.layer2, whole.layer3, whole.layer4) for block in group]
    return nn.Sequential(
        nn.Sequential(whole.conv1, whole.bn1, whole.relu, whole.maxpool),
        *(nn.Sequential(block) for block in lower),
        nn.Sequential(last, whole.avgpool, nn.Flatten()),
        nn.Sequential(whole.fc),
    )


def rename(key: str, *, blocks: Sequence[int]) -> str:
    """Where a value of torchvision's state dict stands in the staged network; an unknown name is left as it is.

    >>> rename("layer2.0.conv1.weight", blocks=(2, 2, 2, 2))
    '3.0.conv1.weight'
    """
    places = {"conv1": "0.0", "bn1": "0.1", "fc": f"{sum(blocks) + 1}.0"}
    names = [f"layer{group}.{index}" for group, count in enumerate(blocks, start=1) for index in range(count)]
    places |= {name: f"{layer}.0" for layer, name in enumerate(names, start=1)}
    head = next((name for name in places if key.startswith(f"{name}.")), None)
    return places[head] + key.removeprefix(head) if head else key
