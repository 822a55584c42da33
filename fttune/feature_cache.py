"""Outputs of frozen stages, computed once and kept as memory-mapped Arrow that all processes of a machine share.

The cache is content-addressed: a key names the weights, the data and the type; a file holds one layer's input for some
showings (an image in a fixed view). So an entry is either exactly right or absent, and a larger subset, another seed or
one more view costs only the showings that are new.
"""

import logging
import os
import time
import warnings
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from fttune.errors import StoreError
from fttune.files import locked, replacing, writing
from fttune.trial import digest

_log = logging.getLogger("fttune")

_SMALL = 2**26  # bytes of a table that lies in several files, up to which it is put together in memory
_SEGMENT = 2**28  # bytes of one layer that are held before they are written
_LITTLE, _MANY = 2**24, 16  # bytes of a file up to which it is put together with others, and with how many


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureKey:
    """Everything that a cached activation depends on, beside the showing and the layer."""

    weights: str  # digest
    data: str  # digest
    backbone: str
    resize: str
    image_size: int  # pixels
    dtype: str = "float32"
    device: str = "cpu"  # type: what one kind of device makes of an image, another does to other digits

    @property
    def folder(self) -> str:
        told = asdict(self)
        if self.device == "cpu":  # folders had their names before devices were told apart
            del told["device"]
        return digest(told)[:32]


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureTable:
    """The inputs of one layer for N showings, float32 [N, ...], mapped from files that all processes share."""

    segments: tuple[Tensor, ...]  # float32 [n, ...] each
    segment: Tensor  # int64 [N], which of the segments
    place: Tensor  # int64 [N], where in it

    @classmethod
    def of(cls, values: Tensor) -> Self:
        """A table of float32 [N, ...] in memory."""
        place = torch.arange(len(values), device=values.device)
        return cls(segments=(values,), segment=torch.zeros_like(place), place=place)

    def __len__(self) -> int:
        return len(self.place)

    @property
    def device(self) -> torch.device:
        """Where the features are."""
        return self.place.device

    def take(self, which: Tensor) -> Tensor:
        """The features of some of the showings, `which` int64 [B] beside the table: the one copy made of them."""
        if len(self.segments) == 1:
            return self.segments[0].index_select(0, self.place[which])
        owner, place = self.segment[which], self.place[which]
        taken = torch.empty(len(which), *self.segments[0].shape[1:])
        for number in owner.unique().tolist():
            here = owner == number
            taken[here] = self.segments[number][place[here]]
        return taken

    def to(self, device: torch.device, room: int) -> Self:
        """A copy that is resident on a device other than the CPU if it takes at most `room` bytes; else the table."""
        if device.type == "cpu" or len(self) * self.segments[0][0].nbytes > room:
            return self
        return self.of(self.take(torch.arange(len(self))).to(device))


Pass = Callable[[np.ndarray, Sequence[int]], Iterable[dict[int, Tensor]]]  # showings, layers -> batches by layer


def reach(
    root: Path,
    key: FeatureKey,
    layers: Sequence[int],
    wanted: np.ndarray,
    forward: Pass,
    *,
    reads: int | None = None,
    room: int | None = None,
) -> dict[int, FeatureTable]:
    """A table at each of `layers` for the showings `wanted`; what the cache lacks is computed first, in one pass.

    Processes that ask at once do the work once. A damaged file is computed again. With more than `room` bytes in the
    cache, the files longest unused go; what is mapped stays readable on a disk of this machine (on a network's, not
    where another machine removes it). Where the disk is full, the tables are held by this process alone: that of the
    layer that the caller `reads`, if it says which, and no other.
    """
    try:
        tables = _reach(root / key.folder, layers, wanted, forward)
    except StoreError as error:
        _log.warning("%s; until then each process computes its features for itself", error)
        return _in_memory(layers if reads is None else [reads], wanted, forward)
    if room is not None:
        with locked(root / "room"):
            _evict(root, room)
    return tables


