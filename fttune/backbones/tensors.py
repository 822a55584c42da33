"""Named tensors in one file that holds no code: safetensors; the only file that imports it."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fttune.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor, nn

SUFFIX = ".safetensors"
_VALUES = "fttune"  # the entry of the header that is ours


def save_weights(net: "nn.Module", path: Path) -> None:
    """Write every value of a network under its own names."""
    write_tensors(net.state_dict(), path)


def write_tensors(tensors: Mapping[str, "Tensor"], path: Path, values: Any = None) -> None:
    """Write tensors by name, and plain values (whatever JSON can hold) into the header of the file."""
    from safetensors.torch import save

    apart = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    # Written by Python, whose errors say whether the disk is full.
    path.write_bytes(save(apart, metadata=None if values is None else {_VALUES: json.dumps(values)}))


def read_tensors(path: Path) -> dict[str, "Tensor"]:
    """The tensors of a file by name, on the CPU; WeightsError, naming the file, when it cannot be read."""
    return read_with_values(path)[0]


def read_values(path: Path) -> Any:
    """The plain values in the header of a file, None where there are none; no tensor is read, torch is not imported.

    WeightsError, naming the file, when it cannot be read.
    """
    with _opened(path, "numpy") as file:
        return _told(file)


def read_with_values(path: Path) -> tuple[dict[str, "Tensor"], Any]:
    """The tensors of a file by name, on the CPU, and the plain values beside them (None where there are none).

    WeightsError, naming the file, when it cannot be read.
    """
    with _opened(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, _told(file)  # noqa: SIM118


@contextmanager
def _opened(path: Path, framework: str) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework=framework) as file:
            yield file
    except OSError as error:
        raise WeightsError(f"{path}: cannot read the weights: {error.strerror or error}") from None
    except (SafetensorError, ValueError) as error:
        raise WeightsError(f"{path}: not a whole file of safetensors ({' '.join(str(error).split())[:120]})") from None


def _told(file: Any) -> Any:
    text = (file.metadata() or {}).get(_VALUES)
    return text and json.loads(text)
