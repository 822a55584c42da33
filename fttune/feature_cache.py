"""Outputs of frozen stages, computed once and kept as memory-mapped Arrow that all processes of a machine share.

The cache is content-addressed: a key names the weights, the data and the type; a file holds one layer's input for some
showings (an image in a fixed view). So an entry is either exactly right or absent, and a larger subset, another seed or
one more view costs only the showings that are new.
"""

import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from fttune.errors import DataError, StoreError
from fttune.feature_claim import claim, claims
from fttune.feature_file import Segment, read, write
from fttune.files import await_free, locked, writing
from fttune.trial import SCIENCE, digest

_log = logging.getLogger("fttune")

_SMALL = 2**26  # bytes of a table that lies in several files, up to which it is put together in memory
_TRIES = 3
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
    norm: str  # of the network's input
    dtype: str = "float32"
    device: str = "cpu"  # type: what one kind of device makes of an image, another does to other digits
    science: int = SCIENCE  # what the code makes of an image

    @property
    def folder(self) -> str:
        return digest(asdict(self))[:32]


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
    """Tables of `layers` for the showings `wanted`, or of the one that the caller `reads`, if it says which.

    What the cache lacks of that one is computed first, in one pass that reaches what it lacks of the others too.
    Processes that ask at once do the work once, side by side: each computes what no other does. A damaged file is
    computed again. Who has written leaves at most `room` bytes in the cache, the files longest unused go; what is
    mapped stays readable on a disk of this machine (on a network's, not where another machine removes it). Where the
    disk is full, or may not be written, the tables are held by this process alone.
    """
    # Nobody waits for another's pass who needs nothing of it, nor need the files be one's own.
    asked = layers if reads is None else [reads]
    if whole := _held(root / key.folder, asked, wanted):
        return whole
    try:
        with writing(root / key.folder):
            segments = _complete(root / key.folder, layers, wanted, forward)
        tables = _tables({layer: segments[layer] for layer in asked}, wanted)
        if tables is None:
            raise StoreError(f"{root / key.folder}: features cannot be read back; FTTUNE_CACHE moves the folder")
    except (StoreError, DataError) as error:
        _log.warning("%s; until then each process computes its features for itself", error)
        return _in_memory(asked, wanted, forward)
    if room is not None:
        with locked(root / "room"):
            _evict(root, room)
    return tables


def _complete(folder: Path, layers: Sequence[int], wanted: np.ndarray, forward: Pass) -> dict[int, list[Segment]]:
    """All layers of all showings in a folder: what nobody else computes is computed here, the rest waited for."""
    tries = 0  # what cannot be read back would be computed for ever
    while True:
        computed, others, segments = _advance(folder, layers, wanted, forward)
        tries += computed
        if not others or tries == _TRIES:
            return segments
        await_free(others[0])


def _advance(
    folder: Path, layers: Sequence[int], wanted: np.ndarray, forward: Pass
) -> tuple[bool, list[Path], dict[int, list[Segment]]]:
    """Compute what a folder lacks, but for what others compute.

    Whether there was any; the claims of those others; what is there of each layer, as far as it is read here.
    """
    with ExitStack() as own:
        with locked(folder / "features"):
            claimed = claims(folder)
            if not claimed:
                _tidy(folder, layers)
            segments = {layer: _segments(folder, layer, wanted) for layer in layers}
            lacking = _lacking(segments, wanted)
            taken = np.concatenate([np.empty(0, np.int64), *claimed.values()])
            passes = [(some, free) for some, missing in lacking if len(free := missing[~np.isin(missing, taken)])]
            if passes:
                own.enter_context(claim(folder, np.concatenate([missing for _, missing in passes])))
        for some, missing in passes:
            _write_pass(folder, missing, some, forward(missing, some))
            segments |= {layer: _segments(folder, layer, wanted) for layer in some}
    left = np.concatenate([np.empty(0, np.int64), *(missing for _, missing in lacking)])
    others = [path for path, showings in claimed.items() if np.isin(showings, left).any()]
    return bool(passes), others, segments


