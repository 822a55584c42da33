"""Each official layout is read as released, strays and all; what does not lie as it should is one clear line."""

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import layouts
from fttune.config import load_sweep
from fttune.data.catalog import DATASETS, find
from fttune.data.classes import Part, capped, half_of, large, sizes, too_small
from fttune.data.coral import Coral, _cut
from fttune.data.dataset import Dataset
from fttune.data.decode import CorruptImageError, decode
from fttune.data.imagenet import NATURAL
from fttune.data.layout import FileSource
from fttune.data.readers import Source
from fttune.errors import AbsentDataError, ConfigError, DataError
from fttune.tree import read_options


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "downloads"


def opened(name: str, root: Path, **options: Any) -> Source:
    return find(name, root=root, options=options).source()


def pools(source: Source) -> Counter[str]:
    return Counter(ref.pool for ref in source.images)


def width(path: Path) -> int:
    with Image.open(path) as image:
        return image.width


def facts(row: Dataset) -> tuple[object, ...]:
    return (row.listed or row.classes, row.classes, row.images_per_class, row.val, row.test)


def test_the_rows_are_the_table_1_of_the_paper() -> None:
    # Categories, categories used, training images per class, val, test (None: the official one).
    published = {
        "caltech256": (256, 256, (1, 10, 25, 53), 2, 25),
        "sun397": (397, 397, (1, 10, 50, 70), 2, 25),
        "mit67": (67, 67, (1, 10, 25, 75), 2, None),
        "cub200": (200, 200, (5, 20, 35), 2, None),
        "coral": (9, 8, (10, 50, 200, 450), 50, 300),
        "plankton": (103, 34, (1, 10, 300, 550), 50, 85),
        "imagenet500b": (1000, 500, (1, 10, 25, 53, 120), 20, None),
    }
    # An official training class has 29 or 30 birds, so 35 + 2 do not exist: 27 + 2 do, or a test set of our own.
    ours = {name: facts(DATASETS[name]) for name in published}
    assert ours == published | {"cub200": (200, 200, (5, 20, 27), 2, None)}
    assert facts(DATASETS["cub200_paper"]) == (200, 200, (5, 20, 35), 2, 4)
    assert [name for name in DATASETS if name in published] == list(published)
    assert sum(len(DATASETS[name].images_per_class) for name in published) == 23 + 5


def test_the_rule_for_small_classes_follows_from_the_largest_split() -> None:
    for name in ("coral", "plankton"):
        row = DATASETS[name]
        assert row.options["min_per_class"] == row.needed
        assert row.options["most_per_class"] > row.needed
    assert (DATASETS["coral"].needed, DATASETS["plankton"].needed) == (800, 685)


def test_birds_are_told_to_be_in_imagenet() -> None:
    assert "ImageNet" in DATASETS["cub200"].overlap
    assert "ImageNet" in DATASETS["cub200_paper"].overlap


def test_caltech_has_no_clutter_and_no_strays(root: Path) -> None:
    layouts.caltech256(root)
    source = opened("caltech256", root)
    assert source.classes == ("ak47", "american-flag", "dog")
    assert sizes(source) == [9, 9, 9]
    assert source.images[0].key == "001.ak47/001_0001.jpg"


def test_sun_classes_may_be_nested_and_partitions_do_not_count(root: Path) -> None:
    layouts.sun397(root)
    source = opened("sun397", root)
    assert source.classes == ("abbey", "apartment_building/outdoor", "zen_garden")
    assert sizes(source) == [9, 9, 9]
    assert pools(source) == {"any": 27}


def test_grey_images_become_rgb(root: Path) -> None:
    layouts.sun397(root)
    source = opened("sun397", root)
    pixels = [decode(source.read(ref), 32, "warp") for ref in source.images[:9]]
    assert {image.shape for image in pixels} == {(32, 32, 3)}
    assert sum(np.array_equal(image[..., 0], image[..., 2]) for image in pixels) == 1


