"""Networks of torchvision or timm that are a plain chain of blocks, cut into stages by the paths of their modules.

A stage is a string of paths, such as `layer4.1 avgpool flatten`; `flatten` stands where the original flattens in its
`forward`. Dropout goes to the start of the stage that it feeds.
"""

from collections.abc import Sequence
from typing import Any, Literal

from torch import nn

from fttune.errors import UsageError

Library = Literal["torchvision", "timm"]

FLATTEN = "flatten"


def build(
    *, model: str, stages: Sequence[str], library: Library = "torchvision", classes: int = 1000, **options: Any
) -> nn.Sequential:
    """The network with the library's fresh values, one stage for each string; `options` go to its constructor.

    Raises UsageError for a path that the original has not, and where timm is not installed.
    """
    whole = _original(library, model, classes, options)
    return nn.Sequential(*(nn.Sequential(*(_part(whole, path) for path in stage.split())) for stage in stages))


def rename(key: str, *, stages: Sequence[str]) -> str:
    """Where a value of the original's state dict stands in the staged network; an unknown name is left as it is.

    >>> rename("layer1.0.conv1.weight", stages=("conv1 bn1 relu", "layer1.0 avgpool flatten", "fc"))
    '1.0.conv1.weight'
    """
    for number, stage in enumerate(stages):
        for position, path in enumerate(stage.split()):
            if key.startswith(f"{path}."):
                return f"{number}.{position}.{key.removeprefix(f'{path}.')}"
    return key


def _original(library: Library, model: str, classes: int, options: dict[str, Any]) -> nn.Module:
    if library == "torchvision":
        from torchvision.models import get_model

        return get_model(model, weights=None, num_classes=classes, **options)
    try:
        from timm import create_model
    except ModuleNotFoundError:
        raise UsageError(f"the network {model} comes from timm: install fttune[timm]") from None
    return create_model(model, pretrained=False, num_classes=classes, **options)


def _part(whole: nn.Module, path: str) -> nn.Module:
    if path == FLATTEN:
        return nn.Flatten()
    try:
        return whole.get_submodule(path)
    except AttributeError:
        raise UsageError(f"{type(whole).__name__} has no module '{path}' to cut a stage from") from None
