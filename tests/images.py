"""Folders of small images for tests."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def make_folder(root: Path, *, classes: int = 3, images: int = 12, side: int = 40, seed: int = 0) -> Path:
    """Class folders c0, c1, ...: noise around a brightness of each class's own."""
    rng = np.random.default_rng(seed)
    for label in range(classes):
        folder = root / f"c{label}"
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(images):
            level = 40 + 170 * label / max(1, classes - 1)
            pixels = np.clip(rng.normal(level, 25, (side, side, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{number:03}.png")
    return root


def png(colour: tuple[int, int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (12, 12), colour).save(buffer, "PNG")
    return buffer.getvalue()


def write_parquet(path: Path, **columns: Any) -> str:
    """Thirty rows of three classes; the target that names them."""
    rows = [png((row * 5, 0, 255 - row)) for row in range(30)]
    table = {"image": rows, "label": [["cat", "ape", "dog"][row % 3] for row in range(30)]} | columns
    pq.write_table(pa.table(table), path, row_group_size=7)
    return f"parquet:{path}"
