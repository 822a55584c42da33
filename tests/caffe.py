"""Writes `.caffemodel` files as Caffe does, in its old form (V1, four dimensions) and its new one (V2, shapes).

`python tests/caffe.py FILE` writes a whole CaffeNet with made weights, as `sweeps/smoke.yaml` wants it.
"""

import struct
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

Form = Literal["v1", "v2", "unpacked", "double"]
Layers = Mapping[str, Sequence[np.ndarray]]  # weights and biases by layer, as Caffe keeps them

# CaffeNet as BVLC/caffe defines it: shape of the weights, the filler's standard deviation, bias.
CAFFENET: dict[str, tuple[tuple[int, ...], float, float]] = {
    "conv1": ((96, 3, 11, 11), 0.01, 0),
    "conv2": ((256, 48, 5, 5), 0.01, 1),
    "conv3": ((384, 256, 3, 3), 0.01, 0),
    "conv4": ((384, 192, 3, 3), 0.01, 1),
    "conv5": ((256, 192, 3, 3), 0.01, 1),
    "fc6": ((4096, 9216), 0.005, 1),
    "fc7": ((4096, 4096), 0.005, 1),
    "fc8": ((1000, 4096), 0.01, 0),
}


def caffemodel(layers: Layers, form: Form = "v1") -> bytes:
    """A NetParameter: its name, an input, a layer without values, and the given layers."""
    layer_field, name_field, blob_field = (2, 4, 6) if form == "v1" else (100, 1, 7)
    parts = [
        text(1, "CaffeNet"),
        text(3, "data"),
        *(number(4, size) for size in (10, 3, 227, 227)),
        message(layer_field, text(name_field, "relu1") + number(5, 18)),
    ]
    for name, blobs in layers.items():
        inner = text(name_field, name) + b"".join(message(blob_field, blob(values, form)) for values in blobs)
        parts.append(message(layer_field, inner))
    return b"".join(parts)


def caffenet(seed: int = 0) -> Layers:
    """Made weights of the whole network, the same for every call: random features of a trained network's size.

    Drawn so that every layer passes on what it is given (He et al. 2015), pixels brought from a hundred to one first.
    """
    rng = np.random.default_rng(seed)
    layers = {}
    for name, (shape, _, _) in CAFFENET.items():
        std = np.sqrt(2 / np.prod(shape[1:])) / (100 if name == "conv1" else 1)
        layers[name] = (rng.standard_normal(shape, np.float32) * np.float32(std), np.zeros(shape[0], np.float32))
    return layers


def blob(values: np.ndarray, form: Form) -> bytes:
    if form == "v1":
        sizes = (1,) * (4 - values.ndim) + values.shape
        dims = b"".join(number(place, size) for place, size in enumerate(sizes, start=1))
    else:
        packed = b"".join(varint(size) for size in values.shape)
        dims = message(7, b"".join(number(1, s) for s in values.shape) if form == "unpacked" else message(1, packed))
    if form == "unpacked":
        return dims + b"".join(varint(5 << 3 | 5) + struct.pack("<f", value) for value in values.ravel())
    if form == "double":
        return dims + message(8, values.astype("<f8").tobytes())
    return message(5, values.astype("<f4").tobytes()) + dims


def varint(value: int) -> bytes:
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*made, value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def message(field: int, content: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(content)) + content


def text(field: int, value: str) -> bytes:
    return message(field, value.encode())


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(caffemodel(caffenet()))
