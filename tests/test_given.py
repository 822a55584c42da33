"""Sets without a row: torchvision's, Hugging Face's and Parquet files are read through the same store."""

from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from torchvision.datasets import FakeData

from fttune.data.catalog import DATASETS, find
from fttune.data.dataset import Dataset, kept
from fttune.data.decode import decode
from fttune.data.given import given
from fttune.data.parquet import ParquetSet
from fttune.data.store import build
from fttune.data.torchvision_set import download
from fttune.errors import AbsentDataError, DataError
from images import png, write_parquet

FAKE = {"size": 40, "num_classes": 3, "image_size": [3, 20, 20]}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set with three splits, as `save_to_disk` leaves it."""
    from datasets import ClassLabel, DatasetDict, Features
    from datasets import Dataset as HuggingFace
    from datasets import Image as ImageFeature

    features = Features({"img": ImageFeature(), "fine": ClassLabel(names=["x", "y"])})
    path = tmp_path_factory.mktemp("hf") / "saved"
    DatasetDict(
        {
            split: HuggingFace.from_dict(
                {"img": [{"bytes": png((row, place * 80, 9)), "path": None} for row in range(6)], "fine": [0, 1] * 3},
                features=features,
            )
            for place, split in enumerate(("train", "validation", "test"))
        }
    ).save_to_disk(path)
    return path


def first_image(row: Dataset) -> bytes:
    source = row.source()
    return source.read(source.images[0])


def stored(row: Dataset, root: Path) -> Any:
    return build(row.source(), name=row.name, size=16, resize="warp", root=root)


def test_a_set_of_torchvision_is_a_dataset(tmp_path: Path) -> None:
    row = given("fake", "torchvision:FakeData", root=tmp_path, options=FAKE)
    assert (row.classes, row.val, row.test) == (3, 5, 10)
    store = stored(row, tmp_path / "store")
    theirs = [FakeData(40, (3, 20, 20), 3)[index] for index in range(40)]
    assert store.labels.tolist() == [label for _, label in theirs]
    source = row.source()
    for ref, (image, _) in zip(source.images, theirs, strict=True):
        np.testing.assert_array_equal(decode(source.read(ref), 20, "warp"), np.asarray(image))


def test_the_official_parts_of_a_set_of_torchvision_are_kept(tmp_path: Path) -> None:
    # USPS is one text file in libsvm's form for each part, compressed; these are two of our own.
    import bz2

    lines = [f"{label} " + " ".join(f"{place}:{label / 5 - 1:.2f}" for place in range(1, 257)) for label in (1, 2, 3)]
    for name, count in (("usps.bz2", 2), ("usps.t.bz2", 1)):
        (tmp_path / name).write_bytes(bz2.compress("\n".join(lines * count).encode()))
    from torchvision.datasets import USPS

    assert [len(USPS(str(tmp_path), train=train)) for train in (True, False)] == [6, 3]
    row = given("usps", "torchvision:USPS", root=tmp_path)
    assert (row.classes, row.test) == (3, None)
    assert [ref.pool for ref in row.source().images] == ["test"] * 3 + ["train"] * 6


@pytest.mark.parametrize(
    ("target", "options", "says"),
    [
        ("torchvision:CIFAR11", {}, r"unknown set of torchvision 'CIFAR11'; did you mean 'CIFAR10'\?"),
        ("torchvision:FakeData", {"sz": 3}, "does not take these options"),
        ("torchvison:CIFAR10", {}, r"unknown kind of dataset 'torchvison'; did you mean 'torchvision'\?"),
        ("parquet:bad.parquet", {}, "bad.parquet: not a Parquet file"),
        ("parquet:good.parquet", {"label": "lable"}, r"unknown column 'lable'; did you mean 'label'\?"),
        ("parquet:good.parquet", {"image": "label"}, "row 0: label must hold the bytes of an image"),
        ("parquet:good.parquet", {"imgae": "x"}, r"unknown option 'imgae'; did you mean 'image'\?"),
        ("parquet:none.parquet", {"split": "split"}, "no Parquet file none.parquet"),
        ("parquet:odd.parquet", {}, r"unknown value of the column split 'tset'; did you mean 'test'\?"),
        ("parquet:half.parquet", {}, "a label is a whole number or a name, but that column holds double"),
        ("parquet:gap.parquet", {}, "every row must have a label, and two must differ"),
    ],
)
def test_what_is_no_such_set_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, options: dict[str, Any], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.parquet").write_bytes(b"PAR1 not")
    write_parquet(Path("good.parquet"))
    write_parquet(Path("odd.parquet"), split=["tset"] * 30)
    write_parquet(Path("half.parquet"), label=[0.5, 1.5] * 15)
    write_parquet(Path("gap.parquet"), label=[None, *"ab" * 14, "a"])
    with pytest.raises(DataError, match=says) as error:
        print(first_image(given("x", target, root=tmp_path, options=options)))
    assert "\n" not in str(error.value)


def test_a_set_that_is_not_here_says_how_to_fetch_it(tmp_path: Path) -> None:
    row = given("mine", "torchvision:CIFAR10", root=tmp_path)
    assert (row.classes, row.val, row.test) == (0, 5, 10)
    with pytest.raises(
        AbsentDataError, match=r"fttune prepare torchvision:CIFAR10 --data-root .* --download fetches it"
    ):
        row.source()


def test_a_parquet_file_is_a_dataset(tmp_path: Path) -> None:
    row = given("mine", write_parquet(tmp_path / "a.parquet"))
    source = row.source()
    assert source.classes == ("ape", "cat", "dog")
    assert [ref.label for ref in source.images[:4]] == [1, 0, 2, 1]
    for number in (29, 0, 13, 14, 6, 7):  # on either side of the edges of row groups
        assert source.read(source.images[number]) == png((number * 5, 0, 255 - number))


@pytest.mark.parametrize("group", [7, 100, 1000])
def test_the_rows_of_a_parquet_file_are_read_in_any_order(tmp_path: Path, group: int) -> None:
    table = pa.table({"image": [b"%d" % row for row in range(1000)], "label": [0, 1] * 500})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=group)
    source = ParquetSet(tmp_path / "a.parquet")
    order = [*range(0, 1000, 3), 999, 0, 500, *range(640, 500, -1), *range(1000)]
    assert [source.read(source.images[row]) for row in order] == [b"%d" % row for row in order]


def test_parquet_as_hugging_face_writes_it_has_structs_and_splits(tmp_path: Path) -> None:
    images = [{"bytes": png((row, 0, 0)), "path": f"{row}.png"} for row in range(30)]
    splits = ["train", "validation", "test"] * 10
    row = given("mine", write_parquet(tmp_path / "a.parquet", image=images, split=splits, label=[0, 1, 1] * 10))
    source = row.source()
    assert (source.classes, row.test) == (("0", "1"), None)
    assert [ref.pool for ref in source.images[:3]] == ["train", "train", "test"]
    assert source.read(source.images[4]) == png((4, 0, 0))


def test_a_set_of_hugging_face_is_a_dataset(tmp_path: Path, saved: Path) -> None:
    row = given("mine", f"hf:{saved}")
    source = row.source()
    assert (source.classes, row.test) == (("x", "y"), None)
    assert {ref.key.split("/")[0]: ref.pool for ref in source.images} == {
        "test": "test", "train": "train", "validation": "train",
    }  # fmt: skip
    assert source.read(source.images[1]) == png((1, 160, 9))
    assert stored(row, tmp_path).labels.tolist() == [0, 1] * 9
    assert source.fingerprint() == given("mine", f"hf:{saved}").source().fingerprint()
    with pytest.raises(DataError, match=r"unknown column 'coarse'; known: fine, img"):
        given("mine", f"hf:{saved}", options={"label": "coarse"})


def test_to_another_machine_goes_how_a_set_is_opened_and_not_what_was_read_here(tmp_path: Path, saved: Path) -> None:
    rows = [
        given("rows", write_parquet(tmp_path / "rows.parquet")),
        given("fake", "torchvision:FakeData", options=FAKE),
        given("saved", f"hf:{saved}", options={"image": "img", "label": "fine"}),
        given("half", write_parquet(tmp_path / "half.parquet", label=list("abcde" * 6)), options={"half": "a"}),
        *(kept(find(name)) for name, row in DATASETS.items() if not row.rooted),
    ]
    for row in rows:
        keys = [ref.key for ref in row.source().images]
        sent = cloudpickle.dumps(row)
        assert len(sent) < 3000, row.name
        there = cloudpickle.loads(sent)
        assert [ref.key for ref in there.source().images] == keys
        assert first_image(there) == first_image(row)


@pytest.mark.parametrize("name", ["USPS", "SEMEION", "QMNIST"])
def test_a_set_is_looked_for_and_never_fetched_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def fetch(*_: object, **__: object) -> None:
        raise AssertionError("nobody asked for a download")

    monkeypatch.setattr("urllib.request.urlopen", fetch)
    with pytest.raises(AbsentDataError, match=f"torchvision:{name} under .* --download fetches it"):
        given("mine", f"torchvision:{name}", root=tmp_path).source()


def test_what_torchvision_cannot_fetch_is_not_said_to_be_fetched(tmp_path: Path) -> None:
    with pytest.raises(AbsentDataError, match=f"torchvision cannot fetch it, so put it under {tmp_path} by hand$"):
        given("mine", "torchvision:ImageNet", root=tmp_path).source()
    with pytest.raises(DataError, match="torchvision cannot download ImageNet: its licence"):
        download("ImageNet", tmp_path)


def test_a_set_that_reads_no_files_needs_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FTTUNE_DATA", raising=False)
    row = given("fake", "torchvision:FakeData", options=FAKE)
    assert (row.classes, len(row.source().images)) == (3, 40)
    with pytest.raises(AbsentDataError, match="give --data-root DIR"):
        given("mine", "torchvision:CIFAR10").source()


def test_the_images_of_a_set_are_opened_once_for_their_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[int] = []
    theirs = FakeData.__getitem__
    monkeypatch.setattr(FakeData, "__getitem__", lambda self, index: (opened.append(index), theirs(self, index))[1])
    given("fake", "torchvision:FakeData", root=tmp_path, options=FAKE)
    assert len(opened) == FAKE["size"]


def save_hugging_face(path: Path, labels: dict[str, list[int | None]], first: object = None) -> str:
    from datasets import ClassLabel, DatasetDict, Features
    from datasets import Dataset as HuggingFace
    from datasets import Image as ImageFeature

    features = Features({"image": ImageFeature(), "label": ClassLabel(names=["x", "y"])})
    images = [first, *({"bytes": png((row, 0, 9)), "path": None} for row in range(1, 4))]
    DatasetDict(
        {name: HuggingFace.from_dict({"image": images, "label": given}, features) for name, given in labels.items()}
    ).save_to_disk(path)
    return f"hf:{path}"


def test_a_split_of_hugging_face_without_labels_is_no_test_set(tmp_path: Path) -> None:
    row = given("mine", save_hugging_face(tmp_path / "a", {"train": [0, 1, 0, 1], "test": [-1] * 4}))
    assert [(ref.key, ref.pool) for ref in row.source().images[:1]] == [("train/000000000", "any")]
    assert (len(row.source().images), row.test) == (4, 10)
    with pytest.raises(DataError, match="every example must have a label, but row 2 of test has none"):
        given("mine", save_hugging_face(tmp_path / "b", {"train": [0, 1, 0, 1], "test": [0, 1, None, 1]}))


def test_an_example_of_hugging_face_without_an_image_is_named_as_corrupt(tmp_path: Path) -> None:
    row = given("mine", save_hugging_face(tmp_path / "a", {"train": [0, 1, 0, 1]}))
    with pytest.raises(DataError, match="1 corrupt image: train/000000000"):
        stored(row, tmp_path / "store")


def test_half_of_the_classes_of_any_set_is_a_set(tmp_path: Path) -> None:
    target = write_parquet(tmp_path / "a.parquet", label=list("abcde" * 6))
    a, b = (given("mine", target, options={"half": half}).source() for half in "ab")
    assert sorted(a.classes + b.classes) == list("abcde")
    assert (len(a.classes), len(a.images), len(b.images)) == (2, 12, 18)
