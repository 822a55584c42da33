"""Means of source images: what ships, how it is kept, and the command that computes it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fttune.backbones import catalog
from fttune.backbones.source import SourceMean, available, read_means, source_mean, write_means
from fttune.distance.metrics import cosine

COMMAND = Path(__file__).parents[1] / "benchmarks" / "source_means.py"
LITE0 = "efficientnet_lite0"


def mean(size: int, *, error: bool) -> SourceMean:
    rng = np.random.default_rng(size)
    return SourceMean(
        vector=rng.random(5, np.float32),
        images=7,
        source="somewhere",
        image_size=size,
        resize="crop",
        weights_digest="w",
        provenance="seven images",
        standard_error=rng.random(5, np.float32) if error else None,
    )


@pytest.mark.parametrize("error", [True, False])
def test_what_was_written_is_read_back(error: bool, tmp_path: Path) -> None:
    written = [mean(size, error=error) for size in (64, 32)]
    write_means(tmp_path / "new", "some", written)
    for before, after in zip(written, read_means(tmp_path / "new", "some"), strict=True):
        for name in SourceMean.__slots__:
            assert np.array_equal(getattr(before, name), getattr(after, name)), name
    assert read_means(tmp_path / "new", "other") == []


SIZES = {
    "efficientnet_lite0": (64, 96, 128, 160, 192, 224),
    "efficientnet_lite1": (128, 224, 240),
    "efficientnet_lite2": (128, 224, 260),
}


@pytest.mark.parametrize("name", sorted(SIZES))
def test_what_ships_for_a_backbone_is_of_its_weights(name: str) -> None:
    assert available(name) == SIZES[name]
    for size in available(name):
        shipped = source_mean(name, size, "crop")
        assert shipped is not None
        assert (shipped.images, shipped.source) == (1000, catalog.find(name).source)
        assert shipped.weights_digest == catalog.weights_digest(name)
        assert "random halves" in shipped.provenance
        assert shipped.standard_error is not None
        assert shipped.vector.shape == shipped.standard_error.shape == (1280,)
        assert shipped.vector.dtype == np.float32
        assert (shipped.vector >= 0).all()
        assert (shipped.standard_error >= 0).all()


def test_means_of_neighbouring_sizes_are_nearer_than_those_of_distant_ones() -> None:
    vectors = [m.vector.astype(float) for size in available(LITE0) if (m := source_mean(LITE0, size, "crop"))]
    apart = [float(cosine(vectors[-1], vector)) for vector in vectors]
    assert apart == sorted(apart, reverse=True)
    assert 0 <= apart[0] < 0.2


def test_there_is_no_mean_where_none_was_measured() -> None:
    assert source_mean(LITE0, 130, "crop") is None
    assert source_mean(LITE0, 128, "warp") is None
    assert available("tiny") == ()


def test_the_command_writes_the_mean_of_every_image(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(6):
        folder = tmp_path / "images" / f"class{number % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(256, size=(90, 80, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    command = [sys.executable, str(COMMAND), str(tmp_path / "images"), "--backbone", "tiny", "--out", str(tmp_path)]
    told = subprocess.run([*command, "--what", "noise"], capture_output=True, text=True, check=True).stdout
    means = read_means(tmp_path, "tiny")
    assert [m.image_size for m in means] == [64, 96, 128, 160, 192, 224]
    assert told.count("n = 6, two halves") == len(means)
    for m in means:
        assert (m.images, m.vector.shape, m.resize) == (6, (32,), "crop")
        assert m.provenance.startswith("noise; means of two random halves")
        assert m.weights_digest == catalog.weights_digest("tiny")
