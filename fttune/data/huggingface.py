"""Image sets through Hugging Face `datasets`: by name, or a folder of `save_to_disk`. The only file that uses it."""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fttune.data.decode import CorruptImageError
from fttune.data.readers import ImageRef, Pool
from fttune.errors import AbsentDataError, DataError, unknown
from fttune.trial import digest

if TYPE_CHECKING:
    from datasets import Dataset

_UNLABELLED = (None, -1)  # how a set says that an example has no label
_POOLS: dict[str, Pool] = {"train": "train", "validation": "train", "valid": "train", "val": "train", "test": "test"}


class HuggingFaceSet:
    """One image of each example; the split `test` is the official test set, the other known splits may be trained on.

    `image` and `label` name the columns; unless given, they are the one of images and the one of class labels. A set
    with one split alone has no official test set, and a split without labels does not count. `config` chooses among
    the configurations of a set.
    """

    def __init__(
        self, name: str, *, config: str | None = None, image: str | None = None, label: str | None = None
    ) -> None:
        self._name = name
        splits = _load(name, config)
        first = next(iter(splits.values()))
        self._image = _column(name, first, image, "Image", "image")
        self._label = _column(name, first, label, "ClassLabel", "label")
        splits = {split: part for split, part in splits.items() if self._is_labelled(split, part)}
        self._alone = len(splits) == 1
        self._parts = {split: self._encoded(part) for split, part in splits.items() if self._alone or split in _POOLS}
        if not self._parts:
            raise DataError(f"hf:{name} must have a split of {', '.join(_POOLS)}, but has {', '.join(splits)}")

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self._numbers[0])

    @property
    def images(self) -> tuple[ImageRef, ...]:
        return self._images

    @cached_property
    def _images(self) -> tuple[ImageRef, ...]:
        _, numbers = self._numbers
        return tuple(
            ImageRef(key=f"{split}/{row:09}", label=numbers[label], pool="any" if self._alone else _POOLS[split])
            for split, part in sorted(self._parts.items())
            for row, label in enumerate(part[self._label])
        )

    @cached_property
    def _numbers(self) -> tuple[list[str], dict[Any, int]]:
        """Class names, and the number of each value in the column of labels."""
        from datasets import ClassLabel

        feature = next(iter(self._parts.values())).features[self._label]
        if isinstance(feature, ClassLabel):
            return list(feature.names), {number: number for number in range(len(feature.names))}
        values = sorted({label for part in self._parts.values() for label in part[self._label]})
        return list(map(str, values)), {value: number for number, value in enumerate(values)}

    def fingerprint(self) -> str:
        prints = {split: part._fingerprint for split, part in self._parts.items()}
        return f"hf {digest([self._name, self._image, self._label, prints])}"

    def read(self, ref: ImageRef) -> bytes:
        split, row = ref.key.split("/")
        value = self._parts[split][int(row)][self._image]
        if value is None:
            raise CorruptImageError("no image")
        return value["bytes"] or Path(value["path"]).read_bytes()

    def _is_labelled(self, split: str, part: "Dataset") -> bool:
        """Whether a split has labels, as test sets of contests have not; DataError for one with gaps."""
        labels = part[self._label] if self._label in part.features else []
        without = [row for row, label in enumerate(labels) if label in _UNLABELLED]
        if without and len(without) < len(labels):
            raise DataError(
                f"hf:{self._name}: every example must have a {self._label}, but row {without[0]} of {split} has none"
            )
        return len(labels) > 0 and not without

    def _encoded(self, part: "Dataset") -> "Dataset":
        """The split with its images as they were encoded: decoding is the store's."""
        from datasets import Image

        return part.cast_column(self._image, Image(decode=False))


def _load(name: str, config: str | None) -> dict[str, "Dataset"]:
    try:
        from datasets import Dataset, load_dataset, load_from_disk
    except ModuleNotFoundError:
        raise DataError(f"hf:{name} needs Hugging Face datasets: install fttune[hf]") from None
    try:
        loaded = load_from_disk(name) if Path(name).is_dir() else load_dataset(name, config)
    except Exception as error:  # a set that cannot be had fails in ways of its own loader
        reason = " ".join(str(error).split())[:150]
        raise AbsentDataError(f"hf:{name} cannot be loaded ({type(error).__name__}: {reason})") from None
    return {"all": loaded} if isinstance(loaded, Dataset) else {str(split): part for split, part in loaded.items()}


def _column(name: str, part: "Dataset", asked: str | None, kind: str, usual: str) -> str:
    """The column that is asked for, the only one of a kind, or the one with the usual name."""
    columns = list(part.features)
    if asked is not None and asked not in columns:
        raise DataError(f"hf:{name}: {unknown('column', asked, columns)}")
    fitting = [column for column in columns if type(part.features[column]).__name__ == kind]
    guess = usual if usual in columns else None
    found = asked or (fitting[0] if len(fitting) == 1 else guess)
    if found is None:
        raise DataError(f"hf:{name}: say which column is the {usual}, with the option {usual}: {' or '.join(columns)}")
    return found
