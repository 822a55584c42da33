"""What trials side by side hold in memory: 1, 2, 4, 8 processes, each training a trial on the same images.

    uv run python benchmarks/memory.py --images 4000

Two rows for each number of processes: tuned trials of the network `tiny`, which read the decoded images, and frozen
trials of EfficientNet-Lite0 with five new layers, which read features. Each is stopped at its last report, when it has
read all of its images, and looked at there: megabytes of the data files that are resident in a process, its share of
them where others hold the same pages (proportional set size), and what is its own beside them (/proc/PID/smaps).
"""

import argparse
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from fttune.backbones import catalog
from fttune.data.readers import ImageRef
from fttune.data.store import ImageStore, build
from fttune.layers import LayerSpec
from fttune.record import CurvePoint
from fttune.runtime import Runtime
from fttune.training.run import run_trial
from fttune.trial import Cell, HParams, Trial, stored_size

SIZE, HELD_OUT = 128, 50  # pixels; images per class of val and of test
KINDS = {"tuned": ("tiny", "T(1-3)R(4)"), "frozen": ("efficientnet_lite0", "F(1-5)R(6-10)")}


class Made:
    """Images made of noise, of two classes."""

    def __init__(self, count: int) -> None:
        self.classes = ("one", "two")
        self.images = tuple(ImageRef(key=f"{n:06}", label=n % 2, pool="any") for n in range(count))

    def fingerprint(self) -> str:
        return f"made {len(self.images)}"

    def read(self, ref: ImageRef) -> bytes:
        from io import BytesIO

        from PIL import Image

        side = stored_size(SIZE)
        noise = np.random.default_rng(int(ref.key)).integers(0, 256, (side, side, 3), np.uint8)
        Image.fromarray(noise).save(held := BytesIO(), "bmp")
        return held.getvalue()


def trial_of(kind: str, store: ImageStore) -> Trial:
    """One pass over the training images."""
    backbone, spec = KINDS[kind]
    each = len(store.labels) // 2 - 2 * HELD_OUT
    batch = min(64, 2 * each)
    steps = 2 * each // batch
    return Trial(
        cell=Cell(
            dataset="made",
            images_per_class=each,
            backbone=backbone,
            spec=LayerSpec.parse(spec),
        ),
        hparams=HParams(lr=1e-3, steps=steps, report_every=steps, batch_size=batch, image_size=SIZE, views="center"),
        seed=0,
        val_per_class=HELD_OUT,
        test_per_class=HELD_OUT,
        data_digest=store.digest,
        weights_digest=catalog.weights_digest(backbone),
    )


def work(trial: Trial, runtime: Runtime, wire: Connection) -> None:
    """Train; at the last report say so, and wait to be let go."""

    def report(point: CurvePoint) -> None:
        wire.send(point.step)
        wire.recv()

    run_trial(trial, runtime, report)


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


def measure(trial: Trial, runtime: Runtime, processes: int) -> tuple[float, ...]:
    """Means over the processes while all of them hold everything."""
    context = get_context("spawn")
    pipes = [context.Pipe() for _ in range(processes)]
    workers = [context.Process(target=work, args=(trial, runtime, there)) for _, there in pipes]
    for worker, (_, there) in zip(workers, pipes, strict=True):
        worker.start()
        there.close()  # so that the end of a worker that dies is heard
    for here, _ in pipes:
        here.recv()
    held = np.array([resident(worker.pid or 0) for worker in workers])
    for here, _ in pipes:
        here.send(None)
    for worker in workers:
        worker.join()
    return tuple(held.mean(0).tolist())


def main() -> None:
    """A Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=4000)
    count = parser.parse_args().images
    print("| trials | side by side | data in each, MB | its share of it | its own beside it |\n|---|---|---|---|---|")
    with TemporaryDirectory() as folder:
        root = Path(folder)
        store = build(Made(count), name="made", size=stored_size(SIZE), resize="crop", root=root / "store")
        runtime = Runtime(store=root / "store", cache=root / "cache", device="cpu", threads=1)
        for kind in KINDS:
            for processes in (1, 2, 4, 8):
                numbers = measure(trial_of(kind, store), runtime, processes)
                print(f"| {kind} | {processes} | {' | '.join(f'{number:.0f}' for number in numbers)} |", flush=True)


if __name__ == "__main__":
    main()
