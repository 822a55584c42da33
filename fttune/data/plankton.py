"""WHOI-Plankton (Orenstein et al. 2015) as unpacked from the yearly archives 2006.zip to 2014.zip."""

from collections.abc import Iterator
from pathlib import Path

from fttune.data.layout import FileSource, Listing, home, subfolders
from fttune.data.readers import ImageRef

_YEAR = "20[0-9][0-9]"


class Plankton(FileSource):
    """`2006/Class_name/IFCB1_2006_270_170728_02023.png`, grey; a class is the same folder name in any year."""

    def __init__(self, root: Path) -> None:
        super().__init__(home("plankton", root, folders=(), holds=f"{_YEAR}/*/*.png", archives=f"{_YEAR}.zip"))

    def listing(self) -> Listing:
        folders = [folder for year in sorted(self.path.glob(_YEAR)) for folder in subfolders(year)]
        classes = tuple(sorted({folder.name for folder in folders}))
        return classes, self._refs(folders, {name: label for label, name in enumerate(classes)})

    def _refs(self, folders: list[Path], labels: dict[str, int]) -> Iterator[ImageRef]:
        for folder in folders:
            for path in folder.glob("*.png"):
                yield ImageRef(key=f"{folder.parent.name}/{folder.name}/{path.name}", label=labels[folder.name])
