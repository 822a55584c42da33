"""Distances are true cosines of mean features, never of test images."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fttune.backbones import catalog
from fttune.backbones.source import SourceMean
from fttune.config import load_sweep
from fttune.data.catalog import folder
from fttune.data.dataset import left_out
from fttune.data.splits import non_test
from fttune.data.store import ImageStore, build, open_store
from fttune.describe import Measurement, measured
from fttune.distance.job import DistanceJob
from fttune.distance.metrics import bootstrap, cosine
from fttune.distance.sample import Sample
from fttune.errors import DataError, UsageError
from fttune.record import RunRecord
from fttune.reporting import _logged
from fttune.runtime import Runtime
from fttune.sweep.ground import Ground, prepare
from fttune.tracking.runs import Tracker
from fttune.trial import stored_size
from images import make_folder
from small_sweeps import write_sweep

vectors = st.lists(st.floats(0, 10), min_size=3, max_size=3).map(np.array).filter(lambda v: np.linalg.norm(v) > 1e-3)


@given(vectors, vectors, st.floats(0.1, 10))
def test_the_cosine_distance_is_bounded_symmetric_and_blind_to_scale(
    a: np.ndarray, b: np.ndarray, scale: float
) -> None:
    assert -1e-9 <= cosine(a, b) <= 1 + 1e-9
    assert cosine(a, b) == pytest.approx(cosine(b, a), abs=1e-9)
    assert cosine(a, scale * a) == pytest.approx(0, abs=1e-9)


def test_the_cosine_has_the_square_roots_the_paper_left_out() -> None:
    assert cosine(np.array([3.0, 0.0]), np.array([3.0, 3.0])) == pytest.approx(1 - 1 / np.sqrt(2))
    assert cosine(np.array([1.0, 0.0]), np.array([0.0, 0.0])) == 1


def test_the_interval_narrows_with_more_images() -> None:
    rng = np.random.default_rng(0)
    source = rng.random(8)
    widths = []
    for count in (20, 500):
        low, high = bootstrap(cosine, source, rng.random((count, 8)), seed=0)
        assert low < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 3


@pytest.fixture
def job(tmp_path: Path) -> DistanceJob:
    source = folder("mine", make_folder(tmp_path / "photos")).source()
    store = build(source, name="mine", size=stored_size(32), resize="crop", root=tmp_path / "store")
    weights = catalog.weights_digest("tiny")
    mean = SourceMean(
        vector=np.ones(catalog.build("tiny")[-1][-1].in_features, np.float32),  # pyright: ignore
        images=10,
        source="none",
        image_size=32,
        resize="crop",
        weights_digest=weights,
        provenance="",
    )
    sample = Sample(
        dataset="mine",
        data_digest=store.digest,
        test_per_class=4,
        backbone="tiny",
        weights_digest=weights,
        image_size=32,
        resize="crop",
    )
    return DistanceJob(sample=sample, source=mean)


def test_a_measurement_uses_every_image_but_the_test_set(job: DistanceJob, tmp_path: Path) -> None:
    runtime = Runtime(store=tmp_path / "store", cache=tmp_path / "cache", device="cpu")
    record = job.measure(runtime)
    assert record.images == 3 * (12 - 4)
    assert record.low <= record.value <= record.high
    assert record.id == job.id
    assert job.measure(runtime) == record
    features = job.sample.features(runtime)
    expected = 1 - features.mean(0).sum() / np.linalg.norm(features.mean(0)) / np.sqrt(features.shape[1])
    assert record.value == pytest.approx(expected)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_distance_is_computed_where_the_process_computes(job: DistanceJob, tmp_path: Path) -> None:
    there = Runtime(store=tmp_path / "store", cache=tmp_path / "cache", device="cuda")
    with pytest.raises((AssertionError, RuntimeError), match=r"(?i)cuda|nvidia"):
        job.measure(there)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_distance_is_the_same_on_a_gpu(job: DistanceJob, tmp_path: Path) -> None:
    values = [
        job.measure(Runtime(store=tmp_path / "store", cache=tmp_path / device, device=device)).value
        for device in ("cpu", "cuda")
    ]
    assert values[0] == pytest.approx(values[1], abs=1e-4)


def rows_used(job: DistanceJob, runtime: Runtime) -> tuple[ImageStore, np.ndarray]:
    store = open_store(root=runtime.store, digest=job.sample.data_digest, size=stored_size(32), resize="crop")
    return store, non_test(
        dataset="mine",
        classes=store.classes,
        labels=store.labels,
        keys=store.keys,
        pools=store.pools,
        test=4,
        maximum=None,
    )


def test_what_is_shown_are_the_images_outside_the_test_set(job: DistanceJob, tmp_path: Path) -> None:
    runtime = Runtime(store=tmp_path / "store", cache=tmp_path / "cache", device="cpu")
    store, used = rows_used(job, runtime)
    shown = job.sample.pixels(runtime, 16)
    assert shown.shape == (len(used), 3, 16, 16)
    assert len(used) == len(store.labels) - 3 * 4
    centre = store.images(used)[:, 2:34, 2:34].astype(float) / 255
    np.testing.assert_allclose(shown.mean((2, 3)), centre.mean((1, 2)), atol=0.02)


def darkened(job: DistanceJob, runtime: Runtime, photos: Path, keys: Iterable[str]) -> Sample:
    """The sample of the folder once some of its images are eight times as dark."""
    for key in keys:
        with Image.open(photos / key) as image:
            image.point([value // 8 for value in range(256)] * 3).save(photos / key)
    store = build(folder("mine", photos).source(), name="mine", size=stored_size(32), resize="crop", root=runtime.store)
    return replace(job.sample, data_digest=store.digest)


def test_the_images_of_the_test_set_have_no_say(job: DistanceJob, tmp_path: Path) -> None:
    runtime = Runtime(store=tmp_path / "store", cache=tmp_path / "cache")
    store, used = rows_used(job, runtime)
    held = sorted(set(range(len(store.keys))) - set(used.tolist()))

    def seen(sample: Sample) -> list[np.ndarray]:
        """All that any metric reads, of a target or of a source."""
        values = [replace(job, sample=sample, metric=name).measure(runtime).value for name in ("cosine", "mmd")]
        return [sample.features(runtime), sample.pixels(runtime, 32), np.array(values)]

    plain = seen(job.sample)
    for rows, alike in ((held, True), (used.tolist(), False)):
        dark = darkened(job, runtime, tmp_path / "photos", [store.keys[row] for row in rows])
        assert dark.data_digest != job.sample.data_digest
        same = [np.array_equal(one, other) for one, other in zip(plain, seen(dark), strict=True)]
        assert same == [alike] * 3


def test_only_a_user_s_set_too_small_for_the_default_has_no_test_set(tmp_path: Path) -> None:
    few, enough = (folder("f", make_folder(tmp_path / str(n), images=n)) for n in (9, 10))
    assert (few.test, left_out(few)) == (10, 0)
    assert left_out(enough) == 10
    assert left_out(replace(few, task="object")) == 10
    assert left_out(replace(few, test=None)) is None


def test_corrupt_images_of_either_side_are_left_out_of_a_distance_where_that_is_said(tmp_path: Path) -> None:
    here, there = (make_folder(tmp_path / name, seed=seed) for seed, name in enumerate(("here", "there")))
    (there / "c0" / "bad.png").write_bytes(b"no image")
    asked = Measurement(
        target=str(here), source=str(there), backbone="tiny", image_size=32, images=None, root=None, corrupt="skip"
    )
    assert measured(asked, "cosine")["metrics"][0]["source images"] == 3 * (12 - 10)
    with pytest.raises(DataError, match="--skip-corrupt at a command without one"):
        measured(replace(asked, corrupt="refuse"), "cosine")


def test_a_class_too_small_for_the_test_set_is_named(job: DistanceJob, tmp_path: Path) -> None:
    asked = replace(job, sample=replace(job.sample, test_per_class=13))
    with pytest.raises(DataError, match="dataset 'mine', class 'c0': has 12 images to test on, needs 13"):
        asked.measure(Runtime(store=tmp_path / "store", cache=tmp_path / "cache"))


def test_what_makes_a_measurement_another_one_is_in_its_id(job: DistanceJob) -> None:
    source = replace(job.sample, dataset="source", data_digest="e" * 64)
    others = [
        job,
        replace(job, metric="mmd"),
        replace(job, sample=replace(job.sample, test_per_class=5)),
        replace(job, source=source),
        replace(job, source=replace(source, data_digest="f" * 64)),
    ]
    assert len({other.id for other in others}) == len(others)


@pytest.mark.parametrize("metric", ["svm", "cnn"])
def test_what_tells_images_apart_needs_images(job: DistanceJob, tmp_path: Path, metric: str) -> None:
    asked = replace(job, metric=metric)
    assert not asked.possible
    with pytest.raises(UsageError, match=f"the {metric} distance needs the source's images"):
        asked.measure(Runtime(store=tmp_path / "store", cache=tmp_path / "cache"))


def test_a_source_of_images_gives_the_mean_that_it_would_ship(job: DistanceJob, tmp_path: Path) -> None:
    runtime = Runtime(store=tmp_path / "store", cache=tmp_path / "cache")
    mean = job.sample.mean(runtime, source="mine", provenance="")
    assert replace(job, source=job.sample).measure(runtime).value == pytest.approx(0, abs=1e-9)
    assert replace(job, source=mean).measure(runtime).value == pytest.approx(0, abs=1e-6)


def test_every_image_outside_the_test_set_may_be_asked_for(job: DistanceJob, tmp_path: Path) -> None:
    runtime = Runtime(store=tmp_path / "store", cache=tmp_path / "cache")
    few, all_of_them = (replace(job, sample=replace(job.sample, maximum=maximum)) for maximum in (7, None))
    assert few.measure(runtime).images == 7
    assert all_of_them.measure(runtime).images == 24
    assert len({job.id, few.id, all_of_them.id}) == 3


def grounded(tmp_path: Path, distance: dict[str, object]) -> Ground:
    sweep = load_sweep(write_sweep(tmp_path, distance=distance))
    return prepare(sweep, Runtime(store=tmp_path / "store", cache=tmp_path / "cache"), lambda *_: None)


def test_a_sweep_measures_every_metric_from_a_folder_beside_its_file(tmp_path: Path) -> None:
    make_folder(tmp_path / "few", classes=6, images=1)
    ground = grounded(tmp_path, {"metrics": ["cosine", "svm", "cnn"], "source": "./few"})
    jobs, missing = ground.distances()
    assert [(job.dataset, job.metric) for job in jobs] == [("mine", name) for name in ("cosine", "svm", "cnn")]
    assert missing == []
    assert ground.undecoded == []
    sources = [job.source for job in jobs]
    assert [(source.dataset, source.test_per_class) for source in sources if isinstance(source, Sample)] == [
        ("few", 0)
    ] * 3
    assert [job.sample.test_per_class for job in jobs] == [ground.facts.datasets["mine"].test] * 3


def test_a_report_takes_no_measurement_from_a_source_that_its_sweep_did_not_ask_for(tmp_path: Path) -> None:
    """Another sweep of the experiment measured the same images from more images of another source."""
    make_folder(tmp_path / "few", classes=6, images=1)
    make_folder(tmp_path / "many", classes=6, images=9)
    runtime = Runtime(store=tmp_path / "store", cache=tmp_path / "cache")
    few, many = (grounded(tmp_path, {"source": f"./{name}"}) for name in ("few", "many"))
    measured = [ground.distances()[0][0].measure(runtime) for ground in (few, many)]
    assert measured[0].source_images < measured[1].source_images
    runs = [RunRecord.of(trial, status="done") for trial in few.trials]
    tracker = cast(Tracker, SimpleNamespace(records=lambda _: runs, distances=lambda: measured))
    assert _logged(few.sweep, few, tracker)[1] == measured[:1]
    assert _logged(many.sweep, many, tracker)[1] == measured[1:]


def test_a_sweep_without_a_source_says_what_it_cannot_measure(tmp_path: Path) -> None:
    jobs, missing = grounded(tmp_path, {"metrics": ["cosine"]}).distances()
    assert jobs == []
    assert len(missing) == 1
    assert missing[0].startswith("no source mean is shipped for tiny at ")
