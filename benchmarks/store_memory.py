"""Peak memory and time of decoding a large set into the store, and of opening it.

    uv run python benchmarks/store_memory.py --images 2000 20000 100000

Images are noise of 40 px, made on the fly, stored at 32 px; each size runs in a process of its own.
"""

import argparse
import io
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from fttune.data.readers import ImageRef
from fttune.data.store import build, open_store

CLASSES = 100


class Noise:
    """As many images as asked for, none of them on disk."""

    classes = tuple(f"c{label:03}" for label in range(CLASSES))

    def __init__(self, count: int) -> None:
        self.images = tuple(ImageRef(key=f"{number:09}.bmp", label=number % CLASSES) for number in range(count))

    def fingerprint(self) -> str:
        return f"noise {len(self.images)}"

    def read(self, ref: ImageRef) -> bytes:
        pixels = np.random.default_rng(int(ref.key[:9])).integers(0, 256, (40, 40, 3), np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "BMP")
        return buffer.getvalue()


def measure(count: int) -> None:
    """One line: what a process needed that builds the store, then opens it."""
    listed = peak()
    with TemporaryDirectory() as root:
        start = time.perf_counter()
        store = build(Noise(count), name="noise", size=32, resize="warp", root=Path(root))
        seconds = time.perf_counter() - start
        built = peak()
        start = time.perf_counter()
        open_store(root=Path(root), digest=store.digest, size=32, resize="warp")
        opened = time.perf_counter() - start
        size = sum(path.stat().st_size for path in Path(root).iterdir()) / 1e6
    print(
        f"{count:>8,} images: {seconds:6.1f} s ({count / seconds:,.0f} images/s), opened in {opened:.2f} s;"
        f" peak {listed:.0f} MB before, {built:.0f} MB after; {size:,.0f} MB on disk"
    )


def peak() -> float:
    """Megabytes that this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def main() -> None:
    """One process for each size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[2000, 20_000, 100_000])
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    for count in options.images:
        if options.here:
            measure(count)
        else:
            subprocess.run([sys.executable, __file__, "--here", "--images", str(count)], check=True)


if __name__ == "__main__":
    main()
