"""A training on disk, in the middle: written whole or not at all, and taken up only under the same terms.

One file of named tensors, with the plain values in its header: no code is in it, and none is run to read it.
"""

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fttune.backbones.tensors import SUFFIX, read_with_values, write_tensors
from fttune.errors import StoreError, UsageError, WeightsError
from fttune.files import replacing, writing

Terms = Mapping[str, Any]  # what the outcome of a training follows from, as plain values
_TENSOR = "tensor"  # the one key of what stands for a tensor among plain values


def file_of(folder: Path, name: str) -> Path:
    """The checkpoint of the training `name`."""
    return folder / f"{name}{SUFFIX}"


def save(path: Path, terms: Terms, state: Mapping[str, Any]) -> None:
    """Replace the checkpoint at `path`; a state is a tree of mappings, lists, tensors and plain values."""
    tensors: dict[str, Tensor] = {}
    values = _apart({"terms": dict(terms), **state}, tensors)
    values["crc"] = _checksum(tensors)
    with writing(path.parent), replacing(path) as temporary:
        write_tensors(tensors, temporary, values)


def load(path: Path, terms: Terms) -> dict[str, Any] | None:
    """The state at `path`, on the CPU; None where there is none.

    Raises UsageError when it was saved under other terms, StoreError when it is damaged. Nobody else may be writing it:
    what a killed process left half-written beside it is removed.
    """
    for left in path.parent.glob(f".{path.name}.*.tmp"):
        left.unlink(missing_ok=True)
    if not path.exists():
        return None
    try:
        tensors, values = read_with_values(path)
        if values.pop("crc") != _checksum(tensors):
            raise WeightsError("its values are not those that were saved")
        saved = _together(values, tensors)
        there = saved.pop("terms")
    except (WeightsError, KeyError, AttributeError) as error:
        raise StoreError(f"{path}: damaged checkpoint ({error}); remove it to start again") from error
    if apart := difference(there, terms):
        raise UsageError(
            f"a training with other settings stands at {path.parent}: {apart}; remove the folder or give another name"
        )
    return saved


def difference(there: Terms, here: Terms) -> str:
    """The first value in which two sets of terms differ, in words; empty when they are equal."""
    for name in sorted({*there, *here}):
        # Checkpoints and JSON know no tuples.
        old, new = (_plain(terms.get(name)) for terms in (there, here))
        if old != new:
            return f"{name} is {old} there and {new} here"
    return ""


def _checksum(tensors: Mapping[str, Tensor]) -> int:
    """CRC-32 of all values, in the order of their names."""
    crc = 0
    for name in sorted(tensors):
        crc = zlib.crc32(tensors[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data, crc)
    return crc


def _apart(state: Any, tensors: dict[str, Tensor], name: str = "") -> Any:
    """The plain values of a state; its tensors go into `tensors`, under their path in the state."""
    if isinstance(state, Tensor):
        tensors[name] = state
        return {_TENSOR: name}
    if isinstance(state, Mapping):
        return {str(key): _apart(value, tensors, f"{name}/{key}") for key, value in state.items()}
    if isinstance(state, list | tuple):
        return [_apart(value, tensors, f"{name}/{place}") for place, value in enumerate(state)]
    return state


def _together(values: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The state that was taken apart into these values and tensors."""
    if isinstance(values, dict):
        if values.keys() == {_TENSOR}:
            return tensors[values[_TENSOR]]
        return {key: _together(value, tensors) for key, value in values.items()}
    return [_together(value, tensors) for value in values] if isinstance(values, list) else values


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
