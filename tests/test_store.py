"""Images are decoded once, shared, rebuilt when they change, and never half-written."""

import io
import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fttune.data.decode import CorruptImageError, decode
from fttune.data.readers import FolderSource
from fttune.data.store import ImageStore, build, find_built, find_digest, open_store
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
    assert "5 corrupt images: c0/cut.png, c1/bad0.jpg, c1/bad1.jpg and 2 more" in str(error.value)
    assert "data.corrupt: skip" in str(error.value)
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
    with pytest.raises(DataError, match=r"c0/000.png and c2/zz.png are the same file"):
        built(photos, root)
    assert built(photos, root, corrupt="skip").copies == ("c2/zz.png",)


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


# Chunks of eight images; every image that is read is told of, and the process dies or goes on after some chunks.
CAREFUL = """
import os, resource, signal, sys
from pathlib import Path
from fttune.data import store
from fttune.data.readers import FolderSource
store._CHUNK = 8
photos, root, after, room, corrupt = sys.argv[1:]
class Telling(FolderSource):
    def read(self, ref):
        os.write(1, ref.key.encode() + b" ")  # in one piece, whatever other threads write
        return super().read(ref)
def progress(done, total):
    if after and done >= int(after):
        os.kill(os.getpid(), signal.SIGKILL)
if room:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(room), int(room)))
source = Telling(Path(photos))
store.build(source, name="m", size=32, resize="crop", root=Path(root), corrupt=corrupt, progress=progress)
"""


def reads(
    photos: Path, root: Path, *, after: str = "", room: str = "", corrupt: str = "refuse", first: str = ""
) -> list[str]:
    """The images that a process reads which builds the store until it dies; `first` is code that it runs before."""
    words = [sys.executable, "-c", first + CAREFUL, str(photos), str(root), after, room, corrupt]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode in ((-9,) if after or first else (0, 1)), done.stderr
    assert not room or "StoreError: no room left in" in done.stderr
    return done.stdout.split()


def outcome(root: Path) -> dict[str, bytes]:
    """Every file of a finished store; what names the source by inode is told by its content alone."""
    return {path.name: path.read_bytes() for path in root.iterdir() if not path.name.endswith(".lock")}


def test_a_killed_build_is_taken_up_where_it_died(photos: Path, root: Path, tmp_path: Path) -> None:
    keys = [ref.key for ref in FolderSource(photos).images]
    assert sorted(reads(photos, root, after="16")) == sorted(keys[:16])
    assert not list(root.glob("*.arrows"))
    told: list[int] = []
    assert sorted(reads(photos, root, after="24")) == sorted(keys[16:24])
    assert sorted(reads(photos, root)) == sorted(keys[24:])
    assert sorted(reads(photos, tmp_path / "whole")) == sorted(keys)
    assert outcome(root) == outcome(tmp_path / "whole")
    assert built(photos, root, progress=lambda done, total: told.append(done)).keys == tuple(keys)
    assert told == []


# The store's facts, its place in the index and its data take their places in this order.
DYING = """
import os, signal
from pathlib import Path
renames, replace = [], Path.replace
def dying(path, target):
    renames.append(path)
    if {after}:
        replace(path, target)
    if len(renames) == {number}:
        os.kill(os.getpid(), signal.SIGKILL)
    if not {after}:
        replace(path, target)
Path.replace = dying
"""


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_process_killed_while_it_publishes_leaves_nothing_behind(
    photos: Path, root: Path, tmp_path: Path, number: int, after: bool
) -> None:
    assert len(reads(photos, root, first=DYING.format(number=number, after=after))) == 36
    assert reads(photos, root) == []
    reads(photos, tmp_path / "whole")
    assert outcome(root) == outcome(tmp_path / "whole")