def test_indoor_scenes_come_from_the_official_lists_alone(root: Path) -> None:
    layouts.mit67(root)
    source = opened("mit67", root)
    assert pools(source) == {"train": 18, "test": 9}
    assert not any(ref.key.endswith("9.jpg") for ref in source.images)


def test_birds_have_the_official_test_set_or_one_of_our_own(root: Path) -> None:
    layouts.cub200(root)
    official, own = opened("cub200", root), opened("cub200_paper", root)
    assert official.classes == own.classes == ("Black_footed_Albatross", "Laysan_Albatross", "Sooty_Albatross")
    assert pools(official) == {"train": 15, "test": 9}
    assert pools(own) == {"any": 24}
    assert [ref.key for ref in official.images] == [ref.key for ref in own.images]


def test_coral_labels_count_without_case_and_off_is_none(root: Path) -> None:
    layouts.coral(root)
    source = opened("coral", root, min_per_class=9)
    assert source.classes == ("cca", "sand", "turf")
    assert sizes(source) == [36, 36, 30]
    assert too_small(source) == ("macro",)
    everything = opened("coral", root, min_per_class=1, labels="all")
    assert everything.classes == ("cca", "lepto", "macro", "sand", "turf")


def test_a_coral_patch_is_cut_around_its_point(root: Path) -> None:
    layouts.coral(root)
    source = Coral(root, patch=16)
    ref = next(ref for ref in source.images if "2010" in ref.key)
    name, _, place = ref.key.partition("@")
    row, column = map(int, place.split(","))
    with Image.open(root / "coral" / name) as whole:
        photo = np.asarray(whole.convert("RGB"))
    padded = np.pad(photo, ((8, 8), (8, 8), (0, 0)), mode="reflect")
    patch = decode(source.read(ref), 16, "warp")
    np.testing.assert_array_equal(patch, padded[row : row + 16, column : column + 16])


def test_a_point_outside_its_photograph_is_no_image(root: Path) -> None:
    layouts.coral(root)
    annotation = next((root / "coral" / "2008").glob("*.txt"))
    annotation.write_text("# Row; Col; Label\n10; 10; Turf\n500; 10; Turf\n")
    source = Coral(root, patch=16)
    inside, outside = (ref for ref in source.images if annotation.name.removesuffix(".txt") in ref.key)
    assert source.read(inside)
    with pytest.raises(CorruptImageError, match="the point lies outside the photograph, 140 x 160"):
        source.read(outside)


@pytest.mark.parametrize(("row", "column"), [(0, 0), (9, 0), (4, 6), (0, 7)])
def test_a_patch_larger_than_the_photograph_is_mirrored(row: int, column: int) -> None:
    photo = np.random.default_rng(0).integers(0, 255, (10, 8, 3), np.uint8)
    padded = np.pad(photo, ((20, 20), (20, 20), (0, 0)), mode="reflect")
    np.testing.assert_array_equal(_cut(photo, row, column, 30), padded[row + 5 : row + 35, column + 5 : column + 35])


@pytest.mark.parametrize(("group", "sides"), [("photo", 6), ("quadrat", 2)])
def test_points_of_a_group_are_on_one_side(root: Path, group: str, sides: int) -> None:
    layouts.coral(root)
    source = opened("coral", root, min_per_class=1, group=group)
    of_group: dict[str, set[str]] = {}
    for ref in source.images:
        photo = ref.key.partition("@")[0]
        of_group.setdefault(photo if group == "photo" else photo.split("/")[1].rpartition("_")[0], set()).add(ref.pool)
    assert len(of_group) == sides
    assert all(len(pool) == 1 for pool in of_group.values())
    assert set(pools(source)) == {"train", "test"}


