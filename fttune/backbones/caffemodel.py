"""Caffe's own files of weights (`.caffemodel`), read without Caffe: as much of protobuf's wire format as they use.

A file is a NetParameter: layers in field 100 (LayerParameter, since 2015) or field 2 (V1LayerParameter, as BVLC's
published networks), each with a name and blobs of floats. Nothing is copied but the values, and no length is believed
that the file does not hold.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fttune.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

SUFFIX = ".caffemodel"
PREFIX = "caffe."  # of the names of values that were read here, channels in RGB

_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5  # wire types
# By the field of NetParameter that holds it: the fields of a layer's name and of its blobs.
_LAYERS = {100: (1, 7), 2: (4, 6)}
_PARTS = ("weight", "bias")
_WIDTHS = {5: 4, 8: 8}  # bytes of a value in the fields of a blob that hold floats and doubles
_MOST_AXES, _LONGEST = 32, 2**31 - 1  # of a shape, and of one of its dimensions, as in Caffe itself


class _BrokenError(ValueError):
    """The bytes are not what the format says."""


def read_caffemodel(path: Path) -> dict[str, "Tensor"]:
    """Values by name, `conv1.weight` [out, in / groups, height, width] and `conv1.bias` [out]; fc weights [out, in].

    Caffe's images are BGR: the weights of a convolution with three input channels are turned to RGB. Raises
    WeightsError, naming the file and the layer, for a file that is cut short or is none.
    """
    import torch

    try:
        arrays = dict(_arrays(np.memmap(path, np.uint8, "r").data))
    except OSError as error:
        raise WeightsError(f"{path}: cannot read the weights: {error.strerror}") from None
    except ValueError as error:  # an empty file cannot be mapped
        raise WeightsError(f"{path}: not a whole caffemodel: {error}") from None
    if not arrays:
        raise WeightsError(f"{path}: not a caffemodel with weights: no layer has any")
    return {name: torch.from_numpy(_in_rgb(values)) for name, values in arrays.items()}


def _in_rgb(values: np.ndarray) -> np.ndarray:
    """Contiguous; a copy only where channels change places."""
    return values[:, ::-1].copy() if values.ndim == 4 and values.shape[1] == 3 else values


def _arrays(content: memoryview) -> Iterator[tuple[str, np.ndarray]]:
    """Each value with its name, copied out of the map."""
    seen: set[str] = set()
    for number, value in _fields(content):
        if number not in _LAYERS or not isinstance(value, memoryview):
            continue
        name, blobs = _layer(value, *_LAYERS[number])
        if not blobs:
            continue
        if name in seen:
            raise _BrokenError(f"layer '{name}' stands twice")
        seen.add(name)
        for part, blob in zip(_PARTS, blobs, strict=False):
            try:
                yield f"{name}.{part}", _values(blob, part)
            except _BrokenError as error:
                raise _BrokenError(f"layer '{name}', {part}: {error}") from None


def _layer(content: memoryview, name_field: int, blob_field: int) -> tuple[str, list[memoryview]]:
    name, blobs = "", []
    for number, value in _fields(content):
        if number == name_field and isinstance(value, memoryview):
            name = bytes(value[:200]).decode(errors="replace")
        elif number == blob_field and isinstance(value, memoryview) and len(blobs) <= len(_PARTS):
            blobs.append(value)
    if not name.isprintable():
        raise _BrokenError(f"a layer's name is not text: {name!r}")
    if len(blobs) > len(_PARTS):
        raise _BrokenError(f"layer '{name}' has more than two blobs, not weights and biases alone")
    return name, blobs


@dataclass(kw_only=True, slots=True)
class _Blob:
    """A BlobProto: the bytes of its values, and its shape, in the new form or the old."""

    # One buffer for all pieces: a piece may be as small as one value, and an object for each would cost a hundredfold.
    content: dict[int, bytearray] = field(default_factory=lambda: {number: bytearray() for number in _WIDTHS})
    shape: list[int] | None = None
    legacy: dict[int, int] = field(default_factory=dict)  # field 1 to 4: num, channels, height, width


def _values(content: memoryview, part: str) -> np.ndarray:
    """float32, in the shape that torch gives to such a layer."""
    blob = _Blob()
    for number, value in _fields(content):
        if number in _WIDTHS and isinstance(value, memoryview):
            if len(value) % _WIDTHS[number]:
                raise _BrokenError(f"{len(value)} bytes of values of {_WIDTHS[number]} bytes each")
            blob.content[number] += value
        elif number == 7 and isinstance(value, memoryview):
            blob.shape = list(islice(_dimensions(value), _MOST_AXES + 1))
        elif number in (1, 2, 3, 4) and isinstance(value, int):
            blob.legacy[number] = value
    shape = _shape(blob, part)
    flat = np.frombuffer(blob.content[8], "<f8") if blob.content[8] else np.frombuffer(blob.content[5], "<f4")
    if math.prod(shape) != len(flat):
        raise _BrokenError(f"the shape {shape} needs {math.prod(shape)} values, but {len(flat)} are there")
    try:
        with np.errstate(over="raise"):
            return flat.astype(np.float32, copy=False).reshape(shape)
    except FloatingPointError:
        raise _BrokenError("a value is too large for 32 bits") from None


def _shape(blob: _Blob, part: str) -> list[int]:
    """Old blobs always have four dimensions: fc weights are [1, 1, out, in], biases [1, 1, 1, out]."""
    shape = [blob.legacy.get(number, 1) for number in (1, 2, 3, 4)] if blob.shape is None else blob.shape
    if len(shape) > _MOST_AXES:
        raise _BrokenError(f"a shape of more than {_MOST_AXES} dimensions")
    if wrong := [size for size in shape if not 1 <= size <= _LONGEST]:
        raise _BrokenError(f"a dimension of {wrong[0]}")
    if blob.shape is not None:
        return shape
    if part == "bias":
        return [math.prod(shape)]
    return shape[2:] if shape[:2] == [1, 1] else shape


def _dimensions(content: memoryview) -> Iterator[int]:
    for number, value in _fields(content):
        if number != 1:
            continue
        if isinstance(value, int):
            yield value
        else:
            place = 0
            while place < len(value):
                dimension, place = _varint(value, place)
                yield dimension


def _fields(content: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field of a message: an integer, or the bytes of anything longer."""
    place = 0
    while place < len(content):
        key, place = _varint(content, place)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, place = _varint(content, place)
            yield number, value
            continue
        if kind == _BYTES:
            length, place = _varint(content, place)
        elif kind in (_EIGHT, _FOUR):
            length = 8 if kind == _EIGHT else 4
        else:
            raise _BrokenError(f"byte {place}: unknown wire type {kind}")
        if length > len(content) - place:
            raise _BrokenError(f"a field of {length} bytes, but {len(content) - place} are left: it is cut short")
        yield number, content[place : place + length]
        place += length


def _varint(content: memoryview, place: int) -> tuple[int, int]:
    """An integer of seven bits a byte, and the place after it."""
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(content):
            raise _BrokenError("a number is cut short")
        byte = content[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise _BrokenError("a number is longer than ten bytes")
