"""Images are decoded once, shared, rebuilt when they change, and never half-written."""

import io
import os
import re
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

import layouts
from fttune.commands.images import prepare
from fttune.data import readers
from fttune.data.catalog import find
from fttune.data.decode import CorruptImageError, decode
from fttune.data.readers import FolderSource, ImageRef
from fttune.data.splits import make_split
from fttune.data.store import Corrupt, ImageStore, build, find_built, find_digest, open_store
from fttune.errors import DataError, StoreError
from images import make_folder

SIZE = 32


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "photos")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


def built(photos: Path, root: Path, **options: object) -> ImageStore:
    return build(FolderSource(photos), name="mine", size=SIZE, resize="crop", root=root, **options)  # pyright: ignore


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_the_store_gives_back_the_decoded_images(photos: Path, root: Path) -> None:
    store = built(photos, root)
    rows = np.array([30, 2, 2, 17])
    for row, image in zip(rows, store.images(rows), strict=True):
        content = (photos / store.keys[row]).read_bytes()
        assert np.array_equal(image, decode(content, SIZE, "crop"))
    assert store.labels.tolist() == [0] * 12 + [1] * 12 + [2] * 12
    assert store.classes == ("c0", "c1", "c2")


def test_a_second_build_reads_no_image(photos: Path, root: Path) -> None:
    built(photos, root)
    told: list[int] = []
    again = built(photos, root, progress=lambda done, total: told.append(done))
    assert told == []
    assert again.digest == find_digest(FolderSource(photos), root=root)