def test_an_annotated_photograph_may_be_absent_only_if_that_is_said(root: Path) -> None:
    layouts.coral(root)
    (root / "coral" / "2009" / "mcr_lter1_out17m_pole5-6_qu3_20090331.jpg").unlink()
    with pytest.raises(DataError, match=r"1 annotated photographs are not there.*20090331.*absent: skip"):
        print(opened("coral", root).classes)
    assert sum(sizes(opened("coral", root, min_per_class=1, absent="skip"))) == 90


def test_a_text_beside_the_annotations_is_of_no_photograph(root: Path) -> None:
    layouts.coral(root)
    (root / "coral" / "2009" / "readme.txt").write_text("what lies here\n")
    assert sizes(opened("coral", root, min_per_class=9)) == [36, 36, 30]


def test_an_image_that_a_list_names_twice_is_one(root: Path) -> None:
    layouts.mit67(root)
    with (root / "mit67" / "TrainImages.txt").open("a") as listed:
        listed.write("gameroom/gameroom0.jpg\n")
    assert pools(opened("mit67", root)) == {"train": 18, "test": 9}


def test_an_option_without_a_value_is_told_as_one() -> None:
    with pytest.raises(ConfigError, match="option 'patch' must read NAME=VALUE, such as most_per_class=100"):
        read_options(["patch"])


def test_a_plankton_class_is_the_same_in_every_year(root: Path) -> None:
    layouts.plankton(root)
    source = opened("plankton", root, min_per_class=9)
    assert source.classes == ("Asterionellopsis", "Chaetoceros", "mix")
    assert sizes(source) == [12, 12, 12]
    assert too_small(source) == ("rare",)


def test_imagenet_is_read_as_released_and_as_torchvision_leaves_it(root: Path) -> None:
    layouts.imagenet(root)
    flat = opened("imagenet", root)
    assert flat.classes == tuple(sorted(layouts.SYNSETS))
    assert pools(flat) == {"train": 48, "test": 12}
    # The fixture's validation images are as wide as 50 + the devkit's number of their class.
    wide = {ref.label: width(root / "imagenet" / ref.key) - 50 for ref in flat.images if ref.pool == "test"}
    assert [layouts.SYNSETS[name] for name in flat.classes] == [wide[label] for label in range(6)]
    for ref in flat.images:
        if ref.pool == "test":
            folder = root / "imagenet" / "val" / flat.classes[ref.label]
            folder.mkdir(exist_ok=True)
            (root / "imagenet" / ref.key).rename(folder / Path(ref.key).name)
    moved = opened("imagenet", root)
    assert moved.classes == flat.classes
    assert {Path(r.key).name: (r.label, r.pool) for r in flat.images} == {
        Path(r.key).name: (r.label, r.pool) for r in moved.images
    }
    shutil.rmtree(root / "imagenet" / "train" / flat.classes[0])
    with pytest.raises(DataError, match=f"train and val must hold the same classes, but .* {flat.classes[0]}"):
        print(opened("imagenet", root).classes)


def colour(source: Source, label: int, pool: str) -> np.ndarray:
    """The mean colour of the images of a class and a pool, float [3]."""
    refs = [ref for ref in source.images if (ref.label, ref.pool) == (label, pool)]
    return np.mean([decode(source.read(ref), 32, "warp").mean((0, 1)) for ref in refs], axis=0)


def test_the_made_test_images_of_imagenet_look_like_their_classes(root: Path) -> None:
    layouts.imagenet(root)
    source = opened("imagenet", root)
    train, test = (np.array([colour(source, label, pool) for label in range(6)]) for pool in ("train", "test"))
    nearest = np.linalg.norm(test[:, None] - train, axis=2).argmin(1)
    assert nearest.tolist() == list(range(6))


def test_the_halves_of_imagenet_are_those_of_yosinski() -> None:
    thousand = Listed([f"n{number:08}" for number in range(1000) for _ in range(1)])
    a, b = half_of(thousand, "a"), half_of(thousand, "b")
    numbers = [int(name[1:]) for name in a.classes]
    # convnet_transfer's half0A starts so; RandomState(0) without the list would start 1, 2, 5, 6, 8, 10.
    assert numbers[:12] == [0, 1, 2, 5, 9, 10, 15, 16, 17, 19, 20, 22]
    assert len(a.classes) == len(b.classes) == 500
    assert set(a.classes) | set(b.classes) == set(thousand.classes)
    assert [ref.label for ref in b.images] == list(range(500))
    assert half_of(thousand, "a", seed=1).classes != a.classes