def _reach(folder: Path, layers: Sequence[int], wanted: np.ndarray, forward: Pass) -> dict[int, FeatureTable]:
    """From the files of a folder, which gets what it lacks. StoreError when it has no room for that."""
    with writing(folder), locked(folder / "features"):
        for left in folder.glob(".*.arrow.*.tmp"):  # of a process that was killed: only the holder of the lock writes
            left.unlink(missing_ok=True)
        segments = {layer: _merged(folder, layer) for layer in layers}
        for lacking, missing in _lacking(segments, wanted):
            _write_pass(folder, missing, lacking, forward(missing, lacking))
            segments |= {layer: _segments(folder, layer) for layer in lacking}
        tables = {layer: _table(segments[layer], wanted) for layer in layers}
    for layer, table in tables.items():
        if table is None:
            raise StoreError(f"{folder}: features of layer {layer} cannot be read back; FTTUNE_CACHE moves the folder")
    return {layer: table for layer, table in tables.items() if table is not None}


def _in_memory(layers: Sequence[int], wanted: np.ndarray, forward: Pass) -> dict[int, FeatureTable]:
    every, place = np.unique(wanted, return_inverse=True)
    batches = [{layer: batch[layer].cpu() for layer in layers} for batch in forward(every, layers)]
    tables = {layer: FeatureTable.of(torch.cat([batch[layer] for batch in batches])) for layer in layers}
    which = torch.from_numpy(place)
    return {layer: replace(table, segment=torch.zeros_like(which), place=which) for layer, table in tables.items()}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Segment:
    """One file, mapped."""

    path: Path
    showings: np.ndarray  # int64 [n]
    values: Tensor  # float32 [n, ...]


def _lacking(
    segments: Mapping[int, Sequence[_Segment]], wanted: np.ndarray
) -> list[tuple[tuple[int, ...], np.ndarray]]:
    """Layers and the showings that exactly these lack, sorted: one pass over images each."""
    every, layers = np.unique(wanted), np.array(list(segments))
    held = [np.concatenate([np.empty(0, np.int64), *(s.showings for s in found)]) for found in segments.values()]
    lacks = np.stack([~np.isin(every, numbers) for numbers in held]).T
    patterns = [pattern for pattern in np.unique(lacks, axis=0) if pattern.any()]
    return [(tuple(layers[pattern].tolist()), every[(lacks == pattern).all(1)]) for pattern in patterns]


def _segments(folder: Path, layer: int) -> list[_Segment]:
    """Every readable file of a layer."""
    found = [(path, _read(path)) for path in sorted(folder.glob(f"{layer}-*.arrow"))]
    for path, segment in found:
        if segment is None and path.exists():  # absent where another process has put little ones into one
            _log.warning("%s: damaged features; they are removed, and computed again", path)
            path.unlink(missing_ok=True)
    return [segment for _, segment in found if segment]


def _merged(folder: Path, layer: int) -> list[_Segment]:
    """The same, many little ones put into one: what a trial opens must not grow with the trials before it."""
    segments = _segments(folder, layer)
    little = [segment for segment in segments if segment.values.nbytes < _LITTLE]
    if len(little) < _MANY:
        return segments
    showings = np.concatenate([segment.showings for segment in little])
    try:
        _write(folder, layer, showings, [segment.values for segment in little])
    except OSError:  # where there is no room for that, they serve as they are
        return segments
    for segment in little:
        segment.path.unlink(missing_ok=True)
    return _segments(folder, layer)


def _table(segments: Sequence[_Segment], wanted: np.ndarray) -> FeatureTable | None:
    """Where each showing lies; None when one is in no segment. Segments that hold any are marked as used."""
    segments = [segment for segment in segments if np.isin(segment.showings, wanted).any()]
    if not segments:
        return None
    held = np.concatenate([segment.showings for segment in segments])
    owner = np.repeat(np.arange(len(segments)), [len(segment.showings) for segment in segments])
    inner = np.concatenate([np.arange(len(segment.showings)) for segment in segments])
    order = np.argsort(held, kind="stable")
    spot = order[np.searchsorted(held, wanted, sorter=order).clip(max=len(held) - 1)]
    if not (held[spot] == wanted).all():
        return None
    for segment in segments:
        with suppress(FileNotFoundError):  # removed by a process that made room: what is mapped serves all the same
            os.utime(segment.path, ns=(time.time_ns(), segment.path.stat().st_mtime_ns))
    table = FeatureTable(
        segments=tuple(segment.values for segment in segments),
        segment=torch.from_numpy(owner[spot]),
        place=torch.from_numpy(inner[spot]),
    )
    small = len(segments) > 1 and len(wanted) * segments[0].values[0].nbytes <= _SMALL
    return FeatureTable.of(table.take(torch.arange(len(table)))) if small else table


