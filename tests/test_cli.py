"""Commands print one document or one table; bad input is one line and exit code 2, and leaves nothing behind."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from images import make_folder
from test_sweep import fttune, write_sweep


def refused(*words: object, **environment: str) -> str:
    """The one line that a command says about bad input."""
    done = fttune(*words, **environment)
    assert done.returncode == 2, done.stderr + done.stdout
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


def told(*words: object) -> Any:
    done = fttune(*words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("trian.lr=1", "did you mean 'train'?"),
        ("grid.datasets={digts: [5]}", "unknown dataset 'digts'; did you mean 'digits'?"),
        ("grid.backbones=[tinny]", "unknown backbone 'tinny'; did you mean 'tiny'?"),
        ("grid.specs=['T(1-7)R(8)']", "layer spec 'T(1-7)R(8)' has 8 layers, but the network has 4: write T(1-3)R(4)"),
        ("grid.random_top=[9]", "9 new layers do not fit a network of 4"),
        ("resources.gpu=1.5", "resources.gpu: must be 'auto', a fraction <= 1 or a whole number, but got 1.5"),
        ("resources.cpu=999", "resources.cpu: a trial asks for 999, but this machine has"),
        ("grid.seeds=[1,1]", "'1' stands twice"),
        ("grid.datasets.mine.images_per_class=[13]", "has 15 images outside the test set, needs 13 to train on and 3"),
        ("grid.datasets.mine.path=nowhere", "nowhere must be a folder of class folders, but does not exist"),
        ("train.image_size=8", "train.image_size: tiny needs at least 16 px, but got 8"),
        ("data.weights={tiny: cut.pth}", "cut.pth: cannot read the weights"),
    ],
)
def test_a_wrong_sweep_is_one_line(tmp_path: Path, override: str, says: str) -> None:
    assert says in refused("run", write_sweep(tmp_path), override)
    assert not (tmp_path / "runs").exists()


def test_a_file_that_is_no_mapping_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "list.yaml").write_text("- 1\n")
    assert "a sweep file is a mapping" in refused("run", "list.yaml")


@pytest.mark.parametrize(("classes", "says"), [(0, "holds none"), (1, "at least two class folders")])
def test_a_folder_without_classes_is_one_line(tmp_path: Path, classes: int, says: str) -> None:
    (tmp_path / "photos").mkdir()
    make_folder(tmp_path / "photos", classes=classes)
    assert says in refused("run", write_sweep(tmp_path))


def test_corrupt_images_stop_a_sweep_unless_told_to_skip(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path)
    (tmp_path / "photos" / "c0" / "bad.png").write_bytes(b"no image")
    assert "1 corrupt image: c0/bad.png" in refused("run", sweep)
    assert "1 corrupt image: c0/bad.png" in refused("prepare", tmp_path / "photos")
    assert told("prepare", tmp_path / "photos", "--skip-corrupt")["left out as corrupt"] == 1


def test_truncated_weights_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "cut.pth").write_bytes(b"PK\x03\x04 cut")
    sweep = write_sweep(tmp_path)
    assert "not a whole file of torch weights" in refused("run", sweep, "data.weights={tiny: cut.pth}")


def test_a_store_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    line = refused("run", write_sweep(tmp_path), FTTUNE_STORE=str(tmp_path / "file" / "store"))
    assert "cannot write to" in line
    assert "FTTUNE_STORE" in line


def test_an_unknown_condition_is_one_line(tmp_path: Path) -> None:
    assert "did you mean 'mode'" in refused("run", write_sweep(tmp_path), "--only", "moed=tune", "--dry-run")


def test_a_tracker_that_does_not_answer_is_exit_code_4(tmp_path: Path) -> None:
    done = fttune("plan", write_sweep(tmp_path), "tracking.uri=http://127.0.0.1:9")
    assert done.returncode == 4
    assert done.stderr == "error: the tracker http://127.0.0.1:9 does not answer: connection refused\n"


def test_conditions_and_a_limit_choose_what_a_run_starts(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path)
    chosen = told("run", sweep, "--dry-run", "--only", "mode=tune", "--only", "images_per_class=5")
    assert (chosen["to_run"], chosen["chosen"]) == (8, 2)
    assert told("run", sweep, "--dry-run", "--limit", 3)["chosen"] == 3


def test_a_run_that_chooses_nothing_is_exit_code_3(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path)
    for words in (["--only", "seed=7"], ["--retry-failed"]):
        done = fttune("run", sweep, *words)
        assert done.returncode == 3
        assert done.stderr.endswith("no trial meets these conditions\n")


def test_a_spec_is_explained_layer_by_layer() -> None:
    rows = told("spec", "efficientnet_lite0", "F(1-6)T(7-9)R(10)", "--image-size", 64, "--classes", 7)
    assert [row["is"] for row in rows] == ["frozen"] * 6 + ["tuned"] * 3 + ["random"]
    assert [row["rate"] for row in rows] == [0] * 6 + [0.2] * 3 + [1]
    assert rows[0] == {"layer": 1, "name": "stem", "output": "32x32x32", "parameters": 928, "is": "frozen", "rate": 0}
    assert rows[-1]["output"] == "7"
    assert rows[-1]["parameters"] == 7 * 1281
    printed = fttune("spec", "tiny", "T(1-3)R(4)").stdout
    assert "tuned" in printed
    assert "random" in printed
    assert "write T(1-3)R(4)" in refused("spec", "tiny", "T(1-7)R(8)")


def test_the_catalogs_are_listed() -> None:
    assert {"digits", "glyphs", "photos"} <= {row["name"] for row in told("datasets")}
    assert {"efficientnet_lite0", "alexnet", "resnet18", "tiny"} == {row["name"] for row in told("backbones")}


def test_preparing_a_dataset_tells_what_it_holds(tmp_path: Path) -> None:
    make_folder(tmp_path / "photos", images=6)
    (tmp_path / "photos" / "c1" / "000.png").unlink()
    facts = told("prepare", "./photos")
    assert (facts["classes"], facts["images"], facts["smallest class"]) == (3, 17, "c1 (5 images)")


def test_a_distance_names_its_band_and_what_it_rests_on() -> None:
    near = told("distance", "photos", "--image-size", 64)
    far = told("distance", "glyphs", "--image-size", 64)
    assert near["value"] < far["value"]
    assert near["interval"][0] <= near["value"] <= near["interval"][1]
    assert (near["source"], near["source images"], near["image size"]) == ("imagenet", 1000, 64)
    own = told("distance", "photos", "--image-size", 64, "--source", "photos")
    assert own["value"] == pytest.approx(0, abs=1e-6)
    assert "sizes shipped: 64, 96" in refused("distance", "photos", "--image-size", 65)


def test_a_doctor_finds_versions_and_weights() -> None:
    facts = told("doctor")
    assert facts["torch"]
    assert len(facts["weights of efficientnet_lite0"]) == 16
    assert not facts["tracker"].startswith("error")


def test_help_names_every_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fttune.cli", "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "200"},
    )
    for command in (
        "run",
        "plan",
        "status",
        "report",
        "spec",
        "datasets",
        "backbones",
        "prepare",
        "pretrain",
        "distance",
        "doctor",
    ):
        assert f" {command} " in done.stdout
