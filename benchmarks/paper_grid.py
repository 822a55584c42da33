"""The paper's whole grid, 138 trials of CaffeNet, on made images in the sizes of its Table 1.

    PYTHONPATH=tests uv run python benchmarks/paper_grid.py FOLDER [--steps 2000] [--classes N] [KEY.PATH=VALUE ...]

Writes a Parquet file of 256 x 256 JPEGs for each of the six datasets (as many classes, and images of each class, as the
largest split takes with val and test) and a CaffeNet with made weights into FOLDER, once; then runs the sweep with the
paper's profile from an empty store, cache and tracker, and prints the seconds of writing, of the run, and of its parts
as the runs tell them. The images show a coarse pattern of their class under noise: accuracies mean nothing.
`--classes` keeps the first classes of each dataset and `--steps` fewer steps, to try it where there is no GPU.
"""

import argparse
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from caffe import caffemodel, caffenet
from fttune.data.catalog import DATASETS
from fttune.data.dataset import Dataset
from fttune.tracking.runs import Tracker

NAMES = ("caltech256", "sun397", "mit67", "cub200", "coral", "plankton")
OFFICIAL = {"mit67": 20, "cub200": 29}  # test images of a class, about, where the official test set is the test set
SIDE, ROWS = 256, 512  # pixels; images that are held at once


def main() -> None:
    """Write what is missing, run the grid, print what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--classes", type=int)
    parser.add_argument("overrides", nargs="*")
    asked = parser.parse_intermixed_args()
    folder = asked.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    start = perf_counter()
    total = sum(write(row, folder, asked.classes) for row in map(DATASETS.__getitem__, NAMES))
    weights = folder / "made.caffemodel"
    if not weights.exists():
        weights.write_bytes(caffemodel(caffenet()))
    print(f"{total:,} images in {folder}, {perf_counter() - start:.0f} s", flush=True)
    with TemporaryDirectory(dir=folder) as scratch:
        run(sweep(folder, Path(scratch), asked.classes, asked.steps), Path(scratch), asked.overrides)


def write(row: Dataset, folder: Path, most: int | None) -> int:
    """The images of a dataset as a Parquet file, unless it is there; how many they are."""
    classes, test = min(row.classes, most or row.classes), row.test or OFFICIAL[row.name]
    count = max(row.images_per_class) + row.val + test
    path = file_of(row, folder, most)
    if not path.exists():
        schema = pa.schema([("image", pa.binary()), ("label", pa.int32()), ("split", pa.string())])
        part = path.with_suffix(".part")
        with pq.ParquetWriter(part, schema) as file:
            for rows in batched(images(row.name, classes, count, test if row.test is None else 0)):
                file.write_table(pa.Table.from_pylist(rows, schema))
        part.rename(path)
    return classes * count


def images(name: str, classes: int, count: int, official: int) -> Iterator[dict[str, object]]:
    """Rows of a file; the last `official` of each class are its official test set."""
    rng = np.random.default_rng([len(name), classes, count])
    for label in range(classes):
        coarse = rng.integers(60, 196, (4, 4, 3), dtype=np.uint8)
        pattern = np.asarray(Image.fromarray(coarse).resize((SIDE, SIDE)), np.int16)
        for place in range(count):
            noise = rng.integers(-50, 51, (SIDE // 8, SIDE // 8, 3), dtype=np.int16).repeat(8, 0).repeat(8, 1)
            shown, file = Image.fromarray((pattern + noise).astype(np.uint8)), io.BytesIO()
            shown.save(file, "JPEG")
            yield {
                "image": file.getvalue(),
                "label": label,
                "split": "test" if place >= count - official else "train",
            }


def batched(rows: Iterator[dict[str, object]]) -> Iterator[list[dict[str, object]]]:
    """Lists of at most ROWS."""
    held: list[dict[str, object]] = []
    for row in rows:
        held.append(row)
        if len(held) == ROWS:
            yield held
            held = []
    if held:
        yield held


def file_of(row: Dataset, folder: Path, most: int | None) -> Path:
    """Where the images of a dataset lie."""
    return folder / f"{row.name}-{min(row.classes, most or row.classes)}.parquet"


def sweep(folder: Path, scratch: Path, most: int | None, steps: int) -> dict[str, object]:
    """The grid of sweeps/paper.yaml on these files; without distances, which need a source's images."""
    entries = {}
    for row in map(DATASETS.__getitem__, NAMES):
        path = file_of(row, folder, most)
        held_out = {"val": row.val} | ({} if row.test is None else {"test": row.test})
        entries[row.name] = {"parquet": str(path), "images_per_class": row.images_per_class, **held_out}
    return {
        "name": "paper-grid",
        "grid": {"datasets": entries, "backbones": ["caffenet"], "random_top": [1, 3, 5]},
        "train": {"profile": "paper", "steps": steps},
        "data": {"weights": {"caffenet": str(folder / "made.caffemodel")}},
        "distance": {"metrics": []},
        "tracking": {"uri": f"sqlite:///{scratch}/mlflow.db"},
    }


def run(grid: dict[str, object], scratch: Path, overrides: list[str]) -> None:
    """A sweep, from nothing."""
    (scratch / "grid.yaml").write_text(json.dumps(grid))
    places = {f"FTTUNE_{name}": str(scratch / name.lower()) for name in ("STORE", "CACHE", "STATE", "NETWORKS")}
    words = [sys.executable, "-m", "fttune.cli", "run", "grid.yaml", *overrides]
    start = perf_counter()
    subprocess.run(words, cwd=scratch, env={**os.environ, **places}, check=True, stdout=subprocess.DEVNULL)
    wall = perf_counter() - start
    records = Tracker(f"sqlite:///{scratch}/mlflow.db", "fttune").records()
    print(f"{len(records)} trials on {records[0].device}: {wall:.0f} s from the command to the report")
    for mode in ("freeze", "tune"):
        for top in (1, 3, 5):
            some = [r for r in records if (r.mode, r.random_top) == (mode, top)]
            seconds, images = (sum(getattr(r, name) or 0.0 for r in some) for name in ("seconds", "images_per_second"))
            print(f"{mode}, {top} new: {seconds / len(some):6.1f} s a trial, {images / len(some):6.0f} images/s")


if __name__ == "__main__":
    main()
