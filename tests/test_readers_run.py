"""Each reader of an official download through a trial: decoded, split, trained and tested on. Needs no Ray."""

import pytest

import layouts
from fttune.config import load_sweep
from fttune.record import RunRecord
from fttune.runtime import Runtime
from fttune.sweep.ground import Ground, prepare
from fttune.training.run import run_trial
from small_sweeps import write_sweep

# Images per class 2, val 1; test: images of each class, None: the official test set. Last, the test images in all.
GRID = {
    "caltech256": ({}, 3, 9),
    "sun397": ({}, 3, 9),
    "mit67": ({}, None, 9),
    "cub200": ({}, None, 9),
    "coral": ({"min_per_class": 9, "patch": 32}, 3, 9),
    "plankton": ({"min_per_class": 9}, 3, 9),
    "imagenet500b": ({}, None, 6),
}


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    folder = tmp_path_factory.mktemp("runtime")
    return Runtime(store=folder / "store", cache=folder / "cache", device="cpu", threads=1)


@pytest.fixture(scope="module")
def ground(runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> Ground:
    root = tmp_path_factory.mktemp("downloads")
    for write in layouts.LAYOUTS.values():
        write(root)
    sets = {
        name: {"images_per_class": 2, "val": 1, "options": options} | ({"test": test} if test else {})
        for name, (options, test, _) in GRID.items()
    }
    grid = {"datasets": sets, "backbones": ["tiny"], "random_top": [1], "modes": ["freeze"]}
    train = {"lr": 0.05, "steps": 60, "batch_size": 6, "image_size": 32, "resize": "warp", "views": "center"}
    return prepare(load_sweep(write_sweep(root, grid=grid, train=train, data={"root": str(root)})), runtime, _silent)


def _silent(*_: object) -> None:
    pass


@pytest.fixture(scope="module")
def records(ground: Ground, runtime: Runtime) -> dict[str, RunRecord]:
    return {trial.cell.dataset: run_trial(trial, runtime, _silent) for trial in ground.trials}


@pytest.mark.parametrize("name", GRID)
def test_a_download_is_trained_and_tested_on(records: dict[str, RunRecord], name: str) -> None:
    record = records[name]
    assert (record.status, record.classes) == ("done", 3)
    assert (record.train_images, record.val_images, record.test_images) == (6, 3, GRID[name][2])


def test_the_classes_of_the_made_downloads_can_be_told_apart(records: dict[str, RunRecord]) -> None:
    """The point of a coral patch is drawn anywhere in its photograph, so its label is in no pixel."""
    learned = {name: record.test_accuracy for name, record in records.items() if name != "coral"}
    assert {name for name, accuracy in learned.items() if (accuracy or 0) <= 1 / 3} == set()
