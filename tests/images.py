"""Folders of small images for tests."""

from pathlib import Path

import numpy as np
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
