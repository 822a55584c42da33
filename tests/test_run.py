"""One trial from its values to its record, in a plain process: fair, repeatable, cached exactly, tested once."""

import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fttune.backbones import catalog as backbones
from fttune.bundle import Bundle
from fttune.data.store import ImageStore
from fttune.errors import DataError, FttuneError, StoreError
from fttune.record import CurvePoint, RunRecord
from fttune.runtime import Runtime
from fttune.training.bench import Bench
from fttune.training.probe import rehearse
from fttune.training.run import run_bundle, run_trial
from fttune.trial import Trial, Views
from values import HPARAMS, make_trial

CLOCKED = ("seconds", "data_seconds", "feature_seconds", "train_seconds", "eval_seconds", "images_per_second")
FROZEN, TUNED = "F(1-2)R(3-4)", "T(1-2)R(3-4)"


@pytest.fixture
def runtime(root: Path, tmp_path: Path) -> Runtime:
    return Runtime(store=root, cache=tmp_path / "cache", device="cpu", threads=1, git_commit="abc")


def trial_on(store: ImageStore, spec: str, *, views: Views = "center", **changes: Any) -> Trial:
    weights = backbones.weights_digest("tiny")
    hparams = replace(HPARAMS, views=views)
    return make_trial(spec, hparams=hparams, data_digest=store.digest, weights_digest=weights, **changes)


def run(
    trial: Trial, runtime: Runtime, depths: tuple[int, ...] | None = None
) -> tuple[dict[str, object], list[CurvePoint]]:
    """The record without its clocks, and the curve; `depths` other than those of the trial alone."""
    points: list[CurvePoint] = []
    bundle = Bundle.alone(trial) if depths is None else Bundle(trials=(trial,), depths=depths)
    (done,) = run_bundle(bundle, runtime, lambda _, point: points.append(point))
    record = asdict(done)
    return {name: value for name, value in record.items() if name not in (*CLOCKED, "peak_memory_mb")}, points


@pytest.mark.parametrize("views", ["center", "flip", "fixed-3", "crop"])
@pytest.mark.parametrize("spec", [FROZEN, TUNED])
def test_one_seed_one_result(store: ImageStore, runtime: Runtime, spec: str, views: Views, tmp_path: Path) -> None:
    trial = trial_on(store, spec, views=views)
    state = torch.get_rng_state()
    first = run(trial, runtime)
    torch.rand(7)
    assert run(trial, replace(runtime, cache=tmp_path / "other")) == first
    assert run(replace(trial, seed=1), runtime) != first
    torch.set_rng_state(state)


