"""The seven downloads of the paper in small: the official layouts, strays and all, filled with coloured noise.

`python tests/layouts.py DIR` writes them all into one folder, as `sweeps/smoke.yaml` wants it.
"""

import hashlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat


def paint(path: Path, *, side: tuple[int, int] = (60, 48), mode: str = "RGB", like: str | None = None) -> None:
    """An image of its own: noise around the colour of its folder, or of the class `like`, both from the names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    colour, rng = (np.random.default_rng(list(hashlib.sha256(str(name).encode()).digest()))
                   for name in (like or path.parent.name, path.name))  # fmt: skip
    pixels = np.clip(colour.uniform(30, 220, 3) + rng.normal(0, 30, (*side[::-1], 3)), 0, 255).astype(np.uint8)
    Image.fromarray(pixels).convert(mode).save(path, "PNG" if path.suffix == ".png" else "JPEG")


OBJECTS = ("ak47", "american-flag", "dog", "backpack", "baseball-bat", "bear")


def caltech256(root: Path, *, classes: int = 3, images: int = 9) -> None:
    base = root / "caltech256" / "256_ObjectCategories"
    numbered = [*enumerate(OBJECTS[:classes], start=1), (257, "clutter")]
    for number, name in numbered:
        for image in range(1, images + 1):
            paint(base / f"{number:03}.{name}" / f"{number:03}_{image:04}.jpg")
    (base / "003.dog" / "greg" / "vision309").mkdir(parents=True, exist_ok=True)
    (base / "001.ak47" / "RENAME2").write_text("a stray")


SCENES = ("abbey", "apartment_building/outdoor", "zen_garden", "bakery/shop", "beach", "canyon")


def sun397(root: Path, *, classes: int = 3, images: int = 9) -> None:
    base = root / "SUN397"
    for name in SCENES[:classes]:
        for image in range(images):
            letters = hashlib.sha256(f"{name}{image}".encode()).hexdigest()[:16]
            # Some of the release are grey.
            paint(base / name[0] / name / f"sun_{letters}.jpg", mode="L" if image == 0 else "RGB")
    (base / "ClassName.txt").write_text("".join(f"/{name[0]}/{name}\n" for name in reversed(SCENES[:classes])))
    (base / "Training_01.txt").write_text("/a/abbey/sun_of_an_official_partition.jpg\n")


ROOMS = ("airport_inside", "gameroom", "winecellar", "bakery", "bar", "bowling")


def mit67(root: Path, *, classes: int = 3, train: int = 6, test: int = 3) -> None:
    base = root / "mit67"
    lists: dict[str, list[str]] = {"TrainImages.txt": [], "TestImages.txt": []}
    for name in ROOMS[:classes]:
        for image in range(train + test + 1):
            paint(base / "Images" / name / f"{name}{image}.jpg", mode="L" if image == 1 else "RGB")
            if image < train + test:  # the last is on no list
                lists["TrainImages.txt" if image < train else "TestImages.txt"].append(f"{name}/{name}{image}.jpg")
    for name, lines in lists.items():
        (base / name).write_text("\n".join(lines) + "\n")


BIRDS = (
    "001.Black_footed_Albatross",
    "002.Laysan_Albatross",
    "003.Sooty_Albatross",
    "004.Groove_billed_Ani",
    "005.Crested_Auklet",
    "006.Least_Auklet",
)


def cub200(root: Path, *, classes: int = 3, train: int = 5, test: int = 3) -> None:
    base = root / "cub200" / "CUB_200_2011"
    images, labels, sides = [], [], []
    for label, name in enumerate(BIRDS[:classes], start=1):
        for image in range(train + test):
            paint(base / "images" / name / f"{name[4:]}_{image:04}_{label}.jpg")
            images.append(f"{name}/{name[4:]}_{image:04}_{label}.jpg")
            labels.append(label)
            sides.append(int(image < train))
    for file, values in (("images", images), ("image_class_labels", labels), ("train_test_split", sides)):
        (base / f"{file}.txt").write_text("".join(f"{i} {value}\n" for i, value in enumerate(values, start=1)))
    (base / "classes.txt").write_text("".join(f"{i} {name}\n" for i, name in enumerate(BIRDS[:classes], start=1)))


POINTS = {"CCA": 4, "cca": 2, "Turf": 5, "Sand": 5, "SAND": 1, "Macro": 1, "Off": 3, "Lepto": 5}  # in each photograph


def coral(root: Path, *, years: Sequence[int] = (2008, 2009, 2010)) -> None:
    base = root / "coral"
    for year in years:
        for quadrat in (1, 2):
            suffix = "png" if year == 2010 else "jpg"
            name = f"mcr_lter{quadrat}_out17m_pole5-6_qu3_{year}0331"
            paint(base / str(year) / f"{name}.{suffix}", side=(160, 140))
            rng = np.random.default_rng([year, quadrat])
            places = rng.permutation(160 * 140)
            labels = [label for label, count in POINTS.items() for _ in range(count)]
            lines = [f"{place // 160}; {place % 160}; {label}" for place, label in zip(places, labels, strict=False)]
            # The release names the annotation after the .jpg, whatever the photograph's suffix is.
            (base / str(year) / f"{name}.jpg.txt").write_text("# Row; Col; Label\n" + "\n".join(lines) + "\n")


PLANKTON = ("Asterionellopsis", "Chaetoceros", "mix", "Ciliate", "Corethron", "Dinobryon")


def plankton(root: Path, *, classes: int = 3, images: int = 4) -> None:
    base = root / "plankton"
    for year in (2006, 2007, 2014):
        for name in PLANKTON[:classes]:
            for image in range(images):
                paint(
                    base / str(year) / name / f"IFCB1_{year}_270_170728_{image:05}.png", side=(30 + image, 55), mode="L"
                )
    paint(base / "2014" / "rare" / "IFCB1_2014_270_170728_00001.png", mode="L")


# WordNet ids in their order, each with its number in the devkit, which numbers in another order.
SYNSETS = {"n01440764": 4, "n01443537": 2, "n01484850": 6, "n02123045": 1, "n02504458": 5, "n04086273": 3}


def imagenet(root: Path, *, train: int = 8, test: int = 2) -> None:
    """As released: flat validation images, labelled by the devkit."""
    base = root / "imagenet"
    numbers = [number for number in SYNSETS.values() for _ in range(test)]
    for name in SYNSETS:
        for image in range(train):
            paint(base / "train" / name / f"{name}_{image}.JPEG")
    names = {number: name for name, number in SYNSETS.items()}
    for image, number in enumerate(numbers, start=1):
        paint(base / "val" / f"ILSVRC2012_val_{image:08}.JPEG", side=(50 + number, 44), like=names[number])
    data = base / "ILSVRC2012_devkit_t12" / "data"
    data.mkdir(parents=True, exist_ok=True)
    (data / "ILSVRC2012_validation_ground_truth.txt").write_text("".join(f"{number}\n" for number in numbers))
    fields = [("ILSVRC2012_ID", object), ("WNID", object), ("words", object), ("num_children", object)]
    leaves = sorted((number, name, "words", 0) for name, number in SYNSETS.items())
    savemat(data / "meta.mat", {"synsets": np.array([*leaves, (7, "n00000000", "a group", 6)], dtype=fields)})


LAYOUTS: dict[str, Callable[..., None]] = {
    "caltech256": caltech256,
    "sun397": sun397,
    "mit67": mit67,
    "cub200": cub200,
    "coral": coral,
    "plankton": plankton,
    "imagenet": imagenet,
}


if __name__ == "__main__":
    for name, write in LAYOUTS.items():
        if name in ("coral", "imagenet"):
            write(Path(sys.argv[1]))
        else:
            write(Path(sys.argv[1]), classes=6)
