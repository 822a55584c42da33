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
from fttune.data.views import centre, cut, drawn_fixed, drawn_places, fixed_places, normalise, view_codes
from fttune.feature_cache import FeatureTable
from fttune.features import Norm
from fttune.training.device import sent
from fttune.trial import HParams

_CPU = torch.device("cpu")


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
class Viewer:
    """Which view of each image a training shows."""

    hparams: HParams
    room: int  # pixels that a crop can move by
    fixed: Tensor | None  # places of the fixed views, int64 [N, K, 3]; None: drawn anew at each step

    @classmethod
    def of(cls, hparams: HParams, side: int, rows: np.ndarray) -> "Viewer":
        """Of the images `rows` of a store with images of `side` pixels."""
        room, codes = side - hparams.image_size, view_codes(hparams.views)
        if not len(codes):
            return cls(hparams=hparams, room=room, fixed=None)
        places = fixed_places(np.repeat(rows, len(codes)), np.tile(codes, len(rows)), room)
        return cls(hparams=hparams, room=room, fixed=places.view(len(rows), len(codes), 3))

    def draw(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Places int64 [B, 3] of one view of each of `rows`, positions among the images."""
        if self.fixed is None:
            return drawn_places(len(rows), self.room, generator)
        return self.fixed[rows, drawn_fixed(self.hparams.views, len(rows), generator)]


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageInputs:
    """Decoded images uint8 [N, S, S, 3], resident on the training device."""

    images: Tensor
    viewer: Viewer
    norm: Norm

    def __len__(self) -> int:
        return len(self.images)

    def draw(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        drawn = torch.column_stack([self.viewer.draw(rows, generator), rows])
        there = sent(drawn, self.images.device)  # one transfer instead of two
        shown = cut(self.images, there[:, :3], self.viewer.hparams.image_size, rows=there[:, 3])
        return normalise(shown, self.norm.mean, self.norm.std)

    def show(self, rows: slice) -> Tensor:
        return normalise(centre(self.images[rows], self.viewer.hparams.image_size), self.norm.mean, self.norm.std)


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredInputs:
    """Decoded images read from the memory-mapped store batch by batch: never all of them are in memory."""

    store: ImageStore
    rows: np.ndarray  # int64 [N], into the store
    device: torch.device
    viewer: Viewer
    norm: Norm

    def __len__(self) -> int:
        return len(self.rows)

    def draw(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        batch, places = self._read(self.rows[rows.numpy()]), sent(self.viewer.draw(rows, generator), self.device)
        return normalise(cut(batch, places, self.viewer.hparams.image_size), self.norm.mean, self.norm.std)

    def show(self, rows: slice) -> Tensor:
        batch = self._read(self.rows[rows])
        return normalise(centre(batch, self.viewer.hparams.image_size), self.norm.mean, self.norm.std)

    def _read(self, rows: np.ndarray) -> Tensor:
        return sent(torch.from_numpy(self.store.images(rows)), self.device)


def stored(
    store: ImageStore, rows: np.ndarray, device: torch.device, viewer: Viewer, norm: Norm, *, room: int
) -> Inputs:
    """The images `rows` of a store: on the device where they take at most `room` bytes, else read batch by batch.

    On a CPU the map serves as well as a copy of it would, and trials side by side share its pages.
    """
    if len(rows) * store.size**2 * 3 > room:
        return StoredInputs(store=store, rows=rows, device=device, viewer=viewer, norm=norm)
    return ImageInputs(images=torch.from_numpy(store.images(rows)).to(device), viewer=viewer, norm=norm)


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureInputs:
    """Cached outputs of the frozen part: a table of K views of N images, view by view, the centre first."""

    table: FeatureTable
    images: int  # N
    hparams: HParams
    device: torch.device = _CPU  # of the training; the table is there too where it has room

    def __len__(self) -> int:
        return self.images

    def draw(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        return self._take(drawn_fixed(self.hparams.views, len(rows), generator) * self.images + rows)

    def show(self, rows: slice) -> Tensor:
        return self._take(torch.arange(self.images)[rows])

    def _take(self, which: Tensor) -> Tensor:
        return sent(self.table.take(sent(which, self.table.device)), self.device)
