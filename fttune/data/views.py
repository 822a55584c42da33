"""What of a stored image the network is shown: fixed views, random crops, normalisation; all on the tensor's device.

Letters: N stored images, B rows of a batch, K fixed views, S stored side, s side of the network's input (pixels).
A place is top, left (pixels) and mirrored (0 or 1) of a view, int64 [..., 3].
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from fttune.trial import Views, fixed_views, seed_from

MIRROR = 255  # code of the mirrored centre; 0 is the centre, 1 to 254 are drawn crops


def view_codes(views: Views) -> np.ndarray:
    """The fixed views of each image, int64 [K], centre first. Views of equal code are equal, whatever the kind.

    >>> view_codes("flip").tolist(), view_codes("fixed-4").tolist()
    ([0, 255], [0, 1, 2, 3])
    """
    return np.array([0, MIRROR]) if views == "flip" else np.arange(fixed_views(views))


def fixed_places(rows: np.ndarray, codes: np.ndarray, room: int) -> Tensor:
    """Where the fixed views `codes` [n] lie in the images `rows` [n] of the store, int64 [n, 3]; `room` is S - s.

    A drawn view follows from the image's row and its code alone: every trial sees the same, whatever its seed.
    """
    places = np.full((len(rows), 3), (room // 2, room // 2, 0))
    places[codes == MIRROR, 2] = 1
    for code in set(codes.tolist()) - {0, MIRROR}:
        here = codes == code
        first, last = int(rows[here].min()), int(rows[here].max())
        source = np.random.PCG64(seed_from("view", code)).advance(3 * first)  # to where that row's three numbers stand
        drawn = np.random.Generator(source).random((last + 1 - first, 3))
        places[here] = np.floor(drawn[rows[here] - first] * (room + 1, room + 1, 2))
    return torch.from_numpy(places)


def drawn_fixed(views: Views, count: int, generator: torch.Generator) -> Tensor:
    """Which fixed view each of `count` rows shows in one step, int64 [count]."""
    if fixed_views(views) > 1:
        return torch.randint(fixed_views(views), (count,), generator=generator)
    return torch.zeros(count, dtype=torch.int64)


def drawn_places(count: int, room: int, generator: torch.Generator) -> Tensor:
    """Places of random crops, mirrored or not, of `count` images, int64 [count, 3]; `room` is S - s."""
    offset = torch.randint(room + 1, (count, 2), generator=generator)
    return torch.cat([offset, torch.randint(2, (count, 1), generator=generator)], dim=1)


def centre(images: Tensor, size: int) -> Tensor:
    """The centre crop: uint8 [N, S, S, 3] to uint8 [N, 3, s, s], channels last."""
    start = (images.shape[1] - size) // 2
    return images[:, start : start + size, start : start + size].permute(0, 3, 1, 2)


def cut(images: Tensor, places: Tensor, size: int, *, rows: Tensor | None = None) -> Tensor:
    """One view of each row of a batch, where `places` [B, 3] says: uint8 [N, S, S, 3] to uint8 [B, 3, s, s].

    `rows` int64 [B] says which of the images each view shows; without it they are the batch.
    """
    top, left, mirrored = places.to(images.device).unbind(1)
    which = torch.arange(len(images), device=images.device) if rows is None else rows
    # Every window of every image, without a copy: one gather then reads no pixel that is not shown.
    windows = images.unfold(1, size, 1).unfold(2, size, 1)
    shown = windows[which, top, left]
    return torch.where(mirrored[:, None, None, None] > 0, shown.flip(3), shown)


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """uint8 [B, 3, s, s] in 0..255 to float32 with the backbone's mean and deviation (of images in 0..1)."""
    scale, shift = _line(tuple(mean), tuple(std), images.shape[3], images.device)
    # Over whole rows of pixels, 3 s values long: over three channels at a time nothing is vectorised.
    pixels = images.permute(0, 2, 3, 1).float()
    return pixels.flatten(2).mul_(scale).add_(shift).view_as(pixels).permute(0, 3, 1, 2)


@lru_cache(maxsize=16)
def _line(mean: tuple[float, ...], std: tuple[float, ...], size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Scale and shift of each value of a row of pixels, [3 s]; kept on the device, so that no step waits for them."""
    with torch.inference_mode(False):  # or what an evaluation makes first, no training could use
        scale = torch.tensor([1 / (255 * deviation) for deviation in std], device=device)
        shift = torch.tensor([-centre / deviation for centre, deviation in zip(mean, std, strict=True)], device=device)
        return scale.repeat(size), shift.repeat(size)
