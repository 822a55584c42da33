"""Files of pre-trained weights: where they lie, what they are, and how they enter a network; nothing is downloaded."""

import hashlib
import importlib.util
import os
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import TYPE_CHECKING

from fttune.backbones import caffemodel, tensors
from fttune.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor, nn


def in_package(backbone: str, package: str, pattern: str, extra: str | None = None) -> Path:
    """The one file that matches `pattern` in an installed package, which is not imported; else WeightsError.

    `extra`: of fttune, which brings the package.
    """
    spec = importlib.util.find_spec(package)
    for folder in (spec and spec.submodule_search_locations) or ():
        if found := sorted(Path(folder).glob(pattern)):
            return found[0]
    wanted = f"install fttune[{extra}]" if extra else "install it"
    raise WeightsError(
        f"no weights of {backbone}: no {pattern} in an installed package {package.replace('_', '-')}; {wanted},"
        f" {_or_name(backbone)}"
    )


def in_hub(backbone: str, name: str, publisher: str = "torchvision", sha1: str | None = None) -> Path:
    """The file `name` in torch hub's cache folder (TORCH_HOME, else ~/.cache/torch); else WeightsError.

    `sha1`: by which the publisher tells the file; it is named, not checked.
    """
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = Path(os.environ.get("TORCH_HOME") or f"{cache}/torch").expanduser()
    path = home / "hub" / "checkpoints" / name
    if not path.is_file():
        known = f" (SHA-1 {sha1})" if sha1 else ""
        wanted = f"put {publisher}'s file{known} there"
        raise WeightsError(f"no weights of {backbone} at {path}: {wanted}, {_or_name(backbone)}")
    return path


def digest_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal; read once per process while its size and time stay the same."""
    try:
        status = path.stat()
        if not S_ISREG(status.st_mode) and not S_ISDIR(status.st_mode):
            raise WeightsError(f"{path}: cannot read the weights: no regular file")
        return _digest(path, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise WeightsError(f"{path}: cannot read the weights: {error.strerror}") from None


def size_of(path: Path) -> int:
    """Bytes of a file; WeightsError where it cannot be looked up."""
    try:
        return path.stat().st_size
    except OSError as error:
        raise WeightsError(f"{path}: cannot read the weights: {error.strerror}") from None


def filled(outline: "nn.Sequential", path: Path, rename: Callable[[str], str]) -> "nn.Sequential":
    """A staged network on the meta device, with the values of a file; it is changed and returned, on the CPU.

    The file holds a state dict under its publisher's names, which `rename` maps, or under the network's own, which
    `rename` leaves as they are. The last layer takes the file's number of classes. Raises WeightsError, naming the
    file and the first key that does not fit.
    """
    import torch

    from fttune.backbones.staged import classifier, replace_classifier, to_empty

    state = {rename(key): value for key, value in _read(path).items()}
    last = next(key for key, value in outline.named_parameters() if value is classifier(outline).weight)
    if last in state and state[last].ndim == 2 and len(state[last]):
        replace_classifier(outline, len(state[last]))
    wanted = outline.state_dict()
    _check(path, state, wanted)
    uncounted = {key: torch.zeros((), dtype=torch.long) for key in wanted if key not in state}
    to_empty(outline).load_state_dict(state | uncounted)
    return outline


@lru_cache(maxsize=16)
def _digest(path: Path, size: int, modified: int) -> str:
    """`size` and `modified` make a changed file another entry of the cache."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(path: Path) -> dict[str, "Tensor"]:
    if path.suffix == caffemodel.SUFFIX:
        # Under names of their own: another file with Caffe's names may hold images' channels in Caffe's order.
        return {f"{caffemodel.PREFIX}{key}": value for key, value in caffemodel.read_caffemodel(path).items()}
    if path.suffix == tensors.SUFFIX:
        return tensors.read_tensors(path)
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise WeightsError(f"{path}: cannot read the weights: {error.strerror}") from None
    except Exception as error:  # a broken pickle can fail in any way at all
        reason = " ".join(str(error).split())[:120]
        raise WeightsError(f"{path}: not a whole file of torch weights ({type(error).__name__}: {reason})") from error
    if not isinstance(state, dict) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in state.items()
    ):
        raise WeightsError(f"{path}: must hold a state dict of names and tensors, but holds a {type(state).__name__}")
    return state


def _check(path: Path, state: Mapping[str, "Tensor"], wanted: Mapping[str, "Tensor"]) -> None:
    """Raise for the first key that is missing, left over or of another shape.

    Files older than torch 0.4.1 do not count batches; the count, which is not used, then starts at 0.
    """
    missing = [key for key in wanted if key not in state and not key.endswith(".num_batches_tracked")]
    extra = [key for key in state if key not in wanted]
    if missing or extra:
        parts = [f"no value for {missing[0]}"] if missing else []
        parts += [f"no place for {extra[0]}"] if extra else []
        raise WeightsError(
            f"{path}: weights of another network: {' and '.join(parts)}"
            f" ({len(missing)} missing, {len(extra)} left over of {len(wanted)})"
        )
    for key, value in state.items():
        if value.shape != wanted[key].shape:
            raise WeightsError(
                f"{path}: weights of another network:"
                f" {key} must be {list(wanted[key].shape)}, but is {list(value.shape)}"
            )


def _or_name(backbone: str) -> str:
    return f"or name a file in the sweep file, data.weights: {{{backbone}: FILE}}"