def _write_pass(folder: Path, wanted: np.ndarray, layers: Sequence[int], batches: Iterable[dict[int, Tensor]]) -> None:
    """Write one pass, a segment of each layer at a time, so that it need not fit into memory."""
    pending: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    written = dict.fromkeys(layers, 0)
    for batch in batches:
        for layer, values in batch.items():
            pending[layer].append(values.cpu())
            if sum(piece.nbytes for piece in pending[layer]) > _SEGMENT:
                written[layer] += _write(folder, layer, wanted[written[layer] :], pending[layer])
    for layer, pieces in pending.items():
        if pieces:
            written[layer] += _write(folder, layer, wanted[written[layer] :], pieces)


def _write(folder: Path, layer: int, rest: np.ndarray, pieces: list[Tensor]) -> int:
    """One Arrow batch, so that reading needs no copy; the shape of a row in the metadata. Empties `pieces`."""
    values = torch.cat(pieces).numpy()
    pieces.clear()
    wanted = rest[: len(values)]
    flat = values.ravel()
    rows = pa.FixedSizeListArray.from_arrays(pa.array(flat), values[0].size)
    columns = [pa.array(wanted, pa.int64()), rows]
    fields = [("showing", pa.int64()), ("feature", rows.type)]
    metadata = {"shape": ",".join(map(str, values.shape[1:])), "crc": str(zlib.crc32(flat.data))}
    schema = pa.schema(fields, metadata=metadata)
    path = folder / f"{layer}-{digest(wanted.tolist())[:16]}.arrow"
    with replacing(path) as temporary, pa.ipc.new_file(str(temporary), schema) as writer:
        writer.write_batch(pa.record_batch(columns, schema=schema))
    return len(values)


def _read(path: Path) -> _Segment | None:
    """The segment of a file; None when the file is absent or damaged."""
    try:
        status = path.stat()
        batch, values = _map(path)
        if not _intact(path, status.st_ino, status.st_mtime_ns):
            return None
        shape = [int(side) for side in batch.schema.metadata[b"shape"].split(b",")]
        return _Segment(
            path=path, showings=batch.column("showing").to_numpy(), values=_tensor(values.reshape(len(batch), *shape))
        )
    except (pa.ArrowException, ValueError, KeyError, FileNotFoundError):
        return None


def _map(path: Path) -> tuple[pa.RecordBatch, np.ndarray]:
    batch = pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)
    return batch, batch.column("feature").flatten().to_numpy(zero_copy_only=True)


@lru_cache(maxsize=4096)
def _intact(path: Path, inode: int, written: int) -> bool:
    """Whether a file holds what was written; read to its end once in a process, unless it is written again."""
    batch, values = _map(path)
    return zlib.crc32(values.data) == int(batch.schema.metadata[b"crc"])


def _tensor(values: np.ndarray) -> Tensor:
    with warnings.catch_warnings():
        # The map is read-only on purpose; a training only reads its inputs.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(values)


def _evict(root: Path, room: int) -> None:
    """Remove the files longest unused until the cache holds at most `room` bytes."""
    files: list[tuple[Path, os.stat_result]] = []
    for path in root.glob("*/*.arrow"):
        with suppress(FileNotFoundError):  # put together with others meanwhile
            files.append((path, path.stat()))
    held = sum(stat.st_size for _, stat in files)
    for path, stat in sorted(files, key=lambda file: file[1].st_atime_ns):
        if held <= room:
            return
        path.unlink(missing_ok=True)
        held -= stat.st_size
