"""What trials side by side hold in memory: 1, 2, 4, 8 processes, each with a real trial on the same images.

    uv run python benchmarks/memory.py --images 4000

Every other trial is tuned and reads the decoded images, the rest train on the features of three frozen layers of
EfficientNet-Lite0 at 64 px; each has a seed of its own, so the features lie in several files. Prints for each number of
processes, at their last report, the megabytes of these files that are resident in a process, what it shares of them
with others, and what is its own beside them (from /proc/PID/smaps: proportional set size).
"""

import argparse
import sys
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from fttune.backbones import catalog
from fttune.bundle import Bundle
from fttune.data.readers import ImageRef
from fttune.data.store import build
from fttune.layers import LayerSpec
from fttune.runtime import Runtime
from fttune.training.run import run_bundle
from fttune.trial import Cell, HParams, Trial, stored_size

SIZE, FROZEN = 64, 3
SIDE = stored_size(SIZE)


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


def trial_of(number: int, digest: str, count: int) -> Trial:
    """Nine tenths of the images are looked at in each report, most of them val."""
    row = catalog.find("efficientnet_lite0")
    top = row.depth - FROZEN
    spec = (
        LayerSpec(frozen=FROZEN, tuned=0, random=top) if number % 2 else LayerSpec(frozen=0, tuned=FROZEN, random=top)
    )
    return Trial(
        cell=Cell(dataset="made", images_per_class=count // 16, backbone=row.name, spec=spec),
        hparams=HParams(lr=0.01, steps=4, report_every=4, batch_size=count // 16, image_size=SIZE, views="center"),
        seed=number // 2,
        val_per_class=3 * count // 8,
        test_per_class=count // 16,
        data_digest=digest,
        weights_digest=catalog.weights_digest(row.name, None),
    )


def work(root: Path, trial: Trial, wire: Connection | None) -> None:
    """Run a trial; at its last report say so, and wait to be let go."""

    def report(*_: object) -> None:
        if wire:
            wire.send(None)
            wire.recv()

    runtime = Runtime(store=root / "store", cache=root / "cache", threads=1)
    run_bundle(Bundle(trials=(trial,), depths=(FROZEN,)), runtime, report)


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


def measure(root: Path, trials: list[Trial]) -> tuple[float, ...]:
    """Means over the processes while all of them are at their last report."""
    context = get_context("spawn")
    pipes = [context.Pipe() for _ in trials]
    workers = [
        context.Process(target=work, args=(root, one, there)) for one, (_, there) in zip(trials, pipes, strict=True)
    ]
    for worker in workers:
        worker.start()
    for here, _ in pipes:
        here.recv()
    held = np.array([resident(worker.pid or 0) for worker in workers])
    for worker in workers:
        worker.kill()
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
        trials = [trial_of(number, store.digest, count) for number in range(8)]
        for trial in trials[1::2]:  # so that no process has computed what it reads
            work(root, trial, None)
        sizes = [
            sum(path.stat().st_size for path in (root / name).rglob("*.arrow*")) / 1e6 for name in ("store", "cache")
        ]
        print(f"images {sizes[0]:.0f} MB, features {sizes[1]:.0f} MB", file=sys.stderr)
        for processes in (1, 2, 4, 8):
            mapped, share, own = measure(root, trials[:processes])
            print(
                f"{processes} processes: {mapped:.0f} MB of data in each, {share:.0f} its share, {own:.0f} MB its own"
            )


if __name__ == "__main__":
    main()
