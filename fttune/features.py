"""What the frozen part of a network makes of fixed views, computed once and kept as memory-mapped Arrow.

The cache is content-addressed: a key names the weights, the data, the images, the view, the layer and the type, so an
entry is either exactly right or absent.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from fttune.data.views import fixed_view, normalise
from fttune.errors import StoreError
from fttune.files import locked, replacing, writing
from fttune.trial import digest

BATCH = 128  # images forwarded at once


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureKey:
    """Everything that a cached activation depends on."""

    weights: str  # digest
    data: str  # digest
    images: str  # digest of which images, in which order
    backbone: str
    resize: str
    image_size: int  # pixels
    view: int  # 0 centre, 1 its mirror
    layer: int  # the input of this stage, counted from 0
    dtype: str = "float32"

    @property
    def file(self) -> str:
        return f"{digest(asdict(self))[:32]}.arrow"


@dataclass(frozen=True, kw_only=True, slots=True)
class Norm:
    """How a backbone wants its input: mean and deviation of RGB images in 0..1."""

    mean: Sequence[float]
    std: Sequence[float]


@torch.inference_mode()
def features_at(
    net: nn.Sequential, layer: int, images: Tensor, *, view: int, size: int, norm: "Norm"
) -> Iterator[Tensor]:
    """The input of stage `layer` for stored images uint8 [N, S, S, 3], in batches of float32 [<= BATCH, ...].

    `net` must be in eval mode: dropout off, BatchNorm fixed.
    """
    prefix = net[:layer]
    for start in range(0, len(images), BATCH):
        shown = fixed_view(images[start : start + BATCH], view, size)
        yield prefix(normalise(shown, norm.mean, norm.std))


def cached(root: Path, key: FeatureKey, compute: Callable[[], Iterator[Tensor]]) -> Tensor:
    """The tensor under `key`, memory-mapped; computed and written once, whoever asks first on this machine.

    A damaged entry is computed again. The tensor must not be written to: all trials of a node share its pages.
    """
    path = root / key.file
    with writing(root), locked(path):
        found = _read(path)
        if found is None:
            with replacing(path) as temporary:
                _write(temporary, torch.cat(list(compute())).cpu().numpy())
            found = _read(path)
    if found is None:
        raise StoreError(
            f"{path}: the feature file cannot be read back; remove it, or set FTTUNE_CACHE to another folder"
        )
    return found


def _write(path: Path, values: np.ndarray) -> None:
    """One Arrow batch, so that reading needs no copy: float32 [N, ...], the shape of a row in the metadata."""
    rows = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values[0].size)
    schema = pa.schema([("feature", rows.type)], metadata={"shape": ",".join(map(str, values.shape[1:]))})
    with pa.ipc.new_file(str(path), schema) as writer:
        writer.write_batch(pa.record_batch([rows], schema=schema))


def _read(path: Path) -> Tensor | None:
    """The tensor of a file; None when the file is absent or damaged."""
    try:
        batch = pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)
        shape = [int(side) for side in batch.schema.metadata[b"shape"].split(b",")]
        values = batch.column("feature").flatten().to_numpy(zero_copy_only=True)
        return _tensor(values.reshape(len(batch), *shape))
    except (pa.ArrowInvalid, FileNotFoundError):
        return None


def _tensor(values: np.ndarray) -> Tensor:
    with warnings.catch_warnings():
        # The map is read-only on purpose; a training only reads its inputs.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(values)
