"""What a training takes of a GPU's memory, and the share of the GPU that it is therefore given."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from fttune.bundle import Bundle
from fttune.trial import digest

UNKNOWN = 0.25  # of a GPU, for a training that nobody could measure
CONTEXT = 600_000_000  # bytes that a process holds on a GPU beside its tensors; not measured on every driver
_ROOM = 0.95  # of a GPU's memory that trainings side by side may fill
_GRAIN = 10_000  # Ray counts shares in ten-thousandths


@dataclass(frozen=True, kw_only=True, slots=True)
class Footprint:
    """The measured peak of one kind of training on one model of GPU."""

    device: str  # as the driver names the model
    peak: int  # bytes, the context of the process included
    total: int  # bytes of the GPU

    @property
    def share(self) -> float:
        """The largest whole number of such trainings that fit side by side, as a share of one; 1 where none does."""
        beside = max(1, int(_ROOM * self.total / self.peak))
        return (_GRAIN // beside) / _GRAIN

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """None where it was not measured; a half-written file is read as none."""
        try:
            return cls(**json.loads(path.read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None


def kind(bundle: Bundle) -> str:
    """Equal for trainings that take the same memory: of network, layers, views, batch, image size, images, seeds."""
    first = bundle.trials[0]
    cell, hparams = first.cell, first.hparams
    told = [cell.backbone, cell.label, str(hparams.views), hparams.batch_size, hparams.image_size, hparams.bn]
    images = [cell.dataset, cell.images_per_class, first.val_per_class, first.test_per_class]
    kept = [depth for depth in first.depths if depth in bundle.depths]
    together = [len(bundle.trials), len({trial.seed for trial in bundle.trials})]
    return digest([*told, *images, kept, *together])[:16]


def place(folder: Path, model: str, kind: str) -> Path:
    """The file of a measurement."""
    return folder / f"footprint-{digest([model, kind])[:16]}.json"


def share(known: Iterable[Footprint | None]) -> float:
    """A share that holds on every model of GPU of a cluster; where one was not measured, no less than a guess."""
    found = list(known)
    least = 0.0 if found and None not in found else UNKNOWN
    return max([least, *(one.share for one in found if one)])