def test_natural_and_man_made_classes_are_449_and_551(root: Path) -> None:
    assert len(NATURAL) == 449
    assert (DATASETS["imagenet_natural"].classes, DATASETS["imagenet_man_made"].classes) == (449, 551)
    layouts.imagenet(root)
    with pytest.raises(DataError, match="the split by kind is of 1000 classes, but 6 are there"):
        print(opened("imagenet_natural", root).classes)
    for number in range(1000):
        for side in ("train", "val"):
            folder = root / "imagenet" / side / f"n{number:08}"
            folder.mkdir(parents=True)
            (folder / f"n{number:08}_1.JPEG").write_bytes(b"")
    for path in [
        *(root / "imagenet" / "val").glob("*.JPEG"),
        *map((root / "imagenet" / "train").joinpath, layouts.SYNSETS),
    ]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    natural, man_made = opened("imagenet_natural", root), opened("imagenet_man_made", root)
    assert (len(natural.classes), len(man_made.classes)) == (449, 551)
    assert (natural.classes[397], natural.classes[398]) == ("n00000397", "n00000936")
    assert not set(natural.classes) & set(man_made.classes)


class Listed:
    """Images that are only names of classes; one with a mark, and all of `t`, are official test images."""

    def __init__(self, names: list[str]) -> None:
        from fttune.data.readers import ImageRef

        told = [name.rstrip("!") for name in names]
        self.classes = tuple(sorted(set(told)))
        self.images = tuple(
            ImageRef(
                key=f"{number:06}",
                label=self.classes.index(told[number]),
                pool="test" if name == "t" or name.endswith("!") else "any",
            )
            for number, name in enumerate(names)
        )

    def fingerprint(self) -> str:
        return str(self.images)

    def read(self, ref: object) -> bytes:
        return b""


def test_a_cap_keeps_the_same_images_whatever_else_is_there() -> None:
    few, more = Listed(["a", "b"] * 20), Listed(["a", "b"] * 20 + ["b"] * 50)
    kept = [{ref.key for ref in capped(source, 10).images if ref.label == 0} for source in (few, more)]
    assert kept[0] == kept[1]
    assert len(kept[0]) == 10
    assert {ref.key for ref in capped(few, 5).images} < {ref.key for ref in capped(few, 10).images}


def test_a_cap_leaves_the_official_test_set_whole() -> None:
    assert sizes(capped(Listed(["a"] * 9 + ["t"] * 30), 5)) == [5, 30]


def test_a_cap_leaves_of_an_official_test_set_what_is_asked_of_it() -> None:
    part = capped(Listed(["a"] * 9 + ["a!"] * 20 + ["t"] * 30), 5, test=7)
    assert sizes(part) == [5 + 7, 7]
    assert sum(ref.pool == "test" for ref in part.images) == 14


def test_a_class_is_large_enough_on_both_sides_of_an_official_test_set() -> None:
    enough, few, untested = ["a"] * 20 + ["a!"] * 10, ["b"] * 19 + ["b!"] * 30, ["c"] * 90 + ["c!"] * 9
    source = Listed([*enough, *few, *untested, *["d"] * 20, *["d!"] * 10])
    part = large(source, 30, test=10)
    assert (part.classes, part.too_small) == (("a", "d"), ("b", "c"))
    assert large(source, 20).classes == ("a", "c", "d")
    assert large(Listed(["a"] * 30 + ["b"] * 29 + ["c"] * 30), 30, test=10).classes == ("a", "c")


