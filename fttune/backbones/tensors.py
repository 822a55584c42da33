"""Weights as safetensors: named tensors in one file that holds no code; the only file that imports safetensors."""

from pathlib import Path
from typing import TYPE_CHECKING

from fttune.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor, nn

SUFFIX = ".safetensors"


def save_weights(net: "nn.Module", path: Path) -> None:
    """Write every value of a network under its own names."""
    from safetensors.torch import save_file

    save_file({name: value.detach().cpu().contiguous() for name, value in net.state_dict().items()}, path)


def read_tensors(path: Path) -> dict[str, "Tensor"]:
    """The tensors of a file by name, on the CPU; WeightsError, naming the file, when it cannot be read."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except OSError as error:
        raise WeightsError(f"{path}: cannot read the weights: {error.strerror or error}") from None
    except SafetensorError as error:
        raise WeightsError(f"{path}: not a whole file of safetensors ({' '.join(str(error).split())[:120]})") from None
