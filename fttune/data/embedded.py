"""Image sets read out of installed packages, so that a first sweep needs no download."""

import gzip
import io
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from string import ascii_uppercase

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fttune.data.readers import ImageRef, Pool
from fttune.errors import DataError
from fttune.trial import seed_from


def package_folder(package: str, inside: str) -> Path:
    """A folder of an installed package, which is not imported; DataError when it is not there."""
    spec = find_spec(package)
    for root in (spec and spec.submodule_search_locations) or ():
        if (folder := Path(root) / inside).is_dir():
            return folder
    raise DataError(f"the images of {package} are not installed here: no folder {inside} in the package")


class Digits:
    """1,797 handwritten digits of 8 x 8 pixels in ten classes, from scikit-learn (UCI optical recognition, test part).

    Grey strokes on an even ground: far from photographs in every respect. No official split is known to the package.
    """

    classes = tuple("0123456789")

    @property
    def images(self) -> tuple[ImageRef, ...]:
        return self._images

    @cached_property
    def _images(self) -> tuple[ImageRef, ...]:
        labels = self._table[:, -1]
        return tuple(ImageRef(key=f"{number:04}", label=int(label)) for number, label in enumerate(labels))

    def fingerprint(self) -> str:
        return f"scikit-learn {version('scikit-learn')} digits"

    def read(self, ref: ImageRef) -> bytes:
        pixels = self._table[int(ref.key), :-1].reshape(8, 8) * (255 / 16)
        return _png(Image.fromarray(pixels.round().astype(np.uint8)))

    @cached_property
    def _table(self) -> np.ndarray:
        """float64 [1797, 65]: 64 values of 0..16, then the digit."""
        with gzip.open(package_folder("sklearn", "datasets/data") / "digits.csv.gz", "rt") as file:
            return np.loadtxt(file, delimiter=",")


# Families are kept whole: no face of a test family is ever trained on.
_TRAIN_FONTS = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique",
    "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic",
    "cmr10", "cmb10", "cmti10",
)  # fmt: skip
_TEST_FONTS = ("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta", "cmss10", "cmtt10")


class Glyphs:
    """The letters A to Z, drawn from the fonts that matplotlib ships, slightly moved, turned and scaled.

    Train (and validation) letters come from DejaVu Sans, DejaVu Serif and Computer Modern Roman, test letters from
    STIX, Computer Modern Sans and Computer Modern Typewriter: no font is on both sides. Printed letters, not writing.
    """

    classes = tuple(ascii_uppercase)
    side = 64  # pixels
    variants = 5  # drawings of each letter in each font

    @property
    def images(self) -> tuple[ImageRef, ...]:
        return self._images

    @cached_property
    def _images(self) -> tuple[ImageRef, ...]:
        pools: tuple[tuple[Pool, tuple[str, ...]], ...] = (("train", _TRAIN_FONTS), ("test", _TEST_FONTS))
        refs = [
            ImageRef(key=f"{letter}/{font}/{variant}", label=label, pool=pool)
            for pool, fonts in pools
            for font in fonts
            for label, letter in enumerate(self.classes)
            for variant in range(self.variants)
        ]
        return tuple(sorted(refs, key=lambda ref: ref.key))

    def fingerprint(self) -> str:
        return f"matplotlib {version('matplotlib')} pillow {version('pillow')} glyphs"

    def read(self, ref: ImageRef) -> bytes:
        letter, font, _ = ref.key.split("/")
        rng = np.random.default_rng(seed_from("glyph", ref.key))
        size, angle = rng.uniform(0.6, 0.85) * self.side, rng.uniform(-12, 12)
        shift = rng.uniform(-0.08, 0.08, 2) * self.side
        page = Image.new("L", (self.side, self.side), 255)
        centre = (self.side / 2 + shift[0], self.side / 2 + shift[1])
        ImageDraw.Draw(page).text(centre, letter, fill=0, font=_font(font, round(size)), anchor="mm")
        return _png(page.rotate(angle, Image.Resampling.BICUBIC, fillcolor=255))


