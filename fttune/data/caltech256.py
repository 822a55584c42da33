"""Caltech-256 (Griffin et al. 2007) as unpacked from 256_ObjectCategories.tar."""

import re
from collections.abc import Iterator
from pathlib import Path

from fttune.data.layout import FileSource, Listing, files, home, subfolders
from fttune.data.readers import ImageRef

FOLDER = "256_ObjectCategories"
_CLASS = re.compile(r"\d{3}\.(.+)")


class Caltech256(FileSource):
    """`256_ObjectCategories/001.ak47/001_0001.jpg`: 256 classes and 257.clutter, which is no class and is left out.

    The release holds strays (a folder in 056.dog, a file without suffix in 198.spider); only `*.jpg` files count.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(home("caltech256", root, folders=(FOLDER,), holds="001.*", archives="*.tar"))

    def listing(self) -> Listing:
        folders = [folder for folder in subfolders(self.path) if (found := _CLASS.fullmatch(folder.name))
                   and found[1] != "clutter"]  # fmt: skip
        return tuple(folder.name.partition(".")[2] for folder in folders), self._refs(folders)

    def _refs(self, folders: list[Path]) -> Iterator[ImageRef]:
        for label, folder in enumerate(folders):
            yield from (ImageRef(key=f"{folder.name}/{path.name}", label=label) for path in files(folder, "*.jpg"))
