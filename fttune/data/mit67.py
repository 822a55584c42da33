"""MIT Indoor 67 (Quattoni and Torralba 2009) as unpacked from indoorCVPR_09.tar, with its two lists beside Images."""

from collections.abc import Iterator
from pathlib import Path

from fttune.data.layout import FileSource, Listing, home, inside, read_list
from fttune.data.readers import ImageRef, Pool
from fttune.errors import DataError

LISTS: dict[Pool, str] = {"train": "TrainImages.txt", "test": "TestImages.txt"}


class Mit67(FileSource):
    """`Images/gameroom/bt_132294gameroom2.jpg`; only images on the official lists of train and test are used."""

    def __init__(self, root: Path) -> None:
        folder = home("mit67", root, folders=("indoorCVPR_09",), holds="Images", archives="indoorCVPR_09.tar")
        super().__init__(folder / "Images")

    def listing(self) -> Listing:
        of_list: dict[Pool, list[str]] = {pool: list(self._keys(name)) for pool, name in LISTS.items()}
        if both := set(of_list["train"]) & set(of_list["test"]):
            raise DataError(f"{self.path.parent}: an image must be on one list, but {min(both)} is on both")
        rooms, tested = ({key.partition("/")[0] for key in of_list[pool]} for pool in LISTS)
        if apart := rooms ^ tested:
            raise DataError(f"{self.path.parent}: a class must be on both lists, but '{min(apart)}' is on one alone")
        listed: list[tuple[Pool, str]] = [(pool, key) for pool, keys in of_list.items() for key in keys]
        classes = tuple(sorted(rooms))
        labels = {name: label for label, name in enumerate(classes)}
        refs = (ImageRef(key=key, label=labels[key.partition("/")[0]], pool=pool) for pool, key in listed)
        return classes, refs

    def _keys(self, name: str) -> Iterator[str]:
        return iter(dict.fromkeys(inside(self.path, line, place) for place, line in read_list(self.path.parent / name)))
