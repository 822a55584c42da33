"""How far few validation images mislead the choice of a setting, and what cross-validation helps.

    uv run python benchmarks/illusion.py FOLDER [FOLDER ...] --images 1 5 20 --draws 10

Each FOLDER holds class folders. On every draw of the training subset every setting of one shared list is trained as a
search trains it, judged by val and by the three parts of `select: cv`; the setting that each of them chooses is then
scored by its one training on that draw, so both choose among the same test accuracies. `best` is the highest of these:
hindsight, which nobody could have chosen by. Prints means over draws in hundredths of test accuracy, the gaps to the
best, and the paired difference cv - val with its 95 % interval over draws.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from time import perf_counter

from fttune.analysis.bootstrap import interval
from fttune.bundle import bundle
from fttune.config import Sweep
from fttune.plan import cells, trial_of
from fttune.record import RunRecord
from fttune.sweep.driver import machine
from fttune.sweep.ground import Ground, prepare
from fttune.sweep.search import draw_settings
from fttune.training.run import run_bundle
from fttune.trial import Cell, HParams, Trial

FOLDS = 3
Runs = dict[tuple[int, int | None, HParams], RunRecord]  # by draw, fold and setting


def main() -> None:
    """A table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--images", type=int, nargs="+", default=[1, 5, 20])
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--settings", type=int, default=16)
    parser.add_argument("--mode", choices=["freeze", "tune"], default="freeze")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--val", type=int, default=2)
    parser.add_argument("--test", type=int, default=6)
    asked = parser.parse_args()
    start = perf_counter()
    print(f"{asked.mode}, {asked.settings} settings, {asked.draws} draws, {asked.val} val images per class")
    head = f"{'':16}{'images':>7}{'default':>9}{'by val':>8}{'by cv':>8}{'best':>8}{'gap val':>9}{'gap cv':>8}"
    print(f"{head}   cv - val")
    for folder in asked.folders:
        sweep = sweep_of(folder, asked)
        ground = prepare(sweep, machine(sweep), lambda *_: None)
        for cell in cells(sweep, ground.facts):
            print(
                row(folder.name, cell, played(ground, cell, asked.draws), draw_settings(sweep), asked.draws), flush=True
            )
    print(f"{perf_counter() - start:.0f} s")


def sweep_of(folder: Path, asked: argparse.Namespace) -> Sweep:
    """The settings are those of a search over the rate and the weight decay."""
    data = {"path": folder.resolve(), "images_per_class": asked.images, "val": asked.val, "test": asked.test}
    grid = {"datasets": {folder.name: data}, "backbones": ["efficientnet_lite0"]}
    space = {"lr": [0.001, 1.0], "weight_decay": [1e-5, 0.1]}
    return Sweep.model_validate(
        {
            "name": "illusion",
            "grid": grid | {"random_top": [1], "modes": [asked.mode]},
            "train": {"steps": asked.steps, "image_size": 64, "batch_size": 32, "views": "flip"},
            "search": {"sampler": "shared", "settings": asked.settings, "space": space},
        }
    )


def played(ground: Ground, cell: Cell, draws: int) -> Runs:
    """Every setting on every draw, whole and with each part held out."""
    runtime = replace(machine(ground.sweep), state=None)
    trials = {trial.id: trial for trial in asked_for(ground, cell, draws)}
    found: Runs = {}
    for job in bundle(list(trials.values())):
        for record in run_bundle(job, runtime, lambda trial, point: None):
            trial = trials[record.trial_id]
            found[trial.seed, record.fold, trial.hparams] = record
    return found


def asked_for(ground: Ground, cell: Cell, draws: int) -> Iterator[Trial]:
    tuned = cell.spec.tuned > 0
    for setting in draw_settings(ground.sweep, tuned=tuned):
        for draw in range(draws):
            for fold in (None, *((k, FOLDS) for k in range(1, FOLDS + 1))):
                yield trial_of(cell, setting, -1 - draw, ground.facts, fold=fold)


def row(name: str, cell: Cell, runs: Runs, settings: list[HParams], draws: int) -> str:
    """Means over draws, in hundredths."""
    found: dict[str, list[float]] = defaultdict(list)
    for seed in range(-draws, 0):
        tests = {setting: accuracy(runs[seed, None, setting].test_accuracy) for setting in settings}
        by_val = {setting: accuracy(runs[seed, None, setting].val_accuracy) for setting in settings}
        by_cv = {
            setting: fmean(accuracy(runs[seed, k, setting].val_accuracy) for k in range(1, FOLDS + 1))
            for setting in settings
        }
        found["default"].append(tests[settings[0]])
        found["val"].append(tests[best(by_val)])
        found["cv"].append(tests[best(by_cv)])
        found["best"].append(max(tests.values()))
    mean = {key: 100 * fmean(values) for key, values in found.items()}
    apart = [100 * (cv - val) for cv, val in zip(found["cv"], found["val"], strict=True)]
    low, high = interval(apart, [name] * draws, list(range(draws)), confidence=0.95)
    spread = "" if low is None or high is None else f" [{low:+.1f}, {high:+.1f}]"
    return (
        f"{name:16}{cell.images_per_class:7}{mean['default']:9.1f}{mean['val']:8.1f}{mean['cv']:8.1f}{mean['best']:8.1f}"
        f"{mean['best'] - mean['val']:9.1f}{mean['best'] - mean['cv']:8.1f}   {fmean(apart):+.1f}{spread}"
    )


def best(values: dict[HParams, float]) -> HParams:
    """As a search chooses: ties go to the lowest values."""
    return max(sorted(values, key=lambda setting: (setting.lr, setting.weight_decay)), key=values.__getitem__)


def accuracy(value: float | None) -> float:
    assert value is not None  # of a finished run
    return value


if __name__ == "__main__":
    main()
