"""What a trial leaves of its training: the values of the layers that it trained, at its best step, in a file."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from fttune.backbones.tensors import SUFFIX, read_values, write_tensors
from fttune.errors import WeightsError
from fttune.files import replacing, writing

if TYPE_CHECKING:
    from torch import Tensor

_FACTS = ("classes", "mean", "std", "val_accuracy", "val_loss")


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """Such a file, by its header; the layers that were frozen are not in it."""

    path: Path
    classes: tuple[str, ...]
    mean: tuple[float, ...]  # as `Preprocessing` has them
    std: tuple[float, ...]
    val_accuracy: float
    val_loss: float

    @staticmethod
    def trial_of(path: Path) -> str:
        """The id of the trial that left a file."""
        return path.name.removesuffix(SUFFIX)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Without torch; WeightsError for a file that no trial left."""
        told = read_values(path)
        if not isinstance(told, dict) or not told.keys() >= {*_FACTS}:
            raise WeightsError(f"{path}: not what a trial leaves of its training")
        values: dict[str, Any] = {name: told[name] for name in _FACTS}
        values |= {name: tuple(values[name]) for name in ("classes", "mean", "std")}
        return cls(path=path, **values)


def file_of(folder: Path, trial_id: str) -> Path:
    return folder / f"{trial_id}{SUFFIX}"


def leave(folder: Path, trial_id: str, state: Mapping[str, "Tensor"], **facts: Any) -> None:
    """Write the trained values of a trial, whole or not at all; `facts` are the fields of a Part."""
    path = file_of(folder, trial_id)
    with writing(folder), replacing(path) as temporary:
        write_tensors(state, temporary, facts)


def left_in(folder: Path) -> Iterator[Path]:
    """What trials have left, whole files only."""
    return (path for path in sorted(folder.glob(f"*{SUFFIX}")) if not path.name.startswith("."))


def clear(folder: Path, but: Sequence[Path] = ()) -> None:
    """Remove what lies in a folder of parts, half-written files too, except `but`; then the folder if it is empty."""
    kept = set(but)
    for path in folder.glob("*"):
        if path not in kept:
            path.unlink(missing_ok=True)
    if folder.exists() and not kept:
        folder.rmdir()
