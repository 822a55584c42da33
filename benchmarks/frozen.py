"""24 classifiers on frozen features (8 rates, 3 seeds), trained at once, against one of them, and against all in turn.

    uv run python benchmarks/frozen.py FOLDER --rounds 5

FOLDER holds class folders of images. Each round starts with an empty feature cache, in a process that has the network
loaded, and is then repeated with the features there. Prints seconds and the ratios of medians; then, for each rate, how
far losses at once lie from those alone at most, and whether choices and accuracies are equal.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

from fttune.backbones import catalog
from fttune.bundle import Bundle
from fttune.data.catalog import folder
from fttune.data.store import ImageStore, build
from fttune.layers import LayerSpec
from fttune.record import RunRecord
from fttune.runtime import Runtime
from fttune.training.run import run_bundle
from fttune.trial import Cell, HParams, Trial, stored_size

RATES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
SIZE = 128
HPARAMS = HParams(lr=0.01, steps=200, report_every=20, views="flip", image_size=SIZE)


def trials(store: ImageStore, images: int) -> list[Trial]:
    """8 rates, 3 seeds; `images` of each class to train on."""
    row = catalog.find("efficientnet_lite0")
    spec = LayerSpec(frozen=row.depth - 1, tuned=0, random=1)
    cell = Cell(dataset="images", images_per_class=images, backbone=row.name, spec=spec)
    first = Trial(
        cell=cell,
        hparams=HPARAMS,
        seed=0,
        val_per_class=5,
        test_per_class=10,
        data_digest=store.digest,
        weights_digest=catalog.weights_digest(row.name, None),
    )
    return [replace(first, seed=seed, hparams=replace(first.hparams, lr=rate)) for seed in range(3) for rate in RATES]


def seconds(bundles: Sequence[Sequence[Trial]], runtime: Runtime) -> float:
    start = perf_counter()
    for group in bundles:
        run_bundle(Bundle(trials=tuple(group), depths=(group[0].cell.spec.frozen,)), runtime, lambda *_: None)
    return perf_counter() - start


def curves(bundles: Sequence[Sequence[Trial]], runtime: Runtime) -> tuple[dict[Trial, list[float]], list[RunRecord]]:
    """The losses of each trial at its reports, and what it came to."""
    losses: dict[Trial, list[float]] = {trial: [] for group in bundles for trial in group}
    records: list[RunRecord] = []
    for group in bundles:
        bundle = Bundle(trials=tuple(group), depths=(group[0].cell.spec.frozen,))
        records += run_bundle(
            bundle, runtime, lambda one, point: losses[one].extend((point.train_loss, point.val_loss))
        )
    return losses, records


def agreement(grid: Sequence[Trial], runtime: Runtime) -> None:
    """Print how far apart trainings at once and alone end."""
    together, ours = curves([grid], runtime)
    alone, theirs = curves([[trial] for trial in grid], runtime)
    for rate in RATES:
        gaps = [
            abs(one - other) / other
            for trial in grid
            if trial.hparams.lr == rate
            for one, other in zip(together[trial], alone[trial], strict=True)
        ]
        print(f"lr {rate}: losses at once and alone differ by {max(gaps):.1e} of their value at most")
    told = ("best_step", "val_accuracy", "test_accuracy", "val_curve")
    same = sum(all(getattr(one, n) == getattr(other, n) for n in told) for one, other in zip(ours, theirs, strict=True))
    print(f"{same} of {len(ours)} trials have equal curves on val, choices and accuracies")


def main() -> None:
    """One line for each way, then the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=5, help="of each class to train on")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with TemporaryDirectory() as scratch:
        root = Path(scratch)
        source = folder("images", options.folder).source()
        store = build(source, name="images", size=stored_size(SIZE), resize="crop", root=root / "store")
        grid = trials(store, options.images)
        ways: dict[str, list[list[Trial]]] = {
            "one": [grid[:1]],
            "24 at once": [grid],
            "24 in turn": [[trial] for trial in grid],
        }
        runtime = Runtime(store=root / "store", cache=root / "warm-up", threads=1)
        seconds(ways["one"], runtime)
        cold = measure(ways, options.rounds, lambda number, way: replace(runtime, cache=root / f"{number}-{way}"))
        warm = measure(ways, options.rounds, lambda *_: replace(runtime, cache=root / "0-24 at once"))
        agreement(grid, replace(runtime, cache=root / "0-24 at once"))
    print(
        f"{len(store.labels)} images in {len(store.classes)} classes, {options.images} of each to train on, {SIZE} px"
    )
    for name, taken in (("features to be computed", cold), ("features there", warm)):
        one, together, turn = (median(taken[way]) for way in ways)
        spread = "; ".join(f"{way} {median(s):.2f} s [{min(s):.2f}, {max(s):.2f}]" for way, s in taken.items())
        print(f"{name} (n = {options.rounds}): {spread}")
        print(f"  24 at once / one: {together / one:.2f}; in turn / at once: {turn / together:.1f}")


def measure(
    ways: dict[str, list[list[Trial]]], rounds: int, place: Callable[[int, str], Runtime]
) -> dict[str, list[float]]:
    """Seconds of each way, the ways in turn in every round."""
    taken: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(rounds):
        for way, bundles in ways.items():
            taken[way].append(seconds(bundles, place(number, way)))
    return taken


if __name__ == "__main__":
    main()
