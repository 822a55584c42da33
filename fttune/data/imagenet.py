"""ImageNet (ILSVRC2012): the training folders and the validation images, which serve as test set."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, get_args

from fttune.data.layout import FileSource, Listing, check_choice, files, home, read_list, subfolders
from fttune.data.readers import ImageRef
from fttune.errors import DataError

Kind = Literal["natural", "man_made"]

CLASSES = 1000
_DEVKIT = "ILSVRC2012_devkit_t12/data"
_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
# Positions of the natural classes among the sorted WordNet ids: half_nat_idx.txt of Yosinski et al. 2014.
NATURAL = frozenset((*range(398), *range(936, 959), 970, *range(972, 999)))


class ImageNet(FileSource):
    """`train/n01440764/n01440764_10026.JPEG`, labels in the order of the WordNet ids, which is Caffe's and torch's.

    Validation images lie in folders of WordNet ids too, as torchvision leaves them, or flat as released, with the
    devkit beside them. `kind` keeps the natural or the man-made classes, Yosinski's second split.
    """

    def __init__(self, root: Path, *, kind: Kind | None = None) -> None:
        folders = ("ILSVRC2012", "ILSVRC2012_img", "ILSVRC/Data/CLS-LOC")
        if kind is not None:
            check_choice("kind", kind, get_args(Kind))
        super().__init__(home("imagenet", root, folders=folders, holds="train/n*", archives="ILSVRC2012_img_*.tar"))
        self._kind: Kind | None = kind

    def listing(self) -> Listing:
        names = [folder.name for folder in subfolders(self.path / "train")]
        kept = _of_kind(names, self._kind) if self._kind else names
        labels = {name: label for label, name in enumerate(kept)}
        return tuple(kept), (*self._train(labels), *self._validation(names, labels))

    def _train(self, labels: dict[str, int]) -> Iterator[ImageRef]:
        for name, label in labels.items():
            found = files(self.path / "train" / name, "*.JPEG")
            yield from (ImageRef(key=f"train/{name}/{path.name}", label=label, pool="train") for path in found)

    def _validation(self, names: Sequence[str], labels: dict[str, int]) -> Iterator[ImageRef]:
        folder = self.path / "val"
        if not folder.is_dir():
            raise DataError(f"{folder} must hold ILSVRC2012's validation images, the test set here, but does not exist")
        of_val = {path.name for path in subfolders(folder)}
        in_folders = bool(of_val)
        if in_folders and (apart := of_val ^ set(names)):
            raise DataError(f"{self.path}: train and val must hold the same classes, but only one holds {min(apart)}")
        listed = self._in_folders(folder, labels) if in_folders else self._flat(folder, names)
        for path, name in listed:
            if name in labels:
                key = path.relative_to(self.path).as_posix()
                yield ImageRef(key=key, label=labels[name], pool="test")

    def _in_folders(self, folder: Path, labels: dict[str, int]) -> Iterator[tuple[Path, str]]:
        for name in labels:
            yield from ((path, name) for path in files(folder / name, "*.JPEG"))

    def _flat(self, folder: Path, names: Sequence[str]) -> Iterator[tuple[Path, str]]:
        truth = [line for _, line in read_list(self.path / _DEVKIT / _TRUTH)]
        by_number = _wordnet_ids(self.path / _DEVKIT / "meta.mat", names)
        found = files(folder, "ILSVRC2012_val_*.JPEG")
        if len(found) != len(truth):
            raise DataError(f"{folder} must hold the {len(truth)} images that {_TRUTH} labels, but holds {len(found)}")
        for path, number in zip(found, truth, strict=True):
            if number not in by_number:
                raise DataError(f"{self.path / _DEVKIT / _TRUTH}: no class has the number '{number}' in meta.mat")
            yield path, by_number[number]


def _of_kind(names: Sequence[str], kind: Kind) -> list[str]:
    if len(names) != CLASSES:
        raise DataError(f"imagenet: the split by kind is of {CLASSES} classes, but {len(names)} are there")
    return [name for place, name in enumerate(names) if (place in NATURAL) == (kind == "natural")]


def _wordnet_ids(path: Path, names: Sequence[str]) -> dict[str, str]:
    """Devkit numbers, as text, to WordNet ids; meta.mat numbers classes in an order of its own."""
    from scipy.io import loadmat

    try:
        synsets = loadmat(path, squeeze_me=True)["synsets"]
        leaves = [(str(row["ILSVRC2012_ID"]), str(row["WNID"])) for row in synsets if row["num_children"] == 0]
    except Exception as error:  # scipy's reader fails in many ways on what is no such file
        raise DataError(f"{path}: not the class table of the ILSVRC2012 devkit: {error}") from None
    # The halves are drawn by the places of the classes: with one folder less they would be others.
    if apart := set(names) ^ {name for _, name in leaves}:
        raise DataError(f"{path}: train must hold the classes of this table, but only one of them has {min(apart)}")
    return dict(leaves)
