"""Classification sets of torchvision, by the name of their class, such as CIFAR10 or FakeData."""

import inspect
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

from PIL import Image
from torchvision import datasets as torchvision_datasets
from torchvision.datasets import VisionDataset

from fttune.data.decode import encode
from fttune.data.readers import ImageRef, Pool
from fttune.errors import AbsentDataError, DataError, unknown
from fttune.trial import digest

# How the parts of a set are asked for, where it is neither `train=` nor `split=` with the values train and test.
_PARTS: dict[str, dict[Pool, list[dict[str, Any]]]] = {
    "CLEVRClassification": {"train": [{"split": "train"}], "test": [{"split": "val"}]},  # its test has no labels
    "Country211": {"train": [{"split": "train"}, {"split": "valid"}], "test": [{"split": "test"}]},
    "DTD": {"train": [{"split": "train"}, {"split": "val"}], "test": [{"split": "test"}]},
    "EMNIST": {"train": [{"train": True}], "test": [{"train": False}]},
    "FGVCAircraft": {"train": [{"split": "trainval"}], "test": [{"split": "test"}]},
    "Flowers102": {"train": [{"split": "train"}, {"split": "val"}], "test": [{"split": "test"}]},
    "ImageNet": {"train": [{"split": "train"}], "test": [{"split": "val"}]},
    "Imagenette": {"train": [{"split": "train"}], "test": [{"split": "val"}]},
    "LFWPeople": {"train": [{"split": "train"}], "test": [{"split": "test"}]},
    "OxfordIIITPet": {"train": [{"split": "trainval"}], "test": [{"split": "test"}]},
    "PCAM": {"train": [{"split": "train"}, {"split": "val"}], "test": [{"split": "test"}]},
    "Places365": {"train": [{"split": "train-standard"}], "test": [{"split": "val"}]},
    "QMNIST": {"train": [{"train": True}], "test": [{"train": False}]},
    "RenderedSST2": {"train": [{"split": "train"}, {"split": "val"}], "test": [{"split": "test"}]},
}
# Where torchvision keeps what it gives as labels and as names of classes.
_LABELS = ("targets", "labels", "_labels", "y")
_NAMES = ("classes", "categories")


class TorchvisionSet:
    """A set with its official parts; what is not `test` may be trained on. `options` go to torchvision's class.

    Its files are told to be unchanged by their labels: torchvision does not say which files they are.
    """

    def __init__(self, name: str, root: Path, options: Mapping[str, Any] | None = None) -> None:
        self._name, self._root, self._options = name, root, dict(options or {})
        self._parts: dict[Pool, list[VisionDataset]] = {
            pool: list(self._open(pool)) for pool in _pools(name, self._options)
        }
        self._lock = Lock()  # that a set may be read by several threads is nowhere said, and not true of FakeData

    @property
    def classes(self) -> tuple[str, ...]:
        return self._classes

    @cached_property
    def _classes(self) -> tuple[str, ...]:
        first = next(part for parts in self._parts.values() for part in parts)
        named = next((vars(first)[name] for name in _NAMES if vars(first).get(name)), None)
        count = 1 + max(label for labels in self._labels.values() for one in labels for label in one)
        return tuple(map(str, named if named and len(named) >= count else range(count)))

    @cached_property
    def _labels(self) -> dict[Pool, list[list[int]]]:
        """Of each image of each part; to find them may mean to open every image, which is done once."""
        return {pool: [_labels(self._name, part) for part in parts] for pool, parts in self._parts.items()}

    @property
    def images(self) -> tuple[ImageRef, ...]:
        return self._images

    @cached_property
    def _images(self) -> tuple[ImageRef, ...]:
        refs = (
            ImageRef(key=f"{pool}/{number}/{index:08}", label=label, pool=pool)
            for pool, parts in self._labels.items()
            for number, labels in enumerate(parts)
            for index, label in enumerate(labels)
        )
        return tuple(sorted(refs, key=lambda ref: ref.key))

    def fingerprint(self) -> str:
        refs = [(ref.key, ref.label) for ref in self.images]
        return f"torchvision {self._name} {digest([str(self._root.resolve()), self._options, self.classes, refs])}"

    def read(self, ref: ImageRef) -> bytes:
        pool, number, index = ref.key.split("/")
        with self._lock:
            image, _ = self._parts[ref.pool][int(number)][int(index)]
        if not isinstance(image, Image.Image):
            raise DataError(
                f"torchvision:{self._name} must give images, but {pool} {index} is a {type(image).__name__}"
            )
        return encode(image)

    def _open(self, pool: Pool) -> Iterator[VisionDataset]:
        for words in _pools(self._name, self._options)[pool]:
            try:
                yield _made(self._name, self._root, **(_staying(self._name) | words | self._options))
            except (OSError, RuntimeError) as error:
                reason = " ".join(str(error).split())
                hint = f"fttune prepare torchvision:{self._name} --data-root {self._root} --download fetches it"
                if not _can_fetch(self._name):
                    hint = f"torchvision cannot fetch it, so put it under {self._root} by hand"
                raise AbsentDataError(f"torchvision:{self._name} under {self._root}: {reason[:150]}; {hint}") from None


