"""Decoding that was interrupted is taken up where it stopped, and ends as if it never had been."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fttune.data.readers import FolderSource
from fttune.data.store import ImageStore, build
from fttune.errors import DataError
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


# Chunks of eight images; every image that is read is told of, and the process dies or goes on after some chunks.
CAREFUL = """
import os, resource, signal, sys
from pathlib import Path
from fttune.data import store
from fttune.data.readers import FolderSource
store._CHUNK = 8
photos, root, after, room, corrupt, size, name = sys.argv[1:]
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
store.build(source, name=name, size=int(size), resize="crop", root=Path(root), corrupt=corrupt, progress=progress)
"""


def reads(
    photos: Path,
    root: Path,
    *,
    after: str = "",
    room: str = "",
    corrupt: str = "refuse",
    first: str = "",
    size: int = SIZE,
    name: str = "m",
) -> list[str]:
    """The images that a process reads which builds the store until it dies; `first` is code that it runs before."""
    words = [sys.executable, "-c", first + CAREFUL, str(photos), str(root), after, room, corrupt, str(size), name]
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
    with pytest.raises(DataError, match=r"2 corrupt images: c0/005.png \(.*\), c2/003.png \(.*\);"):
        build(FolderSource(photos), name="m", size=SIZE, resize="crop", root=tmp_path / "refused")


def test_what_a_refusal_has_decoded_is_not_decoded_again(photos: Path, root: Path) -> None:
    (photos / "c2" / "003.png").write_bytes(b"no image")
    assert len(reads(photos, root)) == 36
    assert not list(root.glob("*.arrows"))
    assert reads(photos, root, corrupt="skip") == []
    assert list(root.glob("*.arrows"))
    assert not list(root.glob("building-*"))


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