def test_a_part_changes_with_its_whole_and_with_what_is_taken() -> None:
    few, more = Listed(["a", "b", "c", "d"] * 20), Listed(["a", "b", "c", "d"] * 21)
    prints = {
        part.fingerprint()
        for part in (capped(few, 5), capped(few, 6), capped(more, 5), half_of(few, "a"), half_of(few, "b"))
    }
    assert len(prints) == 5
    with pytest.raises(DataError, match="at least two classes must have 99 images, but the two largest have 20 and 20"):
        large(few, 99)


def write(path: str, text: str) -> Callable[[Path], object]:
    return lambda root: (root / path).write_text(text)


def remove(path: str) -> Callable[[Path], object]:
    def change(root: Path) -> None:
        found = next(root.glob(path))
        shutil.rmtree(found) if found.is_dir() else found.unlink()

    return change


def empty(path: str) -> Callable[[Path], object]:
    return lambda root: [remove(path)(root), (root / path).mkdir()]


BIRDS, DEVKIT = "cub200/CUB_200_2011", "imagenet/ILSVRC2012_devkit_t12/data"


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        (
            "caltech256",
            remove("caltech256"),
            r"no caltech256 under .*: looked for 001\.\* in it and in caltech256, 256_",
        ),
        ("caltech256", empty("caltech256/256_ObjectCategories/003.dog"), "003.dog holds no image"),
        (
            "sun397",
            write("SUN397/ClassName.txt", "/a/abbey\n/../x\n"),
            r"line 2: a listed class must stay inside .*/\.\./x",
        ),
        (
            "sun397",
            write("SUN397/ClassName.txt", "/a/abey\n"),
            "line 1: class '/a/abey' is listed, but there is no such",
        ),
        (
            "sun397",
            write("SUN397/ClassName.txt", "/a/abbey\n/z/zen_garden\n/a/abbey\n"),
            "line 3: a class must be listed once, but '/a/abbey' is listed before",
        ),
        (
            "mit67",
            remove("mit67/TestImages.txt"),
            "TestImages.txt: cannot read this list of the official download: No such",
        ),
        (
            "mit67",
            write("mit67/TestImages.txt", "gameroom/none.jpg"),
            "line 1: 'gameroom/none.jpg' is listed, but there is",
        ),
        (
            "mit67",
            write("mit67/TestImages.txt", "../../x.jpg"),
            r"line 1: a listed path must stay inside .*/\.\./x.jpg'",
        ),
        (
            "mit67",
            write("mit67/TestImages.txt", "/etc/passwd"),
            "line 1: a listed path must stay inside .*'/etc/passwd'",
        ),
        (
            "cub200",
            write(f"{BIRDS}/images.txt", "1 001.Black_footed_Albatross/Black_footed_Albatross_0000_1.jpg\n"),
            "images.txt: has no image 2, which the other lists have",
        ),
        (
            "mit67",
            write("mit67/TestImages.txt", "gameroom/gameroom0.jpg"),
            "an image must be on one list, but gameroom/gameroom0.jpg is on both",
        ),
        (
            "mit67",
            write("mit67/TestImages.txt", "gameroom/gameroom7.jpg"),
            "a class must be on both lists, but 'airport_inside' is on one alone",
        ),
        (
            "cub200",
            write(f"{BIRDS}/train_test_split.txt", "1 1\n"),
            "image 2: must have a class and a side of the split",
        ),
        ("cub200", write(f"{BIRDS}/images.txt", "a b\n"), "line 1: must read '<number> <value>', but got 'a b'"),
        (
            "coral",
            write("coral/2008/mcr_lter1_out17m_pole5-6_qu3_20080331.jpg.txt", "1; 2\n"),
            "<row>; <column>; <label>",
        ),
        ("imagenet", remove("imagenet/val"), "val must hold ILSVRC2012's"),
        ("imagenet", remove("imagenet/train/n01440764"), "train must hold the classes of .* only one .* has n01440764"),
        ("imagenet", remove("imagenet/val/*7.JPEG"), "must hold the 12 images that .* labels, but holds 11"),
        ("imagenet", write(f"{DEVKIT}/meta.mat", "x"), "not the class table of the ILSVRC2012 devkit"),
    ],
)
def test_what_does_not_lie_as_released_is_one_line(
    root: Path, name: str, change: Callable[[Path], object], says: str
) -> None:
    layouts.LAYOUTS[name](root)
    change(root)
    with pytest.raises(DataError, match=says) as error:
        print(len(opened(name, root).images))
    assert "\n" not in str(error.value)


