"""Caltech-UCSD Birds 200-2011 (Wah et al. 2011) as unpacked from CUB_200_2011.tgz."""

from collections.abc import Iterator
from pathlib import Path

from fttune.data.layout import FileSource, Listing, home, inside, read_list
from fttune.data.readers import ImageRef, Pool
from fttune.errors import DataError

_POOLS: dict[str, Pool] = {"1": "train", "0": "test"}


class Cub200(FileSource):
    """`images.txt`, `image_class_labels.txt`, `classes.txt` and `train_test_split.txt`; whole images, without boxes.

    `official`: test images are the official ones. Otherwise all images are one pool, and the test set is our own.
    """

    def __init__(self, root: Path, *, official: bool = True) -> None:
        folder = home("cub200", root, folders=("CUB_200_2011",), holds="images.txt", archives="CUB_200_2011.tgz")
        self._lists = folder
        self._official = official
        super().__init__(folder / "images")

    def listing(self) -> Listing:
        names = dict(self._pairs("classes.txt"))
        order = sorted(names, key=lambda number: names[number])
        labels = {number: label for label, number in enumerate(order)}
        return tuple(names[number].partition(".")[2] for number in order), self._refs(labels)

    def _refs(self, labels: dict[str, int]) -> Iterator[ImageRef]:
        classes, splits = dict(self._pairs("image_class_labels.txt")), dict(self._pairs("train_test_split.txt"))
        images = dict(self._pairs("images.txt"))
        if lost := (classes.keys() | splits.keys()) - images.keys():
            raise DataError(
                f"{self._lists / 'images.txt'}: has no image {min(lost, key=int)}, which the other lists have"
            )
        for number, name in images.items():
            place = f"{self._lists / 'images.txt'}, image {number}"
            if classes.get(number) not in labels or splits.get(number) not in _POOLS:
                raise DataError(f"{place}: must have a class and a side of the split (1 or 0) in the other lists")
            pool = _POOLS[splits[number]] if self._official else "any"
            yield ImageRef(key=inside(self.path, name, place), label=labels[classes[number]], pool=pool)

    def _pairs(self, name: str) -> Iterator[tuple[str, str]]:
        for place, line in read_list(self._lists / name):
            number, _, value = line.partition(" ")
            if not number.isdecimal() or not value:
                raise DataError(f"{place}: must read '<number> <value>', but got '{line:.200}'")
            yield number, value
