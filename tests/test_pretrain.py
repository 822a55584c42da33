"""A source network from scratch: resumed bit by bit, registered whole, found by sweeps; mistakes are one line."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from fttune.backbones import catalog, networks
from fttune.backbones.source import available, source_mean
from fttune.backbones.tensors import read_tensors
from fttune.config import load_sweep
from fttune.data.catalog import folder
from fttune.data.store import ImageStore, build
from fttune.describe import Measurement, backbone_rows, measured
from fttune.errors import ConfigError, DataError, FttuneError, StoreError, UsageError, WeightsError
from fttune.features import Norm
from fttune.files import claimed, place
from fttune.pretraining import pretrain_network
from fttune.recipe import load_recipe
from fttune.record import CurvePoint
from fttune.runtime import Runtime
from fttune.sweep.ground import prepare
from fttune.training.inputs import ImageInputs, StoredInputs, Viewer, stored
from fttune.training.pretrain import Pretraining, Trained, fresh, pretrain
from fttune.training.run import run_trial
from fttune.training.surgery import parameter_groups
from fttune.trial import Views
from images import make_folder
from small_sweeps import fttune_anew, write_sweep
from stores import wait_until
from values import HPARAMS

WITHOUT_CLOCK = ("train_images", "val_images", "curve", "device")


class Watcher:
    """Keeps what it is told, and stops or dies where it should."""

    def __init__(self, *, dies_at: int | None = None) -> None:
        self.points: list[CurvePoint] = []
        self.steps: list[int] = []
        self._dies_at = dies_at

    def at(self, step: int) -> None:
        self.steps.append(step)

    def point(self, point: CurvePoint) -> None:
        self.points.append(point)
        if point.step == self._dies_at:
            raise SystemExit


class After:
    """True once it was asked so many times: an interruption after that many steps."""

    def __init__(self, steps: int) -> None:
        self._left = steps

    def __call__(self) -> bool:
        self._left -= 1
        return self._left < 0


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ImageStore:
    root = tmp_path_factory.mktemp("source")
    source = folder("mine", make_folder(root / "images", images=14)).source()
    return build(source, name="mine", size=37, resize="crop", root=root / "store")


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    return Runtime(store=tmp_path / "store", cache=tmp_path / "cache", device="cpu", threads=1)


def job_on(store: ImageStore, *, checkpoint_every: int = 8, **changes: Any) -> Pretraining:
    hparams = replace(HPARAMS, **({"views": "crop", "lr_drop_steps": (6, 12)} | changes))
    return Pretraining(
        backbone="tiny",
        source="mine",
        data_digest=store.digest,
        val_per_class=3,
        test_per_class=0,
        hparams=hparams,
        seed=0,
        checkpoint_every=checkpoint_every,
    )


def train(job: Pretraining, store: ImageStore, runtime: Runtime, path: Path, watcher: Watcher | None = None) -> Trained:
    outcome = pretrain(job, store, runtime, path=path, watcher=watcher or Watcher())
    assert outcome is not None
    return outcome


def same(one: Trained, other: Trained) -> bool:
    """Weights, statistics and the whole curve are equal to the last bit."""
    states = one.net.state_dict(), other.net.state_dict()
    assert states[0].keys() == states[1].keys()
    weights = all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    return weights and all(getattr(one, name) == getattr(other, name) for name in WITHOUT_CLOCK)


@pytest.mark.parametrize("dies_at", [5, 10, 15])
def test_a_training_killed_between_checkpoints_ends_as_one_that_never_was(
    store: ImageStore, runtime: Runtime, tmp_path: Path, dies_at: int
) -> None:
    job, path = job_on(store), tmp_path / "work" / "checkpoint.safetensors"
    whole = train(job, store, runtime, tmp_path / "whole.pt")
    with pytest.raises(SystemExit):
        train(job, store, runtime, path, watcher=Watcher(dies_at=dies_at))
    torch.rand(3)
    watcher = Watcher()
    again = train(job, store, runtime, path, watcher=watcher)
    assert watcher.steps[0] == dies_at // 8 * 8
    assert same(again, whole)


@pytest.mark.parametrize("steps", [0, 1, 7, 10, 16, 19])
def test_an_interrupted_training_is_saved_where_it_stood_and_goes_on_the_same(
    store: ImageStore, runtime: Runtime, tmp_path: Path, steps: int
) -> None:
    job, path = job_on(store), tmp_path / "checkpoint.safetensors"
    whole = train(job, store, runtime, tmp_path / "whole.pt")
    first, watcher = Watcher(), Watcher()
    assert pretrain(job, store, runtime, path=path, watcher=first, interrupted=After(steps)) is None
    again = train(job, store, runtime, path, watcher=watcher)
    assert watcher.steps[0] == first.steps[-1] <= steps
    assert same(again, whole)
    assert [point.step for point in first.points + watcher.points] == [5, 10, 15, 20]


def test_how_often_a_training_is_saved_changes_nothing(store: ImageStore, runtime: Runtime, tmp_path: Path) -> None:
    often, seldom = (
        train(job_on(store, checkpoint_every=every), store, runtime, tmp_path / f"{every}.pt") for every in (1, 20)
    )
    assert same(often, seldom)


def test_another_seed_is_another_network(store: ImageStore, runtime: Runtime, tmp_path: Path) -> None:
    job = job_on(store)
    one, other = (train(replace(job, seed=s), store, runtime, tmp_path / f"{s}.pt") for s in (0, 1))
    assert not same(one, other)


def test_a_network_learns_its_source(store: ImageStore, runtime: Runtime, tmp_path: Path) -> None:
    outcome = train(job_on(store, steps=60, lr_drop_steps=()), store, runtime, tmp_path / "c.pt")
    assert (outcome.train_images, outcome.val_images) == (33, 9)
    assert outcome.best.val_accuracy == max(point.val_accuracy for point in outcome.curve) > 0.9
    assert outcome.curve[-1].train_loss < outcome.curve[0].train_loss / 2


def test_every_layer_starts_anew_and_learns_at_the_full_rate() -> None:
    row = catalog.find("efficientnet_lite0")
    student = fresh(row, 7, 3)
    groups = parameter_groups(student, HPARAMS)
    assert [group["lr"] for group in groups] == [HPARAMS.lr]
    assert sum(len(group["params"]) for group in groups) == len(list(student.trained.parameters()))  # pyright: ignore
    pairs = list(zip(student.trained.named_modules(), catalog.build(row.name).modules(), strict=True))
    norms = [(ours, theirs) for (_, ours), theirs in pairs if isinstance(theirs, torch.nn.BatchNorm2d)]
    assert norms
    for ours, theirs in norms:
        assert isinstance(ours, torch.nn.BatchNorm2d)
        assert ours.momentum == theirs.momentum, "a long training keeps the momentum of its own network"
    again, other = fresh(row, 7, 3).trained.state_dict(), fresh(row, 7, 4).trained.state_dict()
    kept = student.trained.state_dict()
    assert all(torch.equal(kept[name], again[name]) for name in kept)
    drawn = [name for name, value in student.trained.named_parameters() if value.ndim > 1]
    assert not any(torch.equal(kept[name], other[name]) for name in drawn)
    student.train()
    assert all(module.training for module in student.trained.modules())


@pytest.mark.parametrize("views", ["crop", "fixed-3"])
def test_images_read_batch_by_batch_are_those_held_in_memory(store: ImageStore, views: Views) -> None:
    rows, norm = np.arange(1, len(store.labels), 2), Norm(mean=(0.5,) * 3, std=(0.5,) * 3)
    viewer = Viewer.of(replace(HPARAMS, views=views), store.size, rows)
    size = len(rows) * store.size**2 * 3
    read, held = (stored(store, rows, torch.device("cpu"), viewer, norm, room=room) for room in (size - 1, size))
    assert (type(read), type(held)) == (StoredInputs, ImageInputs)
    which = torch.tensor([3, 0, 3, 11])
    drawn = [inputs.draw(which, torch.Generator().manual_seed(0)) for inputs in (read, held)]
    assert torch.equal(*drawn)
    assert torch.equal(read.show(slice(4, 9)), held.show(slice(4, 9)))
    assert len(read) == len(held) == len(rows)


def test_a_loss_that_leaves_the_numbers_is_one_line_and_reaches_no_checkpoint(
    store: ImageStore, runtime: Runtime, tmp_path: Path
) -> None:
    job, path = job_on(store, lr=1e30, checkpoint_every=1), tmp_path / "c.pt"
    with pytest.raises(FttuneError, match=r"it left the numbers before step \d: lower train.lr \(1e\+30\)"):
        train(job, store, runtime, path)
    saved = read_tensors(path)
    assert saved["/training/total"].isfinite()


def test_a_checkpoint_of_other_settings_is_refused_by_name(store: ImageStore, runtime: Runtime, tmp_path: Path) -> None:
    path = tmp_path / "work" / "c.pt"
    train(job_on(store), store, runtime, path)
    with pytest.raises(UsageError, match=rf"stands at {path.parent}: lr is 0.05 there and 0.1 here; remove the folder"):
        train(job_on(store, lr=0.1), store, runtime, path)
    with pytest.raises(UsageError, match="data_digest is"):
        train(replace(job_on(store), data_digest="other"), store, runtime, path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(StoreError, match=r"c\.pt: damaged checkpoint"):
        train(job_on(store), store, runtime, path)


def test_a_class_too_small_to_hold_out_val_is_named(store: ImageStore, runtime: Runtime, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="class 'c0': has 14 images outside the test set, needs 1 to train on and 14"):
        train(replace(job_on(store), val_per_class=14), store, runtime, tmp_path / "c.pt")


def write_recipe(root: Path, **changes: Any) -> Path:
    """A recipe on a folder of images, done in a second."""
    if not (root / "photos").exists():
        make_folder(root / "photos", images=20)
    recipe = {
        "name": "mine",
        "backbone": "tiny",
        "dataset": {"path": "photos", "val": 3},
        "train": {"lr": 0.05, "steps": 20, "batch_size": 6, "image_size": 32},
        "checkpoint_every": 7,
    } | changes
    path = root / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def pretrained(recipe: Path, *overrides: str) -> int:
    return pretrain_network(load_recipe(recipe, overrides), again="again", as_json=True)


def test_a_trained_network_is_a_backbone_with_its_source_mean(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pretrained(write_recipe(tmp_path)) == 0
    told = json.loads(capsys.readouterr().out)
    row = catalog.find("tiny@mine")
    assert row.weights is not None
    assert str(row.weights()) == told["weights"]
    assert catalog.weights_digest("tiny@mine") == told["weights digest"] != catalog.weights_digest("tiny")
    assert (row.source, row.image_size, row.mean, row.depth) == ("photos", 32, catalog.find("tiny").mean, 4)
    net = catalog.load("tiny@mine")
    assert net[-1][-1].out_features == 3  # pyright: ignore
    mean = source_mean("tiny@mine", 32, "crop")
    assert mean is not None
    assert (mean.images, mean.source, mean.weights_digest) == (30, "photos", told["weights digest"])
    assert available("tiny@mine") == (32,)
    assert "tiny@mine" in {row["name"] for row in backbone_rows()}
    facts = networks.provenance("tiny@mine")
    assert facts is not None
    assert facts["source"]["classes"] == ["c0", "c1", "c2"]
    assert facts["final"] == facts["curve"][-1]
    assert facts["final"]["step"] == facts["train"]["steps"] == 20
    assert not networks.workshop("tiny@mine").exists()


def test_a_recipe_is_trained_once_and_another_of_its_name_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path)
    assert pretrained(recipe) == 0
    before = {path: path.stat().st_mtime_ns for path in networks.folder("tiny@mine").iterdir()}
    first = json.loads(capsys.readouterr().out)
    assert pretrained(recipe, "checkpoint_every=5", "train.report_every=3") == 0
    again = capsys.readouterr()
    assert json.loads(again.out) == first
    assert "is there already, with these settings" in again.err
    with pytest.raises(UsageError, match=r"tiny@mine was trained by another recipe: lr is 0.05 there and 0.1 here"):
        pretrained(recipe, "train.lr=0.1")
    make_folder(tmp_path / "photos", images=21)
    assert pretrained(recipe, "name=other") == 0
    with pytest.raises(UsageError, match="data_digest is"):
        pretrained(recipe)
    assert {path: path.stat().st_mtime_ns for path in networks.folder("tiny@mine").iterdir()} == before


@pytest.mark.parametrize("bad", [b"no image", None])
def test_what_a_source_must_not_hold_is_left_out_where_the_recipe_says_so(tmp_path: Path, bad: bytes | None) -> None:
    recipe = write_recipe(tmp_path)
    first = tmp_path / "photos" / "c0" / "000.png"
    (tmp_path / "photos" / "c2" / "zz.png").write_bytes(first.read_bytes() if bad is None else bad)
    with pytest.raises(DataError, match="skip in a sweep file or a recipe"):
        pretrained(recipe)
    assert pretrained(recipe, "data.corrupt=skip") == 0
    assert pretrained(recipe, "data.corrupt=skip") == 0
    with pytest.raises(DataError, match="skip in a sweep file or a recipe"):
        pretrained(recipe, "name=other")


def test_a_network_is_written_whole_or_not_at_all() -> None:
    def half(made: Path) -> None:
        networks.weights_in(made).write_text("cut")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        networks.register("tiny@mine", half)
    assert networks.names() == []
    networks.register("tiny@mine", lambda made: networks.weights_in(made).touch())
    assert networks.names() == ["tiny@mine"]


def test_a_folder_in_the_way_is_refused_before_the_training(tmp_path: Path) -> None:
    (networks.folder("tiny@mine") / "mine").mkdir(parents=True)
    with pytest.raises(UsageError, match="stands in the way"):
        pretrained(write_recipe(tmp_path))
    assert not networks.workshop("tiny@mine").exists()


def test_a_distance_is_measured_as_its_network_was_trained(tmp_path: Path) -> None:
    assert pretrained(write_recipe(tmp_path), "train.resize=warp", "train.image_size=24") == 0
    target = str(make_folder(tmp_path / "target", images=12, seed=1))
    asked = Measurement(target=target, source=None, backbone="tiny@mine", image_size=None, images=None, root=None)
    facts = measured(asked, "cosine")
    assert (facts["source"], facts["image size"], facts["resize"]) == ("photos", 24, "warp")
    assert facts["metrics"][0]["source images"] == 30
    half = measured(replace(asked, options={"most_per_class": 11}), "cosine")
    assert half["metrics"][0]["images"] == 3 * (11 - 10)
    for changes, shape in (({"resize": "crop"}, "24 px, resize crop"), ({"image_size": 32}, "32 px, resize crop")):
        with pytest.raises(DataError, match=rf"is shipped at {shape} \(sizes shipped: 24 warp\)"):
            measured(replace(asked, **changes), "cosine")


def held_out(name: str) -> tuple[int, int, int | None]:
    """What a network was trained and validated on, and the test images of each class that it has not seen."""
    facts = networks.provenance(name)
    assert facts is not None
    return tuple(facts["source"][key] for key in ("train_images", "val_images", "test_per_class"))


def test_no_network_sees_what_a_sweep_on_its_source_tests_on(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    assert pretrained(recipe) == pretrained(recipe, "name=more", "dataset.test=12") == 0
    assert held_out("tiny@mine") == (3 * (20 - 10 - 3), 9, 10)
    assert held_out("tiny@more") == (3 * (20 - 12 - 3), 9, 12)
    short = ("train.steps=1", "train.batch_size=2", "train.image_size=16")
    assert pretrained(recipe, "name=digits", "dataset={of: digits}", *short) == 0
    assert held_out("tiny@digits") == (1797 - 10 * (40 + 5), 50, 40)
    assert pretrained(recipe, "name=glyphs", "dataset={of: glyphs}", *short) == 0
    assert held_out("tiny@glyphs")[2] is None


def test_a_sweep_that_tests_on_what_its_network_was_trained_on_is_refused(tmp_path: Path, runtime: Runtime) -> None:
    assert pretrained(write_recipe(tmp_path)) == 0

    def grounded(test: int) -> int:
        sets = {"mine": {"path": "photos", "images_per_class": 1, "val": 1, "test": test}}
        grid = {"datasets": sets, "backbones": ["tiny@mine"], "random_top": [1]}
        return len(prepare(load_sweep(write_sweep(tmp_path, grid=grid)), runtime, lambda *_: None).trials)

    assert grounded(10) == 2
    with pytest.raises(ConfigError, match=r"grid\.datasets\.mine: the 12 test images .* tiny@mine .* with 10 left out"):
        grounded(12)


def test_a_network_that_was_never_trained_has_a_row_but_no_weights() -> None:
    row = catalog.find("tiny@none")
    assert (row.name, row.depth) == ("tiny@none", 4)
    assert len(catalog.outline("tiny@none")) == 4
    with pytest.raises(WeightsError, match=r"no network tiny@none at .*: `fttune pretrain` trains it from a recipe"):
        catalog.load("tiny@none")
    with pytest.raises(UsageError, match="unknown backbone 'tinny'; did you mean 'tiny'"):
        catalog.find("tinny@none")


def test_broken_files_of_a_network_are_named(tmp_path: Path) -> None:
    pretrained(write_recipe(tmp_path))
    weights = networks.weights_in(networks.folder("tiny@mine"))
    weights.write_bytes(weights.read_bytes()[:500])
    with pytest.raises(WeightsError, match="not a whole file of safetensors"):
        catalog.load("tiny@mine")
    weights.with_name("provenance.json").write_text("[]")
    with pytest.raises(WeightsError, match=r"provenance\.json: damaged"):
        catalog.find("tiny@mine")


def test_a_network_is_trained_by_one_process_at_a_time(tmp_path: Path) -> None:
    lock, refused = place("state") / "pretrain-tiny@mine.lock", "tiny@mine is being trained by another process"
    with claimed(lock), pytest.raises(UsageError, match=refused):
        pretrained(write_recipe(tmp_path))
    assert networks.names() == []


def stopped(words: list[object], number: signal.Signals, ready: Callable[[], bool]) -> subprocess.CompletedProcess[str]:
    """The command, sent a signal once `ready`."""
    command = [sys.executable, "-m", "fttune.cli", *map(str, words)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as running:
        wait_until(lambda: ready() or running.poll() is not None)
        running.send_signal(number)
        said = running.communicate()[1]
    return subprocess.CompletedProcess(command, running.returncode, stderr=said)


def test_a_command_interrupted_and_then_killed_goes_on_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    recipe, saved = write_recipe(tmp_path), networks.workshop("tiny@mine") / "checkpoint.safetensors"
    words: list[object] = ["pretrain", recipe, "train.steps=900", "checkpoint_every=20", "train.report_every=50"]
    interrupted = stopped(words, signal.SIGINT, saved.exists)
    assert interrupted.returncode == 130, interrupted.stderr
    assert f"this goes on: fttune pretrain {recipe} train.steps=900" in interrupted.stderr
    before = saved.stat().st_mtime_ns
    assert stopped(words, signal.SIGKILL, lambda: saved.stat().st_mtime_ns > before).returncode == -signal.SIGKILL
    assert networks.names() == []
    again = fttune_anew(*words, "--json")  # torch reads the number of threads when it is loaded
    assert "goes on after step" in again.stderr
    whole = fttune_anew(*words, "name=whole", "--json")
    digests = [json.loads(done.stdout)["weights digest"] for done in (again, whole)]
    assert digests[0] == digests[1]


def test_mistakes_are_one_line_and_leave_nothing(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    for override, says in (
        ("backbone=tinny", "did you mean 'tiny'?"),
        ("train.image_size=8", "train.image_size: tiny needs at least 16 px, but got 8"),
        ("dataset=digts", "unknown dataset 'digts'; did you mean 'digits'?"),
        ("dataset.path=nowhere", "nowhere must be a folder of class folders"),
    ):
        with pytest.raises(UsageError) as error:
            pretrained(recipe, override)
        assert says in str(error.value)
    assert not place("networks").exists()


def test_a_sweep_runs_on_a_network_trained_here(tmp_path: Path, runtime: Runtime) -> None:
    assert pretrained(write_recipe(tmp_path)) == 0
    grid = {
        "datasets": {"b": {"of": "glyphs", "half": "b", "images_per_class": 2}},
        "backbones": ["tiny@mine"],
        "random_top": [1],
    }
    ground = prepare(load_sweep(write_sweep(tmp_path, grid=grid)), runtime, lambda *_: None)
    (job,), missing = ground.distances()
    measured = job.measure(runtime)
    assert (measured.source, measured.source_images, missing) == ("photos", 30, [])
    assert measured.value > 0
    records = [run_trial(trial, runtime, lambda _: None) for trial in ground.trials]
    assert [(record.backbone, record.classes, record.status) for record in records] == [("tiny@mine", 13, "done")] * 2
    assert {record.weights_digest for record in records} == {catalog.weights_digest("tiny@mine")}


def test_the_terms_of_a_training_say_everything_but_how_often_it_is_seen(store: ImageStore) -> None:
    job = job_on(store)
    told = asdict(job)
    hparams = told.pop("hparams")
    assert set(told) - set(job.terms) == {"checkpoint_every"}
    assert set(hparams) - set(job.terms) == {"report_every"}