def test_what_was_begun_under_another_name_is_removed_once_it_is_of_no_use(photos: Path, root: Path) -> None:
    reads(photos, root, after="16")
    left = [path.name for path in root.glob("building-*")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fttune.data.store._CHUNK", 8)
        other = make_folder(root.parent / "other", seed=1)
        assert built(photos, root).digest != built(other, root).digest
        assert [path.name for path in root.glob("building-*")] == left
        build(FolderSource(photos), name="m", size=SIZE, resize="crop", root=root)
    assert not list(root.glob("building-*"))


def test_the_unfinished_store_of_another_folder_is_left_alone_when_a_finished_one_is_opened(
    photos: Path, root: Path
) -> None:
    other = make_folder(root.parent / "other", seed=1)
    reads(other, root)
    reads(photos, root, after="16")
    assert reads(other, root) == []
    assert len(reads(photos, root)) == 36 - 16


def test_progress_goes_on_from_what_was_done(photos: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fttune.data.store._CHUNK", 8)
    reads(photos, root, after="16")
    told: list[tuple[int, int]] = []
    build(FolderSource(photos), name="m", size=SIZE, resize="crop", root=root, progress=lambda *done: told.append(done))
    assert told == [(16, 36), (24, 36), (32, 36), (36, 36)]


def test_a_full_disk_is_one_line_and_keeps_what_was_decoded(photos: Path, root: Path, tmp_path: Path) -> None:
    # Two chunks of 8 x 32 x 32 x 3 bytes fit.
    assert len(reads(photos, root, room="60000")) == 24
    assert not list(root.glob("*.arrows"))
    assert len(reads(photos, root)) == 36 - 16
    reads(photos, tmp_path / "whole")
    assert outcome(root) == outcome(tmp_path / "whole")


def test_a_source_that_changed_since_is_decoded_anew(photos: Path, root: Path) -> None:
    reads(photos, root, after="16")
    Image.new("RGB", (40, 40), "red").save(photos / "c0" / "000.png")
    assert len(reads(photos, root)) == 36
    assert not [path for path in root.iterdir() if path.suffix in (".part", ".journal")]


def test_what_was_met_before_the_interruption_still_counts(photos: Path, root: Path, tmp_path: Path) -> None:
    (photos / "c0" / "005.png").write_bytes(b"no image")
    (photos / "c2" / "003.png").write_bytes(b"no image")
    (photos / "c2" / "zz.png").write_bytes((photos / "c0" / "000.png").read_bytes())
    reads(photos, root, after="16", corrupt="skip")
    reads(photos, root, corrupt="skip")
    store = build(FolderSource(photos), name="m", size=SIZE, resize="crop", root=root, corrupt="skip")
    assert store.skipped == ("c0/005.png", "c2/003.png")
    assert store.copies == ("c2/zz.png",)
    (photos / "c2" / "zz.png").unlink()
    reads(photos, tmp_path / "refused", after="16")
    with pytest.raises(DataError, match=r"2 corrupt images: c0/005.png, c2/003.png"):
        build(FolderSource(photos), name="m", size=SIZE, resize="crop", root=tmp_path / "refused")
    assert not list((tmp_path / "refused").glob("building-*"))


@pytest.fixture(scope="module")
def halfway(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, bytes]]:
    """Images, a store that was killed after four of five chunks, and what it would have become."""
    base = tmp_path_factory.mktemp("halfway")
    photos = make_folder(base / "photos")
    reads(photos, base / "killed", after="32")
    reads(photos, base / "whole")
    return photos, base / "killed", outcome(base / "whole")


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_whatever_is_lost_of_an_unfinished_store_the_finished_one_is_the_same(
    data: st.DataObject, halfway: tuple[Path, Path, dict[str, bytes]]
) -> None:
    photos, killed, whole = halfway
    with TemporaryDirectory() as folder:
        root = Path(folder) / "store"
        shutil.copytree(killed, root)
        path = next(root.glob(data.draw(st.sampled_from(["*.part", "*.journal"]))))
        os.truncate(path, data.draw(st.integers(0, path.stat().st_size)))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("fttune.data.store._CHUNK", 8)
            build(FolderSource(photos), name="m", size=SIZE, resize="crop", root=root)
        assert outcome(root) == whole


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_damaged_journal_costs_time_alone(data: st.DataObject, halfway: tuple[Path, Path, dict[str, bytes]]) -> None:
    photos, killed, whole = halfway
    with TemporaryDirectory() as folder:
        root = Path(folder) / "store"
        shutil.copytree(killed, root)
        path = next(root.glob("*.journal"))
        content = bytearray(path.read_bytes())
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
        path.write_bytes(content)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("fttune.data.store._CHUNK", 8)
            build(FolderSource(photos), name="m", size=SIZE, resize="crop", root=root)
        assert outcome(root) == whole


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
