"""The contract of every dataset, and what a folder must be to be one."""

import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fttune.data.catalog import DATASETS, find, folder
from fttune.data.embedded import Photos, _photo, _tiles
from fttune.data.readers import FolderSource, Source
from fttune.data.splits import make_split
from fttune.errors import DataError
from images import make_folder
from layouts import LAYOUTS

# What is as on disk in the fixtures, but for sizes: rules that need a thousand classes or hundreds of images.
SMALL = {"coral": {"min_per_class": 9, "patch": 32}, "plankton": {"min_per_class": 9}}
KIND_OF_A_THOUSAND = {"imagenet_natural", "imagenet_man_made"}
names = pytest.mark.parametrize("name", sorted(DATASETS.keys() - KIND_OF_A_THOUSAND))


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("downloads")
    for write in LAYOUTS.values():
        write(root)
    return root


def opened(name: str, root: Path) -> Source:
    return find(name, root=root, options=SMALL.get(name)).source()


@names
def test_a_source_keeps_its_contract(name: str, downloads: Path) -> None:
    source, again = opened(name, downloads), opened(name, downloads)
    keys = [ref.key for ref in source.images]
    assert keys == sorted(set(keys))
    assert {ref.label for ref in source.images} == set(range(len(source.classes)))
    assert len(set(source.classes)) == len(source.classes) >= 2
    assert source.fingerprint() == again.fingerprint()
    for ref in source.images[:: max(1, len(keys) // 7)]:
        content = source.read(ref)
        assert content == again.read(ref)
        with Image.open(io.BytesIO(content)) as image:
            assert min(image.size) >= 8


@names
def test_a_row_says_what_it_is(name: str) -> None:
    row = DATASETS[name]
    assert row.name == name
    assert row.images_per_class == tuple(sorted(set(row.images_per_class)))
    assert row.rooted == (row.images is not None)
    assert (row.listed or row.classes) >= row.classes


@pytest.mark.parametrize("name", sorted(name for name, row in DATASETS.items() if not row.rooted))
def test_the_usual_splits_fit(name: str) -> None:
    row = find(name)
    source = row.source()
    assert row.classes == len(source.classes)
    split = make_split(
        dataset=name,
        classes=source.classes,
        labels=np.array([ref.label for ref in source.images]),
        keys=[ref.key for ref in source.images],
        pools=[ref.pool for ref in source.images],
        images_per_class=max(row.images_per_class),
        val=row.val,
        test=row.test,
        seed=0,
    )
    assert len(split.train) == max(row.images_per_class) * row.classes
    assert len(split.test) >= 10 * row.classes


def test_no_font_of_the_test_letters_is_trained_on() -> None:
    fonts: dict[str, set[str]] = {"train": set(), "test": set()}
    for ref in find("glyphs").source().images:
        fonts[ref.pool].add(ref.key.split("/")[1])
    assert fonts["train"]
    assert fonts["test"]
    families = [{font.split("-")[0].rstrip("0123456789") for font in side} for side in fonts.values()]
    assert not families[0] & families[1]


def test_tiles_of_a_photograph_share_no_pixel() -> None:
    from fttune.data.embedded import _PHOTOS

    for photo in _PHOTOS:
        covered = np.zeros(_photo(photo).size, int)
        for left, top, right, bottom in _tiles(photo, Photos.rows, Photos.tiles):
            covered[left:right, top:bottom] += 1
        assert covered.max() == 1


def test_letters_of_a_font_differ_from_drawing_to_drawing() -> None:
    source = find("glyphs").source()
    drawn = Counter(source.read(ref) for ref in source.images if ref.key.startswith("A/DejaVuSans/"))
    assert len(drawn) == 5


def test_a_folder_of_class_folders_is_a_dataset(tmp_path: Path) -> None:
    make_folder(tmp_path, classes=2, images=3)
    (tmp_path / "c0" / "deeper").mkdir()
    (tmp_path / "c0" / "000.png").rename(tmp_path / "c0" / "deeper" / "000.PNG")
    (tmp_path / "c0" / ".hidden.png").write_bytes(b"")
    (tmp_path / "c0" / "notes.txt").write_text("no image")
    (tmp_path / ".git").mkdir()
    row = folder("mine", tmp_path)
    assert (row.classes, row.val, row.test) == (2, 5, 10)
    keys = [ref.key for ref in row.source().images]
    assert sorted(keys[:3]) == ["c0/001.png", "c0/002.png", "c0/deeper/000.PNG"]
    assert [ref.label for ref in row.source().images] == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda root: None, "must hold one folder per class, but holds none"),
        (lambda root: (root / "a.jpg").write_bytes(b""), "it holds images: move them into one folder per class"),
        (lambda root: make_folder(root, classes=1), "must hold at least two class folders, but holds only 'c0'"),
        (lambda root: [make_folder(root, classes=2), (root / "x").mkdir()], "x holds no image"),
    ],
)
def test_a_folder_that_is_no_dataset_is_told_why(tmp_path: Path, change: object, says: str) -> None:
    change(tmp_path)  # pyright: ignore[reportCallIssue]
    with pytest.raises(DataError, match=says):
        print(len(FolderSource(tmp_path).images))


def test_a_missing_folder_and_a_file_are_no_datasets(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        FolderSource(tmp_path / "none")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="is a file"):
        FolderSource(tmp_path / "file")


def test_an_unknown_name_is_told_the_nearest() -> None:
    with pytest.raises(DataError, match="did you mean 'digits'"):
        find("digts")
