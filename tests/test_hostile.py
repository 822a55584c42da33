"""What is given by strangers is data: images, lists, weights, names and sweep files are read, never obeyed."""

import io
import os
import pickle
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fttune.backbones.weights import filled
from fttune.config import load_sweep
from fttune.data.decode import MOST_PIXELS, CorruptImageError, decode
from fttune.data.layout import inside
from fttune.data.parquet import ParquetSet
from fttune.errors import ConfigError, DataError, WeightsError
from fttune.text import inert
from fttune.tree import read_tree
from images import make_folder
from small_sweeps import database, fttune, once_each, write_sweep


def refused(*words: object) -> str:
    """The one line with which a command refuses its input, with exit code 2 and nothing on stdout."""
    done = fttune(*words)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert lines == done.stderr.splitlines()[-1:]
    assert "Traceback" not in done.stderr
    return lines[0]


def png(width: int, height: int) -> bytes:
    """A PNG of one colour, whose header says how large it is: a few kilobytes for any size."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compressobj(9)
    packed = b"".join(rows.compress(bytes(width + 1)) for _ in range(min(height, 100))) + rows.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(("width", "height"), [(50_000, 50_000), (MOST_PIXELS // 100 + 1, 100)])
def test_an_image_of_a_few_bytes_that_unpacks_to_gigabytes_is_refused_by_its_header(width: int, height: int) -> None:
    bomb = png(width, height)
    assert len(bomb) < 2_000_000
    with pytest.raises(
        CorruptImageError,
        match=rf"more than the {MOST_PIXELS:,} that are decoded|\({width * height} pixels\) exceeds limit",
    ):
        decode(bomb, 64, "crop")


def test_a_strip_that_would_be_stretched_to_gigabytes_is_refused() -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((1, 60_000, 3), np.uint8)).save(buffer, "PNG")
    with pytest.raises(CorruptImageError, match="more than the"):
        decode(buffer.getvalue(), 256, "crop")


def test_a_format_that_runs_a_program_is_not_tried() -> None:
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n(%pipe%touch /tmp/obeyed) (w) file\n"
    with pytest.raises(CorruptImageError, match="no image of a known format"):
        decode(eps, 64, "crop")


def test_files_that_are_no_images_are_named_with_the_reason_and_nothing_hangs(tmp_path: Path) -> None:
    photos = make_folder(tmp_path / "photos")
    (photos / "c0" / "empty.png").write_bytes(b"")
    (photos / "c0" / "secret.png").symlink_to("/etc/passwd")
    (photos / "c1" / "itself.png").symlink_to("itself.png")
    (photos / "c1" / "device.png").symlink_to("/dev/zero")
    os.mkfifo(photos / "c2" / "pipe.png")
    (photos / "c2" / "huge.png").touch()
    os.truncate(photos / "c2" / "huge.png", 2**30 + 1)  # takes no room on the disk
    line = refused("prepare", photos)
    assert line.startswith("error: dataset 'photos' has 6 corrupt images: c0/empty.png (the file is empty), ")
    assert "c0/secret.png (no image of a known format)" in line
    done = fttune("prepare", photos, "--skip-corrupt", "--json")
    assert done.returncode == 0, done.stderr
    assert '"left out as corrupt": 6' in done.stdout


def test_an_archive_is_not_unpacked_but_said_to_be_one(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("../escaped/1.jpg", "no image")
    assert "photos.zip must be a folder of class folders, but is a file; unpack it" in refused(
        "prepare", tmp_path / "photos.zip"
    )
    assert not (tmp_path.parent / "escaped").exists()


def test_a_dataset_of_empty_files_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        (tmp_path / "photos" / name / "1.jpg").touch()
    line = refused("prepare", tmp_path / "photos")
    assert line == (
        "error: dataset 'photos' holds no image that can be decoded: "
        "a/1.jpg (the file is empty), b/1.jpg (the file is empty)"
    )


def test_a_folder_that_is_linked_into_itself_is_walked_once(tmp_path: Path) -> None:
    photos = make_folder(tmp_path / "photos", images=2)
    (photos / "c0" / "again").symlink_to(photos)
    done = fttune("prepare", photos, "--json")
    assert done.returncode == 0, done.stderr
    assert '"images": 6' in done.stdout


def test_images_and_class_folders_may_be_links(tmp_path: Path) -> None:
    real, photos = make_folder(tmp_path / "real", images=2), tmp_path / "photos"
    photos.mkdir()
    (photos / "a").symlink_to(real / "c0")
    (photos / "b").mkdir()
    (photos / "b" / "1.png").symlink_to(real / "c1" / "000.png")
    done = fttune("prepare", photos, "--json")
    assert done.returncode == 0, done.stderr
    assert '"images": 3' in done.stdout


@pytest.mark.parametrize("inner", ["c0/caf\udce9.jpg", "caf\udce9/1.jpg"], ids=["a file", "a class"])
def test_a_name_of_another_age_than_utf_8_is_named(tmp_path: Path, inner: str) -> None:
    photos = make_folder(tmp_path / "photos")
    (photos / inner).parent.mkdir(exist_ok=True)
    (photos / inner).write_bytes(b"any")
    line = refused("prepare", photos)
    assert f"{photos}: a file name must be UTF-8, but one is b'" in line
    assert r"caf\xe9" in line


def write_rows(path: Path, count: int, labels: pa.Array) -> Path:
    """A small Parquet file, since its images are alike."""
    images = pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int8)), [b"x"])
    pq.write_table(pa.table({"image": images, "label": labels}), path, row_group_size=count)
    assert path.stat().st_size < 4_000_000
    return path


def test_a_parquet_file_of_more_rows_than_bytes_is_refused_before_they_are_read(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.parquet", 5_000_000, pa.array(np.arange(5_000_000) % 2))
    with pytest.raises(DataError, match=r"5,000,000 rows in [\d,]+ bytes: no image is that small"):
        ParquetSet(rows)


def test_labels_that_unfold_to_gigabytes_are_refused_or_kept_once(tmp_path: Path) -> None:
    long = write_rows(tmp_path / "long.parquet", 2, pa.array(["a" * 2**25, "b" * 2**25]))
    with pytest.raises(DataError, match=r"the column label unfolds to [\d,]+ bytes, which no labels take"):
        ParquetSet(long)
    names = pa.array(["a" * 2**20, "b" * 2**20])  # 90 GB if each row had its own
    often = pa.DictionaryArray.from_arrays(pa.array(np.arange(90_000) % 2), names)
    source = ParquetSet(write_rows(tmp_path / "often.parquet", 90_000, often))
    assert [ref.label for ref in source.images[:4]] == [0, 1, 0, 1]
    assert [len(name) for name in source.classes] == [2**20] * 2


@pytest.mark.parametrize("listed", ["../secret.jpg", "a/../../secret.jpg", "/etc/passwd"])
def test_a_listed_path_that_leaves_the_data_is_refused(tmp_path: Path, listed: str) -> None:
    (tmp_path / "secret.jpg").write_bytes(b"x")
    (tmp_path / "data" / "a").mkdir(parents=True)
    with pytest.raises(DataError, match=r"list\.txt, line 3: a listed path must stay inside"):
        inside(tmp_path / "data", listed, "list.txt, line 3")


class Obeyed:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, place: Path) -> None:
        self._place = place

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self._place),)


@pytest.mark.parametrize("packed", [True, False], ids=["in torch's zip", "bare"])
def test_a_pickle_where_weights_should_be_is_not_run(tmp_path: Path, packed: bool) -> None:
    weights, trap = tmp_path / "weights.pt", tmp_path / "obeyed"
    if packed:
        torch.save({"a": Obeyed(trap)}, weights)
    else:
        weights.write_bytes(pickle.dumps(Obeyed(trap)))
    sweep = write_sweep(tmp_path, data={"weights": {"tiny": str(weights)}})
    assert "weights.pt: not a whole file of torch weights" in refused("run", sweep)
    assert not trap.exists()
    assert not list(tmp_path.glob("mlflow*"))


def test_entries_of_a_weights_file_that_leave_their_folder_are_not_unpacked(tmp_path: Path) -> None:
    weights = tmp_path / "inner" / "deep" / "weights.pt"
    weights.parent.mkdir(parents=True)
    absolute = tmp_path / "absolute"
    torch.save({"a": torch.zeros(1)}, weights)
    with zipfile.ZipFile(weights, "a") as archive:
        for entry in ("../../escaped", "../escaped", str(absolute)):
            archive.writestr(entry, "x")
    with torch.device("meta"):
        outline = torch.nn.Sequential(torch.nn.Linear(2, 2))
    with pytest.raises(WeightsError):
        filled(outline, weights, lambda name: name)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["deep", "inner", "weights.pt"]


def test_yaml_makes_no_objects(tmp_path: Path) -> None:
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text(f"name: !!python/object/apply:os.mkdir [{tmp_path / 'obeyed'}]\n")
    assert "not YAML" in refused("plan", sweep)
    with pytest.raises(ConfigError):
        load_sweep(write_sweep(tmp_path), [f"name=!!python/object/apply:os.mkdir [{tmp_path / 'obeyed'}]"])
    assert not (tmp_path / "obeyed").exists()


def laughs(depth: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, depth)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (laughs(12), "more than 100,000 values"),
        ("a: " + "[" * 60 + "]" * 60, "nested more than 50 deep"),
        ("a: &a [*a]", "an alias stands inside of what it stands for"),
        (f"a: 1{'0' * 5000}", "a number of more than 100 digits"),
        ("a: 2024-13-45", "not YAML"),
        ("a: \x00", "not YAML"),
    ],
)
def test_a_small_file_that_unfolds_without_end_is_one_line(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "bomb.yaml").write_text(text)
    with pytest.raises(ConfigError, match=told) as caught:
        read_tree(tmp_path / "bomb.yaml")
    assert len(str(caught.value)) < 1000


def test_aliases_that_a_person_would_write_are_read(tmp_path: Path) -> None:
    (tmp_path / "fine.yaml").write_text("base: &base {a: 1}\none: *base\ntwo: {<<: *base, b: 2}\n")
    assert read_tree(tmp_path / "fine.yaml") == {"base": {"a": 1}, "one": {"a": 1}, "two": {"a": 1, "b": 2}}


@pytest.mark.parametrize("name", ["../../escaped", "a/b", "/escaped", "..", ".hidden", "a" * 300, "a\nb", ""])
def test_a_sweep_name_is_one_folder_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"small\.yaml: name: ") as caught:
        load_sweep(write_sweep(tmp_path).rename(tmp_path / "small.yaml"), [f"name={yaml.safe_dump(name)}"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a/b", "../mine", "/mine"])
def test_a_datasets_name_is_no_path(tmp_path: Path, name: str) -> None:
    grid = {"datasets": {name: {"path": "photos", "images_per_class": [2]}}, "backbones": ["tiny"], "random_top": [1]}
    with pytest.raises(ConfigError, match=r"grid\.datasets") as caught:
        load_sweep(write_sweep(tmp_path, grid=grid))
    assert "\n" not in str(caught.value)


def test_names_in_other_scripts_and_with_signs_of_control_go_the_whole_way(tmp_path: Path) -> None:
    photos = make_folder(tmp_path / "фото 写真")
    names = ["котёнок 🐈", "يمين", "[red]x \x1b[31mRED\x1b[0m\u202e"]
    for number, name in enumerate(names):
        (photos / f"c{number}").rename(photos / name)
    sweep = write_sweep(
        tmp_path,
        grid={
            "datasets": {"صور [bold]": {"path": photos.name, "images_per_class": [2], "val": 3, "test": 5}},
            "backbones": ["tiny"],
            "random_top": [1],
        },
    )
    done = fttune("run", sweep)
    assert done.returncode == 0, done.stderr
    assert "صور [bold]/2" in done.stderr
    once_each(database(tmp_path), 2)
    prepared = fttune("prepare", photos)
    report = fttune("report", sweep)
    for told in (done, prepared, report):
        assert not {"\x1b", "\u202e"} & set(told.stdout + told.stderr)


@given(st.text())
def test_what_a_terminal_shows_is_one_line_without_orders(text: str) -> None:
    shown = inert(text)
    assert not any(ord(sign) < 32 or 127 <= ord(sign) < 160 for sign in shown)
    assert shown.splitlines() in ([shown], [])
    shown.encode()


@given(st.text(st.characters(codec="utf-8", exclude_categories=["C", "Zl", "Zp"])))
def test_text_that_gives_no_orders_is_shown_as_it_is(text: str) -> None:
    assert inert(text) == text
