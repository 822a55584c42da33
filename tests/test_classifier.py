"""A kept network is the trained one: the same logits, the same accuracy, in every form in which it is given away."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from fttune.backbones import catalog as backbones
from fttune.backbones.staged import replace_classifier
from fttune.backbones.tensors import read_tensors, read_with_values, write_tensors
from fttune.bundle import Bundle
from fttune.classifier import images, part
from fttune.classifier.card import Card, Preprocessing
from fttune.classifier.network import Classifier, complete
from fttune.classifier.onnx import write_onnx
from fttune.data.readers import FolderSource
from fttune.data.store import ImageStore, build
from fttune.data.views import centre
from fttune.errors import DataError, WeightsError
from fttune.record import RunRecord
from fttune.runtime import Runtime
from fttune.training.bench import Bench
from fttune.training.run import run_bundle
from fttune.trial import Trial
from images import make_folder
from values import HPARAMS, make_trial


@pytest.fixture(scope="module")
def runtime(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    base = tmp_path_factory.mktemp("places")
    return Runtime(store=root, cache=base / "cache", device="cpu", threads=1, networks=base / "networks")


def trial_of(store: ImageStore, spec: str, *, seed: int = 0, way: str = "plain", **changes: object) -> Trial:
    digests = {"data_digest": store.digest, "weights_digest": backbones.weights_digest("tiny")}
    return make_trial(spec, seed=seed, way=way, hparams=replace(HPARAMS, **changes), **digests)


def train(trials: Sequence[Trial], runtime: Runtime) -> list[RunRecord]:
    frozen = trials[0].cell.spec.frozen
    return run_bundle(Bundle(trials=tuple(trials), depths=(frozen,) if frozen else ()), runtime, lambda *_: None)


def keep(record: RunRecord, runtime: Runtime, path: Path) -> tuple[Classifier, Card]:
    """What becomes of the part that a trial left, read from the file it is kept in."""
    assert runtime.networks is not None
    left = part.Part.read(part.file_of(runtime.networks, record.trial_id))
    look = Preprocessing.of(record, left.mean, left.std)
    complete(left, Card(classes=left.classes, preprocessing=look, val_loss=left.val_loss, record=record), None, path)
    return Classifier.load(path)


def pixels(runtime: Runtime, trial: Trial, rows: np.ndarray) -> Tensor:
    bench = Bench.set_up(trial, runtime, ())
    return centre(torch.from_numpy(bench.store.images(rows)), trial.hparams.image_size).permute(0, 2, 3, 1)


@pytest.mark.parametrize(
    ("spec", "way"),
    [
        ("T(1-3)R(4)", "plain"),
        ("F(1-2)T(3)R(4)", "plain"),
        ("F(1-3)R(4)", "plain"),
        ("R(1-4)", "plain"),
        ("T(1-3)R(4)", "gradual"),
        ("F(1-3)R(4)", "probe"),
    ],
)
def test_a_kept_network_does_on_val_what_its_trial_did(
    store: ImageStore, runtime: Runtime, tmp_path: Path, spec: str, way: str
) -> None:
    trial = trial_of(store, spec, way=way, views="flip", bn="batch")
    (record,) = train([trial], runtime)
    network, card = keep(record, runtime, tmp_path / "kept.safetensors")
    split = Bench.set_up(trial, runtime, ()).split
    told = network.probabilities(pixels(runtime, trial, split.val)).argmax(1).numpy()
    assert (told == store.labels[split.val]).mean() == record.val_accuracy
    assert card.record == record
    assert card.classes == store.classes


def test_a_kept_network_gives_the_probabilities_of_the_trained_one_bit_for_bit(
    store: ImageStore, runtime: Runtime, tmp_path: Path
) -> None:
    trial = trial_of(store, "F(1)T(2-3)R(4)", bn="batch")
    (record,) = train([trial], runtime)
    network, _ = keep(record, runtime, tmp_path / "kept.safetensors")
    bench = Bench.set_up(trial, runtime, ())
    state = read_tensors(part.file_of(runtime.networks or tmp_path, trial.id))
    bench.student.trained.load_state_dict(state)  # as the trial ended
    bench.student.eval()
    val = bench.val()
    with torch.inference_mode():
        trained = val.logits(val.inputs.show(slice(0, 20)))
        kept = network.probabilities(pixels(runtime, trial, bench.split.val[:20]))
    assert torch.equal(kept, trained.softmax(1))


def test_only_what_was_trained_is_left_by_a_trial(store: ImageStore, runtime: Runtime) -> None:
    trial = trial_of(store, "F(1-3)R(4)")
    train([trial], runtime)
    assert set(read_tensors(part.file_of(runtime.networks or Path(), trial.id))) == {"3.1.weight", "3.1.bias"}


def test_a_trial_leaves_nothing_where_nobody_keeps_it(store: ImageStore, runtime: Runtime, tmp_path: Path) -> None:
    train([trial_of(store, "F(1-3)R(4)", seed=9)], replace(runtime, networks=None))
    assert not list(tmp_path.iterdir())


def test_classifiers_that_train_together_leave_what_each_leaves_alone(
    store: ImageStore, runtime: Runtime, tmp_path: Path
) -> None:
    trials = [trial_of(store, "F(1-3)R(4)", seed=seed, lr=lr, steps=60) for seed in (0, 3) for lr in (0.05, 0.2)]
    beside = replace(runtime, networks=tmp_path / "together")
    assert [record.together for record in train(trials, beside)] == [4] * 4
    for trial in trials:
        train([trial], runtime)
        alone, values = read_with_values(part.file_of(runtime.networks or tmp_path, trial.id))
        among, told = read_with_values(part.file_of(tmp_path / "together", trial.id))
        assert alone.keys() == among.keys()
        for name, value in alone.items():
            torch.testing.assert_close(among[name], value, rtol=1e-3, atol=1e-5)
        assert told["val_accuracy"] == values["val_accuracy"]
        assert told["val_loss"] == pytest.approx(values["val_loss"], rel=1e-4)


@pytest.mark.parametrize(("backbone", "side"), [("tiny", 32), ("efficientnet_lite0", 48)])
def test_onnx_gives_the_probabilities_of_torch_for_any_number_of_images(
    tmp_path: Path, backbone: str, side: int
) -> None:
    import onnxruntime

    row, names = backbones.find(backbone), ("a", "b", "c")
    net = backbones.load(backbone)
    replace_classifier(net, len(names))
    record = RunRecord.of(make_trial(backbone=backbone, hparams=replace(HPARAMS, image_size=side)), status="done")
    card = Card(classes=names, preprocessing=Preprocessing.of(record, row.mean, row.std), val_loss=0.5, record=record)
    network = Classifier(net, row.mean, row.std)
    write_onnx(network, card, tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    for count in (1, 3):
        shown = np.random.default_rng(count).integers(0, 256, (count, side, side, 3), np.uint8)
        told: Any = session.run(["probabilities"], {"images": shown})[0]
        np.testing.assert_allclose(told, network.probabilities(torch.from_numpy(shown)).numpy(), atol=1e-5)
    metadata = session.get_modelmeta().custom_metadata_map
    assert metadata["classes"] == '["a", "b", "c"]'
    assert f"{side} x {side} px from the centre" in metadata["images"]


@pytest.mark.parametrize("resize", ["crop", "warp"])
def test_a_file_is_shown_as_the_evaluation_shows_it(tmp_path: Path, resize: str) -> None:
    source = FolderSource(make_folder(tmp_path / "photos", images=4))
    Image.new("RGBA", (90, 50), (200, 30, 30, 128)).save(tmp_path / "photos" / "c0" / "wide.png")
    record = RunRecord.of(make_trial(hparams=replace(HPARAMS, resize=resize)), status="done")
    look = Preprocessing.of(record, (0.5,) * 3, (0.5,) * 3)
    store = build(source, name="mine", size=look.stored_side, resize=look.resize, root=tmp_path / "store")
    files = [tmp_path / "photos" / key for key in store.keys]
    read = images.read(files, look)
    assert not any(isinstance(image, str) for image in read)
    shown = images.cut([image for image in read if not isinstance(image, str)], look)
    stored = torch.from_numpy(store.images(np.arange(len(files))))
    assert torch.equal(shown, centre(stored, look.image_size).permute(0, 2, 3, 1))


def test_what_is_no_image_is_a_reason_and_a_path_that_is_not_there_an_error(tmp_path: Path) -> None:
    make_folder(tmp_path / "photos", classes=1, images=2)
    (tmp_path / "photos" / "c0" / "bad.png").write_text("no image")
    (tmp_path / "photos" / "notes.txt").write_text("no image either, and not called one")
    (tmp_path / "empty").mkdir()
    files = images.found([tmp_path / "photos", tmp_path / "photos" / "notes.txt"])
    assert [file.name for file in files] == ["000.png", "001.png", "bad.png", "notes.txt"]
    record = RunRecord.of(make_trial(), status="done")
    read = images.read(files, Preprocessing.of(record, (0.5,) * 3, (0.5,) * 3))
    assert [image for image in read if isinstance(image, str)] == ["no image of a known format"] * 2
    with pytest.raises(DataError, match="nowhere: there is no such file or folder"):
        images.found([tmp_path / "nowhere"])
    with pytest.raises(DataError, match="empty holds no image"):
        images.found([tmp_path / "empty"])


def test_a_file_that_is_no_kept_network_is_one_line(store: ImageStore, runtime: Runtime, tmp_path: Path) -> None:
    trial = trial_of(store, "F(1-3)R(4)")
    (record,) = train([trial], runtime)
    path = tmp_path / "kept.safetensors"
    keep(record, runtime, path)
    state, told = read_with_values(path)
    write_tensors(state, tmp_path / "bare.safetensors")
    write_tensors(
        {name: value for name, value in state.items() if name != "3.1.bias"}, tmp_path / "less.safetensors", told
    )
    (tmp_path / "torn.safetensors").write_bytes(path.read_bytes()[:-100])
    for name, says in (("bare", "no network that fttune kept"), ("less", "3.1.bias"), ("torn", "not a whole file")):
        with pytest.raises(WeightsError, match=says) as error:
            Classifier.load(tmp_path / f"{name}.safetensors")
        assert "\n" not in str(error.value)


def test_a_part_is_not_completed_with_other_weights(store: ImageStore, runtime: Runtime, tmp_path: Path) -> None:
    (record,) = train([trial_of(store, "F(1-3)R(4)")], runtime)
    with pytest.raises(WeightsError, match="not those of trial"):
        keep(replace(record, weights_digest="another"), runtime, tmp_path / "kept.safetensors")
    assert not (tmp_path / "kept.safetensors").exists()