@pytest.mark.parametrize("spec", [FROZEN, TUNED])
def test_a_process_that_trains_loads_nothing_of_torchs_compiler(store: ImageStore, root: Path, spec: str) -> None:
    code = f"""
import sys
from pathlib import Path
from test_run import Runtime, run_trial, trial_on
class store: digest = {store.digest!r}
runtime = Runtime(store=Path({str(root)!r}), cache=Path("cache"), state=Path("state"), device="cpu", threads=1)
run_trial(trial_on(store, {spec!r}), runtime, lambda point: None)
print(*{{"torch", "torch._dynamo", "torch._inductor", "sympy"}} & {{*sys.modules}})
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["torch"], "it takes each process two seconds"


def test_each_seed_of_a_bundle_brings_tables_of_features_of_its_own(store: ImageStore, runtime: Runtime) -> None:
    trials = [trial_on(store, FROZEN, views="flip", seed=seed) for seed in range(2)]
    one, two = (rehearse(Bundle(trials=tuple(trials[:count]), depths=(2,)), runtime) for count in (1, 2))
    test, training = 10 * 5, 10 * (2 * 5 + 2)  # of ten classes; each training image in two views
    each = one // test
    assert one == each * test > 0, "the test set is opened at the end"
    assert two - one > each * (training + test)


@pytest.mark.parametrize("spec", [FROZEN, TUNED])
def test_a_training_below_its_bar_ends_there_with_what_it_had_and_one_above_it_is_as_without(
    store: ImageStore, runtime: Runtime, spec: str
) -> None:
    trial = trial_on(store, spec)
    whole, points = run(trial, runtime)
    assert whole["val_curve"] == ",".join(repr(point.val_accuracy) for point in points)
    reached = tuple((point.step, point.val_accuracy) for point in points[:-1])
    kept, again = run(replace(trial, bar=reached), runtime)
    assert (kept | {"trial_id": trial.id}, again) == (whole, points)
    low, seen = run(replace(trial, bar=((points[1].step, points[1].val_accuracy + 0.01),)), runtime)
    assert (low["status"], low["pruned_step"], len(seen)) == ("done", points[1].step, 2)
    assert low["val_accuracy"] == max(point.val_accuracy for point in points[:2])
    assert low["test_accuracy"] is not None


def test_a_fold_is_judged_by_the_part_that_is_held_out(store: ImageStore, runtime: Runtime) -> None:
    sizes = [run(trial_on(store, FROZEN, fold=(k, 3)), runtime)[0] for k in (1, 2, 3)]
    # Five images to train on and two for val, of ten classes.
    assert [(one["train_images"], one["val_images"], one["fold"], one["folds"]) for one in sizes] == [
        (40, 30, 1, 3), (50, 20, 2, 3), (50, 20, 3, 3)
    ]  # fmt: skip


def test_the_global_generator_is_left_alone(store: ImageStore, runtime: Runtime) -> None:
    before = torch.get_rng_state()
    run(trial_on(store, FROZEN), runtime)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_record_tells_the_trial_and_what_was_measured(store: ImageStore, runtime: Runtime) -> None:
    trial = trial_on(store, TUNED)
    points: list[CurvePoint] = []
    record = run_trial(trial, runtime, points.append)
    assert record == replace(RunRecord.of(trial, status="done", git_commit="abc"), **measured(record))
    assert (record.train_images, record.val_images, record.test_images, record.classes) == (50, 20, 50, 10)
    assert record.val_accuracy == max(point.val_accuracy for point in points)
    assert [point.step for point in points] == [5, 10, 15, 20]
    assert 0 <= (record.test_accuracy or 0) <= 1
    assert record.seconds is not None
    assert record.seconds >= (record.train_seconds or 0) > 0


def measured(record: RunRecord) -> dict[str, object]:
    asked = asdict(RunRecord.of(make_trial(), status="done"))
    return {
        name: value for name, value in asdict(record).items() if asked[name] is None or name in ("device", "val_curve")
    }


@pytest.mark.parametrize("views", ["center", "flip", "fixed-3"])
def test_cached_features_train_as_the_whole_network_does(store: ImageStore, runtime: Runtime, views: Views) -> None:
    trial = trial_on(store, FROZEN, views=views)
    cached, points = run(trial, runtime)
    assert list(runtime.cache.glob("*/*.arrow"))
    whole, again = run(trial, replace(runtime, cache=runtime.cache / "none"), depths=())
    assert not (runtime.cache / "none").exists()
    assert [point.step for point in again] == [point.step for point in points]
    for left, right in zip(points, again, strict=True):
        assert left.train_loss == pytest.approx(right.train_loss, rel=1e-4)
        assert left.val_accuracy == right.val_accuracy
    assert whole["test_accuracy"] == cached["test_accuracy"]


def test_both_members_of_a_pair_are_shown_the_same_views(store: ImageStore, runtime: Runtime) -> None:
    frozen, tuned = (
        Bench.set_up(trial_on(store, spec, views="fixed-3"), runtime, ()).train() for spec in (FROZEN, TUNED)
    )
    rows = torch.tensor([4, 0, 4, 9])
    assert torch.equal(*(part.inputs.draw(rows, torch.Generator().manual_seed(1)) for part in (frozen, tuned)))


def test_crops_of_a_frozen_network_cache_nothing(store: ImageStore, runtime: Runtime) -> None:
    run(trial_on(store, FROZEN, views="crop"), runtime)
    assert not runtime.cache.exists()


def test_a_second_trial_on_the_same_frozen_part_computes_it_no_more(store: ImageStore, runtime: Runtime) -> None:
    run(trial_on(store, FROZEN), runtime)
    files = {path: path.stat().st_ino for path in runtime.cache.glob("*/*.arrow")}
    assert files
    other = trial_on(store, FROZEN)
    run(replace(other, hparams=replace(other.hparams, lr=0.01)), runtime)
    assert {path: path.stat().st_ino for path in runtime.cache.glob("*/*.arrow")} == files


def test_more_images_keep_the_fewer_among_them_and_val_and_test_stay(store: ImageStore, runtime: Runtime) -> None:
    changes: list[dict[str, Any]] = [
        {"images_per_class": 3},
        {"images_per_class": 8},
        {"images_per_class": 3, "seed": 5},
    ]
    few, many, other = (Bench.set_up(trial_on(store, TUNED, **change), runtime, ()).split for change in changes)
    assert set(few.train) < set(many.train)
    assert set(few.train) != set(other.train)
    assert few.val.tolist() == many.val.tolist() == other.val.tolist()
    assert few.test.open().tolist() == other.test.open().tolist()


def test_the_test_set_opens_once(store: ImageStore, runtime: Runtime) -> None:
    split = Bench.set_up(trial_on(store, TUNED), runtime, ()).split
    split.test.open()
    with pytest.raises(FttuneError):
        split.test.open()


def test_a_dataset_that_was_never_prepared_is_a_clear_error(
    store: ImageStore, runtime: Runtime, tmp_path: Path
) -> None:
    with pytest.raises(StoreError, match="prepare"):
        run(trial_on(store, TUNED), replace(runtime, store=tmp_path / "none"))


def test_too_few_images_say_how_many_there_are(store: ImageStore, runtime: Runtime) -> None:
    with pytest.raises(DataError, match="170"):
        run(trial_on(store, TUNED, images_per_class=170), runtime)
