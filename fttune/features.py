"""What the frozen part of a network makes of *showings*: images of a store, each in a fixed view."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fttune.data.store import ImageStore
from fttune.data.views import cut, fixed_places, normalise

CENTRE = np.array([0])  # the code of the centre view
_VIEWS = 256  # codes of views


@dataclass(frozen=True, kw_only=True, slots=True)
class Norm:
    """How a backbone wants its input: mean and deviation of RGB images in 0..1."""

    mean: Sequence[float]
    std: Sequence[float]


def showings(rows: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """The numbers of images `rows` [N] in views `codes` [K], int64 [K, N]."""
    return rows * _VIEWS + codes[:, None]


@torch.inference_mode()
def features_at(
    net: nn.Sequential, layers: Sequence[int], images: Iterable[Tensor], norm: Norm
) -> Iterator[dict[int, Tensor]]:
    """The inputs of the stages `layers` for batches of views uint8 [B, 3, s, s], all in one pass: float32 [B, ...].

    `net` must be in eval mode: dropout off, BatchNorm fixed.
    """
    for batch in images:
        reached: dict[int, Tensor] = {}
        values = normalise(batch, norm.mean, norm.std)
        for layer, stage in enumerate(net[: max(layers)]):
            if layer in layers:
                reached[layer] = values.clone()  # a stage may work in place
            values = stage(values)
        yield reached | {max(layers): values}


def at_once(device: torch.device) -> int:
    """Images to forward at once.

    On a CPU the activations of more leave its cache: EfficientNet-Lite0 then takes some percent longer, and twice as
    long where each freed block goes back to the system.
    """
    return 32 if device.type == "cpu" else 256


def shown(store: ImageStore, wanted: np.ndarray, size: int, device: torch.device) -> Iterator[Tensor]:
    """The showings `wanted` as the network is given them, uint8 [B, 3, size, size] on `device`."""
    rows, codes = wanted // _VIEWS, wanted % _VIEWS
    places, batch = fixed_places(rows, codes, store.size - size), at_once(device)
    for start in range(0, len(rows), batch):
        images = torch.from_numpy(store.images(rows[start : start + batch])).to(device)
        yield cut(images, places[start : start + batch], size)