def test_a_source_is_looked_up_once(photos: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: dict[str, int] = {"stamp": 0, "_files": 0}

    def counted(owner: object, name: str) -> None:
        theirs = getattr(owner, name)

        def call(*words: object) -> object:
            looked[name] += 1
            return theirs(*words)

        monkeypatch.setattr(owner, name, call)

    monkeypatch.setenv("FTTUNE_STORE", str(root))
    counted(readers, "stamp")
    counted(FolderSource, "_files")
    for _ in ("decoded", "there"):
        prepare(str(photos), as_json=True)
        assert looked == {"stamp": 36, "_files": 3}
        looked |= dict.fromkeys(looked, 0)


class Noise:
    """As many images of 64 px as asked for, none of them on disk."""

    classes = ("a", "b")

    def __init__(self, count: int) -> None:
        self.images = tuple(ImageRef(key=f"{number:06}", label=number % 2) for number in range(count))

    def fingerprint(self) -> str:
        return f"noise {len(self.images)}"

    def read(self, ref: ImageRef) -> bytes:
        pixels = np.random.default_rng(int(ref.key)).integers(0, 256, (64, 64, 3), np.uint8)
        return encoded(Image.fromarray(pixels), "BMP")


def test_memory_does_not_grow_with_the_images(tmp_path: Path) -> None:
    peaks = []
    for count in (512, 2560):
        tracemalloc.start()
        build(Noise(count), name="noise", size=64, resize="warp", root=tmp_path / str(count))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    grown = (peaks[1] - peaks[0]) / (2560 - 512)
    assert grown < 64 * 64 * 3 / 4, "bytes for one more image: its name and digest, not its pixels"


def test_looking_writes_nothing(photos: Path, root: Path) -> None:
    assert find_digest(FolderSource(photos), root=root) is None
    assert find_built(FolderSource(photos), size=SIZE, resize="crop", root=root) is None
    assert not root.exists()


def test_pixels_are_mapped_not_copied(photos: Path, root: Path) -> None:
    store = built(photos, root)
    assert not any(block.flags.owndata or block.flags.writeable for block in store.pixels)


def test_the_digest_is_of_the_images_not_of_the_folder_or_the_clock(photos: Path, root: Path, tmp_path: Path) -> None:
    first = built(photos, root)
    other = photos.rename(tmp_path / "elsewhere")
    os.utime(other / "c0" / "000.png", (1, 1))
    told: list[int] = []
    assert built(other, root, progress=lambda done, total: told.append(done)).digest == first.digest
    assert told
    assert build(FolderSource(other), name="m", size=20, resize="warp", root=root).digest == first.digest


@pytest.mark.parametrize("change", ["pixels", "new", "gone", "class"])
def test_a_changed_source_is_decoded_again(photos: Path, root: Path, change: str) -> None:
    first = built(photos, root)
    target = photos / "c1" / "003.png"
    if change == "pixels":
        Image.new("RGB", (40, 40), "red").save(target)
    elif change == "new":
        Image.new("RGB", (40, 40), "red").save(photos / "c1" / "new.png")
    elif change == "gone":
        target.unlink()
    else:
        (photos / "c1").rename(photos / "c9")
    second = built(photos, root)
    assert second.digest != first.digest
    assert open_store(root=root, digest=first.digest, size=SIZE, resize="crop").digest == first.digest


def test_corrupt_images_are_named_and_counted(photos: Path, root: Path) -> None:
    whole = (photos / "c0" / "000.png").read_bytes()
    (photos / "c0" / "cut.png").write_bytes(whole[: len(whole) // 2])
    for number in range(4):
        (photos / "c1" / f"bad{number}.jpg").write_bytes(b"no image")
    with pytest.raises(DataError) as error:
        built(photos, root)
    assert re.search(
        r"5 corrupt images: c0/cut.png \(.*\), c1/bad0.jpg \(no image .*\), c1/bad1.jpg \(.*\) and 2 more",
        str(error.value),
    )
    assert "data.corrupt: skip in a sweep file or a recipe, --skip-corrupt at a command" in str(error.value)
    assert not list(root.glob("*.arrows"))
    store = built(photos, root, corrupt="skip")
    assert len(store.skipped) == 5
    assert len(store.labels) == 36


def test_exact_copies_are_left_out_so_that_none_is_trained_and_tested_on(photos: Path, root: Path) -> None:
    (photos / "c0" / "zz.png").write_bytes((photos / "c0" / "000.png").read_bytes())
    store = built(photos, root)
    assert store.copies == ("c0/zz.png",)
    assert "c0/000.png" in store.keys


def test_one_image_in_two_classes_is_refused(photos: Path, root: Path) -> None:
    (photos / "c2" / "zz.png").write_bytes((photos / "c0" / "000.png").read_bytes())
    (photos / "c1" / "zz.png").write_bytes((photos / "c0" / "001.png").read_bytes())
    with pytest.raises(DataError, match=r"the same file: c0/001.png and c1/zz.png, c0/000.png and c2/zz.png; remove"):
        built(photos, root)
    (photos / "c1" / "zz.png").unlink()
    assert built(photos, root, corrupt="skip").copies == ("c2/zz.png",)


@pytest.fixture
def rooms(tmp_path: Path) -> Path:
    """MIT67 in small: six training images and three test images in each of three classes."""
    layouts.mit67(tmp_path)
    return tmp_path / "mit67" / "Images" / "gameroom"


def copied(rooms: Path, root: Path, old: int, new: str, corrupt: Corrupt = "refuse") -> ImageStore:
    """The store once image `old` stands under the name of another too; an inode and a time of their own."""
    (rooms.parent / new).write_bytes((rooms / f"gameroom{old}.jpg").read_bytes())
    source = find("mit67", root=rooms.parents[2]).source()
    return build(source, name="mit67", size=SIZE, resize="warp", root=root, corrupt=corrupt)


def test_of_a_training_image_in_an_official_test_set_the_test_image_stays(rooms: Path, root: Path) -> None:
    store = copied(rooms, root, 2, "gameroom/gameroom7.jpg")
    assert store.copies == ("gameroom/gameroom2.jpg",)
    assert (store.pools.count("train"), store.pools.count("test")) == (17, 9)
    assert "gameroom/gameroom7.jpg" in store.keys


@pytest.mark.parametrize(("old", "new"), [(2, 3), (7, 8)])
def test_copies_on_one_side_of_an_official_split_stay_there(rooms: Path, root: Path, old: int, new: int) -> None:
    store = copied(rooms, root, old, f"gameroom/gameroom{new}.jpg")
    assert store.copies == ()
    assert (store.pools.count("train"), store.pools.count("test")) == (18, 9)
    facts = {name: getattr(store, name) for name in ("classes", "labels", "keys", "pools")}
    split = make_split(dataset="mit67", images_per_class=4, val=2, test=None, seed=0, **facts)
    assert (len(split.train), len(split.val), len(split.test)) == (12, 6, 9)


def test_a_test_image_that_is_a_training_image_of_another_class_stays_where_that_is_skipped(
    rooms: Path, root: Path
) -> None:
    with pytest.raises(DataError, match=r"same file: gameroom/gameroom7.jpg and airport_inside/airport_inside0.jpg;"):
        copied(rooms, root, 7, "airport_inside/airport_inside0.jpg")
    store = copied(rooms, root, 7, "airport_inside/airport_inside0.jpg", corrupt="skip")
    assert (store.copies, store.pools.count("test")) == (("airport_inside/airport_inside0.jpg",), 9)


BUILD = """
import sys, time
from pathlib import Path
from fttune.data.readers import FolderSource
from fttune.data.store import build
told = []
def progress(done, total):
    told.append(done)
    print("decoding", flush=True)
    time.sleep(float(sys.argv[3]))
source = FolderSource(Path(sys.argv[1]))
store = build(source, name="m", size=32, resize="crop", root=Path(sys.argv[2]), progress=progress)
print(store.digest, len(told), flush=True)
"""


def start(photos: Path, root: Path, pause: float) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", BUILD, str(photos), str(root), str(pause)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


def test_processes_that_build_at_once_do_the_work_once(photos: Path, root: Path) -> None:
    processes = [start(photos, root, 1.0) for _ in range(3)]
    last = [process.communicate()[0].split("\n")[-2].split() for process in processes]
    assert len({digest for digest, _ in last}) == 1
    assert sorted(count for _, count in last) == ["0", "0", "1"]


def test_two_folders_alike_in_names_sizes_and_times_are_two_sources(tmp_path: Path, root: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for place, folder in enumerate(folders):
        for label in ("a", "b"):
            (folder / label).mkdir(parents=True)
            path = folder / label / "1.ppm"
            Image.new("RGB", (8, 8), (place * 90, 7, ord(label))).save(path)
            os.utime(path, (1, 1))
    first, second = (built(folder, root) for folder in folders)
    assert first.digest != second.digest


def test_a_damaged_store_is_found_out_and_built_again(photos: Path, root: Path) -> None:
    store = built(photos, root)
    path = next(root.glob("*.arrows"))
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(StoreError, match="damaged"):
        open_store(root=root, digest=store.digest, size=SIZE, resize="crop")
    assert len(built(photos, root).labels) == 36


def test_a_store_cut_between_two_batches_is_found_out(
    photos: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fttune.data.store._CHUNK", 8)
    store = built(photos, root)
    path = next(root.glob("*.arrows"))
    with pa.memory_map(str(path)) as content:
        batches = pa.ipc.open_stream(content)
        batches.read_next_batch()
        batches.read_next_batch()
        end = content.tell()
    os.truncate(path, end)
    with pytest.raises(StoreError, match=r"damaged image store \(its end is missing\)"):
        open_store(root=root, digest=store.digest, size=SIZE, resize="crop")
    assert len(built(photos, root).labels) == 36


def test_a_folder_that_cannot_be_written_is_named(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FTTUNE_STORE", str(tmp_path / "file" / "store"))
    with pytest.raises(DataError, match=r"cannot write to .*file/store.*set FTTUNE_STORE to move it"):
        built(photos, tmp_path / "file" / "store")


def test_every_kind_of_image_becomes_rgb() -> None:
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    assert (decode(encoded(clear), 8, "crop") == 255).all()
    assert (decode(encoded(Image.new("L", (8, 8), 7)), 8, "crop") == 7).all()
    deep = Image.fromarray(np.full((8, 8), 0x8000, np.uint16))
    assert (decode(encoded(deep), 8, "crop") == 0x80).all()
    palette = Image.new("RGB", (8, 8), "blue").convert("P")
    assert (decode(encoded(palette), 8, "warp") == (0, 0, 255)).all()
    inks = decode(encoded(Image.new("CMYK", (8, 8)), "JPEG"), 8, "crop")
    assert (inks > 250).all()


def test_an_image_is_turned_as_its_exif_says() -> None:
    image = Image.new("RGB", (8, 8), "black")
    image.paste("white", (0, 0, 8, 4))
    exif = Image.Exif()
    exif[0x0112] = 3
    turned = decode(encoded(image, exif=exif), 8, "crop")
    assert turned[0].max() == 0
    assert turned[-1].min() == 255


def test_an_image_of_the_right_height_is_cut_at_whole_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 25, 3), np.uint8)
    assert np.array_equal(decode(encoded(Image.fromarray(pixels)), 16, "crop"), pixels[:, 4:20])


def test_garbage_is_corrupt() -> None:
    with pytest.raises(CorruptImageError):
        decode(b"garbage", 8, "crop")


@pytest.mark.parametrize("target", ["link.png", "nowhere.png"])
def test_an_image_that_cannot_be_read_is_named_as_corrupt(photos: Path, root: Path, target: str) -> None:
    (photos / "c0" / "link.png").symlink_to(target)
    with pytest.raises(DataError, match=r"1 corrupt image: c0/link.png"):
        built(photos, root)
    assert built(photos, root, corrupt="skip").skipped == ("c0/link.png",)
