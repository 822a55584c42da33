"""What of a stored image the network is shown: fixed views, random crops, normalisation; all on the tensor's device.

Letters: N stored images, B rows of a batch, S stored side, s side of the network's input (pixels).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from fttune.trial import Views

# Fixed views of each image; 0 where every step draws anew, so that nothing can be cached.
FIXED_VIEWS: dict[Views, int] = {"center": 1, "flip": 2, "crop": 0}


def fixed_view(images: Tensor, view: int, size: int) -> Tensor:
    """View 0 is the centre crop, view 1 its mirror: uint8 [N, S, S, 3] to uint8 [N, 3, s, s], channels last."""
    start = (images.shape[1] - size) // 2
    cut = images[:, start : start + size, start : start + size]
    return (cut.flip(2) if view else cut).permute(0, 3, 1, 2)


def drawn_view(images: Tensor, views: Views, size: int, generator: torch.Generator) -> Tensor:
    """One training view of each row of a batch: uint8 [B, S, S, 3] to uint8 [B, 3, s, s], channels last.

    Draws come from `generator`, a generator on the CPU, so that they are equal on every device.
    """
    offset, mirror = _draw(len(images), views, images.shape[1] - size, generator)
    steps = torch.arange(size)
    rows = offset[:, :1] + steps
    columns = offset[:, 1:] + torch.where(mirror[:, None], size - 1 - steps, steps)
    batch = torch.arange(len(images))
    place = [axis.to(images.device) for axis in (batch[:, None, None], rows[:, :, None], columns[:, None, :])]
    return images[place[0], place[1], place[2]].permute(0, 3, 1, 2)


def drawn_fixed(views: Views, count: int, generator: torch.Generator) -> Tensor:
    """Which fixed view each of `count` rows shows in one step, int64 [count]; the draws that `drawn_view` makes."""
    if FIXED_VIEWS[views] == 2:
        return torch.randint(2, (count,), generator=generator)
    return torch.zeros(count, dtype=torch.int64)


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """uint8 [B, 3, s, s] in 0..255 to float32 with the backbone's mean and deviation (of images in 0..1)."""
    centre = torch.tensor(mean, device=images.device)[:, None, None] * 255
    scale = torch.tensor(std, device=images.device)[:, None, None] * 255
    return (images.float() - centre) / scale


def _draw(count: int, views: Views, room: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Offsets int64 [count, 2] (top, left) and mirrors bool [count]."""
    if views == "crop":
        offset = torch.randint(room + 1, (count, 2), generator=generator)
        return offset, torch.randint(2, (count,), generator=generator).bool()
    return torch.full((count, 2), room // 2), drawn_fixed(views, count, generator).bool()