def test_an_archive_that_is_not_unpacked_is_named(root: Path) -> None:
    root.mkdir()
    (root / "CUB_200_2011.tgz").write_bytes(b"")
    with pytest.raises(AbsentDataError, match=r"unpack .*CUB_200_2011.tgz there first"):
        opened("cub200", root)


def test_a_root_is_needed_and_may_come_from_the_environment(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FTTUNE_DATA", raising=False)
    with pytest.raises(AbsentDataError, match=r"give --data-root DIR, data.root in the sweep file, or FTTUNE_DATA"):
        find("mit67").source()
    with pytest.raises(AbsentDataError, match="there is no such folder"):
        opened("mit67", root)
    layouts.mit67(root)
    monkeypatch.setenv("FTTUNE_DATA", str(root))
    assert len(find("mit67").source().images) == 27


@pytest.mark.parametrize("inner", ["", "caltech256", "caltech256/256_ObjectCategories"])
def test_a_root_may_be_the_download_itself(root: Path, inner: str) -> None:
    layouts.caltech256(root)
    assert len(opened("caltech256", root / inner).images) == 27


def files_of(name: str, root: Path, **options: Any) -> set[Path]:
    """The files that a dataset takes its images from."""
    source = opened(name, root, **options)
    whole = source
    while isinstance(whole, Part):
        whole = whole.whole
    assert isinstance(whole, FileSource)
    return {whole.file_of(ref) for ref in source.images}


@pytest.mark.parametrize("name", ["paper", "smoke", "yosinski"])
def test_no_image_is_source_and_target_of_one_measurement(root: Path, name: str) -> None:
    """A classifier that is to tell source from target would be tested on images it was trained on."""
    sweep = load_sweep(Path(__file__).parents[1] / "sweeps" / f"{name}.yaml")
    for write in layouts.LAYOUTS.values():
        write(root)
    source = files_of(sweep.distance.source or "", root)
    assert source
    for target in sweep.grid.datasets:
        small = {"min_per_class": 9} if target in ("coral", "plankton") else {}
        assert not files_of(target, root, **small) & source, target


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"ptch": 3}, "dataset 'coral': unknown option 'ptch'; did you mean 'patch'?"),
        ({"patch": 2}, "patch must be a whole number from 8, but got 2"),
        ({"patch": "wide"}, "patch must be a whole number from 8, but got 'wide'"),
        ({"group": "phto"}, "unknown group 'phto'; did you mean 'photo'?"),
        ({"half": "c"}, "unknown half 'c'; known: a, b"),
        ({"most_per_class": 0}, "most_per_class must be a whole number from 1, but got 0"),
    ],
)
def test_an_option_that_is_none_is_one_line(root: Path, options: dict[str, Any], says: str) -> None:
    layouts.coral(root)
    with pytest.raises(DataError, match=says.replace("?", r"\?")):
        print(opened("coral", root, **({"min_per_class": 1} | options)).classes)


def test_a_changed_file_changes_the_fingerprint(root: Path) -> None:
    layouts.coral(root)
    before = opened("coral", root, min_per_class=1).fingerprint()
    assert opened("coral", root, min_per_class=1, patch=32).fingerprint() != before
    photo = next((root / "coral" / "2008").glob("*.jpg"))
    photo.write_bytes(photo.read_bytes() + b" ")
    assert opened("coral", root, min_per_class=1).fingerprint() != before
