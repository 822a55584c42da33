"""Passes over images side by side: frozen trials of several seeds, a process each, that start at once on no cache.

    uv run python benchmarks/passes.py --seeds 1 2 --rounds 3

EfficientNet-Lite0 with a new classifier on the digits of scikit-learn at 96 px, 20 of each class in eight fixed views.
Prints wall seconds until the last of them is done, median and range, and how they stand to one alone; then the rate at
which features are written, sync included.
"""

import argparse
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
import torch

from fttune.backbones import catalog
from fttune.data import catalog as datasets
from fttune.data.store import build
from fttune.feature_file import write
from fttune.layers import LayerSpec
from fttune.runtime import Runtime
from fttune.training.bench import network
from fttune.training.run import run_trial
from fttune.trial import Cell, HParams, Trial, stored_size

SIZE = 96  # pixels
HPARAMS = HParams(lr=0.01, steps=50, report_every=25, views="fixed-8", image_size=SIZE)


def prepared(root: Path, seeds: int) -> list[Trial]:
    """A frozen trial of each seed, its images decoded."""
    store = build(datasets.find("digits").source(), name="digits", size=stored_size(SIZE), resize="crop", root=root)
    row = catalog.find("efficientnet_lite0")
    spec = LayerSpec(frozen=row.depth - 1, tuned=0, random=1)
    return [
        Trial(
            cell=Cell(dataset="digits", images_per_class=20, backbone=row.name, spec=spec),
            hparams=HPARAMS,
            seed=seed,
            val_per_class=5,
            test_per_class=10,
            data_digest=store.digest,
            weights_digest=catalog.weights_digest(row.name, None),
        )
        for seed in range(seeds)
    ]


def train(trial: Trial, runtime: Runtime, driver: Connection) -> None:
    """Load the network, wait for the word, run the trial."""
    network(trial.cell.backbone, runtime)
    driver.send("ready")
    driver.recv()
    run_trial(trial, runtime, lambda point: None)
    driver.send("done")


def seconds(trials: list[Trial], runtime: Runtime) -> float:
    """From the word until the last trial is done."""
    context, ends = get_context("spawn"), []
    for trial in trials:
        own, theirs = context.Pipe()
        context.Process(target=train, args=(trial, runtime, theirs)).start()
        ends.append(own)
    for end in ends:
        end.recv()
    start = perf_counter()
    for end in ends:
        end.send("go")
    for end in ends:
        end.recv()
    return perf_counter() - start


def rate(folder: Path, megabytes: int) -> float:
    """Megabytes a second at which one layer's features are written."""
    values = torch.randn(megabytes * 10**6 // 5120, 1280)
    start = perf_counter()
    write(folder, megabytes, np.arange(len(values)), [values])
    return megabytes / (perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with TemporaryDirectory(prefix="fttune-") as name:
        folder = Path(name)
        trials, taken = prepared(folder / "store", max(given.seeds)), {count: list[float]() for count in given.seeds}
        for number in range(given.rounds):
            for count, times in taken.items():
                runtime = Runtime(store=folder / "store", cache=folder / f"{number}-{count}", device="cpu", threads=1)
                times.append(seconds(trials[:count], runtime))
        for count, times in taken.items():
            ratio = median(times) / median(taken[given.seeds[0]])
            print(
                f"{count} seeds at once: {median(times):.2f} s ({min(times):.2f}-{max(times):.2f}), {ratio:.2f} times"
            )
        rates = [rate(folder, size) for size in (8, 64, 256) for _ in range(given.rounds)]
        print(f"features are written at {min(rates):.0f} to {max(rates):.0f} MB/s")


if __name__ == "__main__":
    main()
