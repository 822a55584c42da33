"""What a training reads: stored images cut on the device, or the frozen part's cached output. Both draw alike.

A pair's two members consume the same numbers from the same generator, so they see the same views in the same order.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from fttune.data.store import ImageStore
from fttune.data.views import drawn_fixed, drawn_view, fixed_view, normalise
from fttune.features import Norm
from fttune.trial import HParams


class Inputs(Protocol):
    """A set of images as a training sees it."""

    def __len__(self) -> int: ...

    def draw(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """A training view of each row, ready for the network (or for its trained part)."""
        ...

    def show(self, rows: slice) -> Tensor:
        """The centre view of each row, for evaluation."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Labelled:
    """Images (or features) with their classes int64 [N], on the same device."""

    inputs: Inputs
    labels: Tensor
    logits: Callable[[Tensor], Tensor]  # from what `inputs` gives to logits


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageInputs:
    """Decoded images uint8 [N, S, S, 3], resident on the training device."""

    images: Tensor
    hparams: HParams
    norm: Norm

    def __len__(self) -> int:
        return len(self.images)

    def draw(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        batch = self.images[rows.to(self.images.device)]
        return self._normalised(drawn_view(batch, self.hparams.views, self.hparams.image_size, generator))

    def show(self, rows: slice) -> Tensor:
        return self._normalised(fixed_view(self.images[rows], 0, self.hparams.image_size))

    def _normalised(self, shown: Tensor) -> Tensor:
        return normalise(shown, self.norm.mean, self.norm.std)


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredInputs:
    """Decoded images read from the memory-mapped store batch by batch: never all of them are in memory."""

    store: ImageStore
    rows: np.ndarray  # int64 [N], into the store
    device: torch.device
    hparams: HParams
    norm: Norm

    def __len__(self) -> int:
        return len(self.rows)

    def draw(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        return self._read(self.rows[rows.numpy()]).draw(torch.arange(len(rows)), generator)

    def show(self, rows: slice) -> Tensor:
        return self._read(self.rows[rows]).show(slice(None))

    def _read(self, rows: np.ndarray) -> ImageInputs:
        images = torch.from_numpy(self.store.images(rows)).to(self.device)
        return ImageInputs(images=images, hparams=self.hparams, norm=self.norm)


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureInputs:
    """Cached outputs of the frozen part, one tensor float32 [N, ...] for each fixed view, centre first."""

    views: tuple[Tensor, ...]
    hparams: HParams

    def __len__(self) -> int:
        return len(self.views[0])

    def draw(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        which = drawn_fixed(self.hparams.views, len(rows), generator)
        rows, which = rows.to(self.views[0].device), which.to(self.views[0].device)
        batch = self.views[0][rows]
        for view, features in enumerate(self.views[1:], start=1):
            batch[which == view] = features[rows[which == view]]
        return batch

    def show(self, rows: slice) -> Tensor:
        return self.views[0][rows]