@lru_cache(maxsize=256)
def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    folder = package_folder("matplotlib", "mpl-data/fonts/ttf")
    # The basic engine draws alike whatever text-shaping library the machine has.
    return ImageFont.truetype(folder / f"{name}.ttf", size, layout_engine=ImageFont.Layout.BASIC)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Photo:
    """A photograph inside an installed package."""

    name: str
    package: str
    file: str


_PHOTOS = (
    _Photo(name="astronaut", package="skimage", file="data/astronaut.png"),
    _Photo(name="brick", package="skimage", file="data/brick.png"),
    _Photo(name="cat", package="skimage", file="data/chelsea.png"),
    _Photo(name="coffee", package="skimage", file="data/coffee.png"),
    _Photo(name="flower", package="sklearn", file="datasets/images/flower.jpg"),
    _Photo(name="grass", package="skimage", file="data/grass.png"),
    _Photo(name="gravel", package="skimage", file="data/gravel.png"),
    _Photo(name="hubble", package="skimage", file="data/hubble_deep_field.jpg"),
    _Photo(name="motorcycle", package="skimage", file="data/motorcycle_left.png"),
    _Photo(name="palace", package="sklearn", file="datasets/images/china.jpg"),
    _Photo(name="retina", package="skimage", file="data/retina.jpg"),
    _Photo(name="tissue", package="skimage", file="data/ihc.png"),
)


class Photos:
    """Square tiles of twelve photographs that scikit-image and scikit-learn ship; a class is a photograph.

    What it is: real photographic pixels, natural and scientific, and a task of telling materials and textures apart.
    What it is not: object recognition. All tiles of a class come from one picture, so neighbours are alike and
    accuracies are higher than on independent photographs. Tiles never overlap, so train and test share no pixel.
    """

    classes = tuple(photo.name for photo in _PHOTOS)
    rows = 7  # of tiles, in the shorter direction: each photograph gives at least 49
    tiles = 60  # of each photograph, at most

    @property
    def images(self) -> tuple[ImageRef, ...]:
        return self._images

    @cached_property
    def _images(self) -> tuple[ImageRef, ...]:
        return tuple(
            ImageRef(key=f"{photo.name}/{number:02}", label=label)
            for label, photo in enumerate(_PHOTOS)
            for number in range(len(_tiles(photo, self.rows, self.tiles)))
        )

    def fingerprint(self) -> str:
        return f"scikit-image {version('scikit-image')} scikit-learn {version('scikit-learn')} photos"

    def read(self, ref: ImageRef) -> bytes:
        box = _tiles(_PHOTOS[ref.label], self.rows, self.tiles)[int(ref.key.split("/")[1])]
        return _png(_photo(_PHOTOS[ref.label]).crop(box))


@lru_cache(maxsize=len(_PHOTOS))
def _photo(photo: _Photo) -> Image.Image:
    path = package_folder(photo.package, str(Path(photo.file).parent)) / Path(photo.file).name
    return Image.open(path).convert("RGB")


@lru_cache(maxsize=len(_PHOTOS))
def _tiles(photo: _Photo, rows: int, most: int) -> list[tuple[int, int, int, int]]:
    """Boxes (left, top, right, bottom) of a regular grid, the middle of the picture first where there are too many."""
    width, height = _photo(photo).size
    side = min(width, height) // rows
    boxes = [
        (left, top, left + side, top + side)
        for top in range(0, height - side + 1, side)
        for left in range(0, width - side + 1, side)
    ]
    middle = ((width - side) / 2, (height - side) / 2)
    boxes.sort(key=lambda box: max(abs(box[0] - middle[0]) / width, abs(box[1] - middle[1]) / height))
    return sorted(boxes[:most], key=lambda box: (box[1], box[0]))


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
