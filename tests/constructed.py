"""Constructed records for tests of the analysis."""

from dataclasses import replace
from typing import Any

import numpy as np

from fttune.record import DistanceRecord, RunRecord
from fttune.trial import digest
from values import HPARAMS, make_trial


def make_run(mode: str, accuracy: float, *, random_top: int = 1, dataset: str = "a", **changes: Any) -> RunRecord:
    """A finished trial on an eight-layer network with this test accuracy; `lr` and `val` may be given too."""
    copied = 8 - random_top
    letter = "F" if mode == "freeze" else "T"
    top = "R(8)" if random_top == 1 else f"R({copied + 1}-8)"
    measured = {
        "val_accuracy": changes.pop("val", accuracy),
        "test_accuracy": accuracy,
        "classes": changes.pop("classes", 10),
        "train_images": 10,
        "val_images": 10,
        "test_images": 10,
        "seconds": 1.0,
    }
    hparams = replace(HPARAMS, **{name: changes.pop(name) for name in list(changes) if name in HPARAMS.__slots__})
    trial = make_trial(
        f"{letter}(1-{copied}){top}",
        hparams=hparams,
        dataset=dataset,
        backbone="net",
        data_digest=digest(dataset),
        **changes,
    )
    return RunRecord.of(trial, status="done", **measured)


def make_distance(dataset: str, value: float, *, spread: float = 0.001) -> DistanceRecord:
    return DistanceRecord(
        dataset=dataset,
        backbone="net",
        source="imagenet",
        metric="cosine",
        image_size=32,
        resize="crop",
        value=value,
        low=value - spread,
        high=value + spread,
        images=100,
        source_images=1000,
        data_digest=digest(dataset),
        weights_digest="w",
    )


def make_pairs_of_runs(
    dataset: str, images: int, effect: float, *, seeds: int = 3, noise: float = 0.01
) -> list[RunRecord]:
    """Tuned and frozen runs whose ratio of accuracies is `effect`, but for noise of each seed."""
    rng = np.random.default_rng(int(digest([dataset, images])[:8], 16))
    runs = []
    for seed in range(seeds):
        frozen = 0.6 * float(np.exp(rng.normal(0, noise)))
        tuned = 0.6 * effect * float(np.exp(rng.normal(0, noise)))
        runs.append(make_run("freeze", frozen, dataset=dataset, images_per_class=images, seed=seed))
        runs.append(make_run("tune", tuned, dataset=dataset, images_per_class=images, seed=seed))
    return runs
