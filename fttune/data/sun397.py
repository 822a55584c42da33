"""SUN397 (Xiao et al. 2010) as unpacked from SUN397.tar.gz."""

from collections.abc import Iterator
from pathlib import Path

from fttune.data.layout import FileSource, Listing, files, home, read_list
from fttune.data.readers import ImageRef, there
from fttune.errors import DataError


class Sun397(FileSource):
    """`SUN397/a/abbey/sun_aqswjsnjlrfzzhiz.jpg`, classes as ClassName.txt lists them: `/a/apartment_building/outdoor`.

    The ten official partitions (50 + 50 images per class) are not used: the paper cut its own (Table 1).
    """

    def __init__(self, root: Path) -> None:
        super().__init__(home("sun397", root, folders=("SUN397",), holds="ClassName.txt", archives="SUN397.tar.gz"))

    def listing(self) -> Listing:
        names = tuple(sorted(self._names()))
        return tuple(name.partition("/")[2] for name in names), self._refs(names)

    def _names(self) -> Iterator[str]:
        listed: set[str] = set()
        for place, line in read_list(self.path / "ClassName.txt"):
            name = line.removeprefix("/")
            if name in listed:
                raise DataError(f"{place}: a class must be listed once, but '{line:.200}' is listed before")
            listed.add(name)
            if ".." in name.split("/") or name.startswith("/"):
                raise DataError(f"{place}: a listed class must stay inside {self.path}, but got '{line:.200}'")
            if not there(self.path / name, "folder"):
                raise DataError(f"{place}: class '{line:.200}' is listed, but there is no such folder in {self.path}")
            yield name

    def _refs(self, names: tuple[str, ...]) -> Iterator[ImageRef]:
        for label, name in enumerate(names):
            found = files(self.path / name, "sun_*.jpg")
            yield from (ImageRef(key=f"{name}/{path.name}", label=label) for path in found)