def _tidy(folder: Path, layers: Sequence[int]) -> None:
    """Where nobody writes: remove what a killed process left, and put little files together."""
    for left in folder.glob(".*.arrow.*.tmp"):
        left.unlink(missing_ok=True)
    for layer in layers:
        _merge(folder, layer)


def _held(folder: Path, layers: Sequence[int], wanted: np.ndarray) -> dict[int, FeatureTable] | None:
    """From the files of a folder as they are; None when any layer lacks a showing."""
    return _tables({layer: _segments(folder, layer, wanted) for layer in layers}, wanted)


def _tables(segments: Mapping[int, Sequence[Segment]], wanted: np.ndarray) -> dict[int, FeatureTable] | None:
    """One for each layer; None when any layer lacks a showing."""
    tables = {layer: _table(found, wanted) for layer, found in segments.items()}
    whole = {layer: table for layer, table in tables.items() if table is not None}
    return whole if len(whole) == len(tables) else None


def _in_memory(layers: Sequence[int], wanted: np.ndarray, forward: Pass) -> dict[int, FeatureTable]:
    every, place = np.unique(wanted, return_inverse=True)
    batches = [{layer: batch[layer].cpu() for layer in layers} for batch in forward(every, layers)]
    tables = {layer: FeatureTable.of(torch.cat([batch[layer] for batch in batches])) for layer in layers}
    which = torch.from_numpy(place)
    return {layer: replace(table, segment=torch.zeros_like(which), place=which) for layer, table in tables.items()}


def _lacking(segments: Mapping[int, Sequence[Segment]], wanted: np.ndarray) -> list[tuple[tuple[int, ...], np.ndarray]]:
    """Layers and the showings that exactly these lack, sorted: one pass over images each."""
    every, layers = np.unique(wanted), np.array(list(segments))
    held = [np.concatenate([np.empty(0, np.int64), *(s.showings for s in found)]) for found in segments.values()]
    lacks = np.stack([~np.isin(every, numbers) for numbers in held]).T
    patterns = [pattern for pattern in np.unique(lacks, axis=0) if pattern.any()]
    return [(tuple(layers[pattern].tolist()), every[(lacks == pattern).all(1)]) for pattern in patterns]


def _segments(folder: Path, layer: int, wanted: np.ndarray) -> list[Segment]:
    """The files of a layer that hold any of the showings; only these are read to their end. Damaged ones go."""
    found: list[Segment] = []
    for path in sorted(folder.glob(f"{layer}-*.arrow")):
        segment = read(path)
        if segment and not np.isin(segment.showings, wanted).any():
            continue
        if segment and segment.intact:
            found.append(segment)
        elif path.exists():  # absent where another process has put little ones into one
            _log.warning("%s: damaged features; they are removed, and computed again", path)
            with suppress(OSError):  # gone meanwhile, or another user's
                path.unlink()
    return found


def _merge(folder: Path, layer: int) -> None:
    """Put many little files into one: what a trial opens must not grow with the trials before it."""
    files = [segment for path in sorted(folder.glob(f"{layer}-*.arrow")) if (segment := read(path))]
    little = [segment for segment in files if segment.values.nbytes < _LITTLE]
    if len(little) < _MANY or not all(segment.intact for segment in little):
        return
    showings = np.concatenate([segment.showings for segment in little])
    with suppress(OSError):  # where there is no room for that, they serve as they are
        write(folder, layer, showings, [segment.values for segment in little])
        for segment in little:
            segment.path.unlink(missing_ok=True)


def _table(segments: Sequence[Segment], wanted: np.ndarray) -> FeatureTable | None:
    """Where each showing lies; None when one is in no segment. The segments are marked as used."""
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
        # Removed by a process that made room, or another user's: what is mapped serves all the same.
        with suppress(OSError):
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
                written[layer] += write(folder, layer, wanted[written[layer] :], pending[layer])
    for layer, pieces in pending.items():
        if pieces:
            written[layer] += write(folder, layer, wanted[written[layer] :], pieces)


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