def download(name: str, root: Path, options: Mapping[str, Any] | None = None) -> None:
    """Fetch a set into a folder with torchvision; DataError when torchvision cannot."""
    chosen = dict(options or {})
    if not _can_fetch(name):
        raise DataError(f"torchvision cannot download {name}: its licence or its site asks for a visit by hand")
    root.mkdir(parents=True, exist_ok=True)
    for parts in _pools(name, chosen).values():
        for words in parts:
            try:
                _made(name, root, download=True, **(words | chosen))
            except (OSError, RuntimeError, ValueError) as error:
                reason = " ".join(str(error).split())[:150]
                raise DataError(
                    f"torchvision could not download {name}: {reason}; put it under {root} by hand"
                ) from None


def _pools(name: str, options: Mapping[str, Any]) -> dict[Pool, list[dict[str, Any]]]:
    """The parts of a set; one of any use where it has no parts."""
    if name in _PARTS:
        return _PARTS[name]
    has = _parameters(name)
    if "train" in has and "train" not in options:
        return {"train": [{"train": True}], "test": [{"train": False}]}
    if "split" in has and "split" not in options:
        return {"train": [{"split": "train"}], "test": [{"split": "test"}]}
    return {"any": [{}]}


def _parameters(name: str) -> set[str]:
    known = [kind for kind in torchvision_datasets.__all__ if inspect.isclass(vars(torchvision_datasets).get(kind))]
    if name not in known:
        raise DataError(unknown("set of torchvision", name, known))
    return set(inspect.signature(vars(torchvision_datasets)[name].__init__).parameters)


def _can_fetch(name: str) -> bool:
    """Whether a set takes `download`, itself or through the kinds it is one of."""
    kinds = vars(torchvision_datasets)[name].__mro__
    return any("download" in inspect.signature(kind.__init__).parameters for kind in kinds)


def _staying(name: str) -> dict[str, Any]:
    """What keeps a set from fetching itself: a few do unless told otherwise."""
    return {"download": False} if "download" in _parameters(name) else {}


def _made(name: str, root: Path, **words: Any) -> VisionDataset:
    places = {"root": str(root)} if "root" in _parameters(name) else {}
    try:
        return vars(torchvision_datasets)[name](**places, **words)
    except ModuleNotFoundError as error:
        raise DataError(f"torchvision:{name} needs the package {error.name}") from None
    except (TypeError, ValueError) as error:
        raise DataError(
            f"torchvision:{name} does not take these options: {' '.join(str(error).split())[:150]}"
        ) from None


def _labels(name: str, part: VisionDataset) -> list[int]:
    """The label of each image; a set that does not keep them is gone through once."""
    kept = next((vars(part)[place] for place in _LABELS if place in vars(part)), None)
    labels = [part[index][1] for index in range(len(part))] if kept is None else kept
    try:
        return [int(label) for label in labels]
    except (TypeError, ValueError):
        raise DataError(f"torchvision:{name} is no set of images with one class each") from None
