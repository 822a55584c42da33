"""The network of a real sweep, asked for by its trial: exported, shown images, and said where it is not."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from fttune import trained
from fttune.backbones.tensors import read_values
from fttune.classifier import onnx
from fttune.config import load_sweep
from fttune.data.store import open_store
from fttune.errors import UsageError
from fttune.record import RunRecord
from fttune.sweep.driver import machine
from fttune.sweep.ground import survey
from fttune.tracking.models import Models
from fttune.tracking.runs import Tracker
from fttune.training.bench import Bench
from fttune.trial import stored_size
from small_sweeps import database, fttune, write_sweep
from stores import runs_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the small sweep was run with `train.keep: best`."""
    folder = tmp_path_factory.mktemp("swept")
    sweep = write_sweep(folder, tables=True)
    places = {f"FTTUNE_{name}": str(folder / name.lower()) for name in ("STORE", "CACHE", "STATE", "NETWORKS")}
    done = fttune("run", sweep, "train.keep=best", MLFLOW_TRACKING_URI=database(folder), **places)
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("kept the network of "))
    assert line.endswith(f"fttune predict {best(folder).trial_id} IMAGES")
    assert not list((folder / "state").glob("*.networks"))
    return folder


@pytest.fixture(autouse=True)
def _asked_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database(folder))


def best(folder: Path) -> RunRecord:
    """The trial whose network the sweep keeps."""
    (held,) = Models(Tracker(database(folder), "fttune")).kept("small")
    return held.record


def export(key: str, format_: Any = "safetensors", **changes: Any) -> None:
    trained.export_network(
        key, format_, **({"experiment": "fttune", "out": None, "force": False, "as_json": False} | changes)
    )


def shared_digit(folder: Path) -> tuple[str, int]:
    """The first digit of most runs, by their trial's id or MLflow's, and of how many."""
    ids = [(run.info.run_id, run.data.tags["fttune.trial_id"]) for run in runs_of(database(folder), "fttune")]
    (found,) = Counter(digit for pair in ids for digit in {key[0] for key in pair}).most_common(1)
    return found


def test_the_best_on_val_of_all_trials_is_kept(folder: Path) -> None:
    records = Tracker(database(folder), "fttune").records()
    assert len(records) == 8
    assert best(folder).val_accuracy == max(record.val_accuracy or 0 for record in records)


def drawn(folder: Path) -> tuple[set[str], set[str]]:
    """The files that the kept network was chosen on, and those that it was tested on, as CLASS/NAME."""
    sweep = load_sweep(folder / "small.yaml")
    runtime = replace(machine(sweep), store=folder / "store")
    (trial,) = (trial for trial in survey(sweep, runtime).trials if trial.id == best(folder).trial_id)
    split = Bench.set_up(trial, runtime, ()).split
    keys = open_store(root=runtime.store, digest=trial.data_digest, size=stored_size(32), resize="crop").keys
    return {keys[row] for row in split.val}, {keys[row] for row in split.test.open()}


def test_images_get_labels_and_probabilities(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    bad = folder / "bad.png"
    bad.write_text("no image")
    code = trained.predict(
        best(folder).trial_id[:8], [folder / "photos", bad], experiment="fttune", top=2, as_json=True
    )
    told, said = capsys.readouterr()
    document = json.loads(told)
    assert code == 2
    assert said.strip() == f"error: {bad} is no image that can be read: no image of a known format"
    assert document["unreadable"] == [{"image": str(bad), "reason": "no image of a known format"}]
    assert len(document["images"]) == 60
    files = {"/".join(Path(row["image"]).parts[-2:]): row["label"] for row in document["images"]}
    for rows, accuracy in zip(drawn(folder), (best(folder).val_accuracy, best(folder).test_accuracy), strict=True):
        assert fmean(files[key] == Path(key).parent.name for key in rows) == pytest.approx(accuracy)
    for row in document["images"]:
        assert row["top"][0] == {"label": row["label"], "probability": row["probability"]}
        first, second = (one["probability"] for one in row["top"])
        third = 1 - first - second  # of the class that is not told
        assert -1e-6 <= third <= second + 1e-6
        assert second <= first


def test_a_network_is_exported_once_and_replaced_only_on_demand(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = best(folder).trial_id
    export(key, as_json=True)
    facts = json.loads(capsys.readouterr().out)
    assert facts["file"] == f"{key}.safetensors"
    assert facts["classes"] == ["c0", "c1", "c2"] == read_values(tmp_path / facts["file"])["classes"]
    assert read_values(tmp_path / facts["file"])["record"]["trial_id"] == key
    with pytest.raises(UsageError, match=f"{key}.safetensors exists: --force replaces it"):
        export(key)
    export(key, force=True)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [facts["file"]]


def test_what_cannot_be_given_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = Tracker(database(folder), "fttune").records()
    other = next(record for record in records if record.trial_id != best(folder).trial_id)
    says = {
        "ffffffffffffffff": "no run 'ffffffffffffffff' in experiment fttune of sqlite:///.*; `fttune runs` lists",
        "digits": "named by its MLflow run id or its trial id",
        other.trial_id: f"fttune run SWEEP.yaml train.keep=all --again {other.trial_id}",
    }
    digit, count = shared_digit(folder)
    says[digit] = f"{count} runs begin with '{digit}': "
    for key, line in says.items():
        with pytest.raises(UsageError, match=line) as error:
            export(key)
        assert "\n" not in str(error.value)
    monkeypatch.setattr(onnx, "_NEEDED", ("onnx", "a_package_that_is_not_here"))
    with pytest.raises(UsageError, match=r"not here: install fttune\[onnx\]"):
        export(best(folder).trial_id, "onnx")


def test_the_commands_print_and_refuse(folder: Path) -> None:
    key = best(folder).trial_id
    shown = fttune("predict", key, folder / "photos" / "c0" / "000.png")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.splitlines()[0].split() == ["image", "label", "probability", "then"]
    refused = fttune("predict", key, folder / "nowhere")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == f"error: no image {folder / 'nowhere'}: there is no such file or folder\n"


def test_a_plan_tells_how_many_networks_are_kept(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path)
    told = {keep: json.loads(fttune("plan", sweep, f"train.keep={keep}", "--json").stdout) for keep in ("best", "all")}
    assert [told[keep]["kept_networks"] for keep in ("best", "all")] == [1, 8]
