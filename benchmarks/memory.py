"""What trials side by side hold in memory: 1, 2, 4, 8 processes train on the same images and the same features.

    uv run python benchmarks/memory.py --images 4000

A process maps the decoded images and reads all of them, maps the features of a frozen trial and reads all of those.
Prints for each number of processes the megabytes of the data, and of a process what these are resident in it, what it
shares with others, and what is its own beside them (from /proc/PID/smaps: proportional set size).
"""

import argparse
import sys
from collections.abc import Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from fttune.data.readers import ImageRef
from fttune.data.store import ImageStore, build, open_store
from fttune.feature_cache import FeatureKey, reach

SIDE, WIDTH = 147, 4096
KEY = FeatureKey(weights="w", data="d", backbone="b", resize="crop", image_size=128)


class Made:
    """Images made of noise."""

    def __init__(self, count: int) -> None:
        self.classes = ("one", "two")
        self.images = tuple(ImageRef(key=f"{n:06}", label=n % 2, pool="any") for n in range(count))

    def fingerprint(self) -> str:
        return f"made {len(self.images)}"

    def read(self, ref: ImageRef) -> bytes:
        from io import BytesIO

        from PIL import Image

        noise = np.random.default_rng(int(ref.key)).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
        Image.fromarray(noise).save(held := BytesIO(), "bmp")
        return held.getvalue()


def forward(missing: np.ndarray, layers: object) -> Iterator[dict[int, torch.Tensor]]:
    for start in range(0, len(missing), 256):
        yield {1: torch.rand(len(missing[start : start + 256]), WIDTH)}


def work(root: Path, digest: str, count: int, wire: Connection) -> None:
    """Read everything, say so, wait to be let go."""
    store = open_store(root=root / "store", digest=digest, size=SIDE, resize="crop")
    table = reach(root / "cache", KEY, [1], np.arange(count) * 256, forward)[1]
    total = sum(int(block.sum()) for block in store.pixels) + float(table.segments[0].sum())
    wire.send(total)
    wire.recv()


def resident(pid: int) -> tuple[float, float, float]:
    """Megabytes of data files mapped and resident; their share of this process; what is its own beside them."""
    mapped = share = own = 0
    ours = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        name, *values = line.split()
        if "-" in name and not name.endswith(":"):
            ours = line.endswith((".arrow", ".arrows"))
        elif name in ("Rss:", "Pss:", "Private_Dirty:"):
            kilobytes = int(values[0])
            mapped += kilobytes if ours and name == "Rss:" else 0
            share += kilobytes if ours and name == "Pss:" else 0
            own += kilobytes if name == "Private_Dirty:" else 0
    return mapped / 1e3, share / 1e3, own / 1e3


def measure(root: Path, store: ImageStore, count: int, processes: int) -> tuple[float, ...]:
    """Means over the processes while all of them hold everything."""
    context = get_context("spawn")
    pipes = [context.Pipe() for _ in range(processes)]
    workers = [context.Process(target=work, args=(root, store.digest, count, there)) for _, there in pipes]
    for worker in workers:
        worker.start()
    for here, _ in pipes:
        here.recv()
    held = np.array([resident(worker.pid or 0) for worker in workers])
    for here, _ in pipes:
        here.send(None)
    for worker in workers:
        worker.join()
    return tuple(held.mean(0).tolist())


def main() -> None:
    """One line for each number of processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=4000)
    count = parser.parse_args().images
    with TemporaryDirectory() as folder:
        root = Path(folder)
        store = build(Made(count), name="made", size=SIDE, resize="crop", root=root / "store")
        reach(root / "cache", KEY, [1], np.arange(count) * 256, forward)
        print(f"images {count * SIDE**2 * 3 / 1e6:.0f} MB, features {count * WIDTH * 4 / 1e6:.0f} MB", file=sys.stderr)
        for processes in (1, 2, 4, 8):
            mapped, share, own = measure(root, store, count, processes)
            print(
                f"{processes} processes: {mapped:.0f} MB of data in each, {share:.0f} its share, {own:.0f} MB its own"
            )


if __name__ == "__main__":
    main()
