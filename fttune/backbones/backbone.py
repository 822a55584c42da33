"""What a backbone is: a row of facts, with the functions that build its network and find its weights."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fttune.errors import UsageError

if TYPE_CHECKING:
    from torch import nn


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
