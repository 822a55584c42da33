"""Commands print one document or one table; bad input is one line and exit code 2, and leaves nothing behind."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fttune.backbones.catalog import BACKBONES
from images import make_folder
from layouts import cub200
from small_sweeps import fttune, fttune_anew, write_sweep
from stores import wait_until


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
        ("distance.metrics=[cosin]", "distance.metrics: unknown metric 'cosin'; did you mean 'cosine'?"),
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


def test_an_interrupt_within_an_import_itself_comes_once_that_can_bear_it() -> None:
    """Where it falls cannot be chosen, so the handler is called as if it had fallen there."""
    code = """
import signal, sys, time
from fttune.interrupt import interrupts_heard

class Finder:
    def find_spec(self, *_):
        self.within = sys._getframe(1)

finder = Finder()
sys.meta_path.insert(0, finder)
try:
    import no_such_module
except ImportError:
    pass
with interrupts_heard() as heard:
    signal.getsignal(signal.SIGINT)(signal.SIGINT, finder.within)
    try:
        for _ in range(100):
            time.sleep(0.1)
    except KeyboardInterrupt:
        print("interrupted", len(heard))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "interrupted 2\n"


END = """
import atexit, gc, sys
from fttune.cli import main

gc.disable()  # what the interpreter searches at its end it searches all the same

class Knot:
    def __init__(self):
        self.me = self

    def __del__(self):
        print("searched")

Knot()
atexit.register(lambda: print("registered", gc.get_threshold()[0]))
main()
"""


@pytest.mark.parametrize(("spec", "exit_code"), [("F(1-2)R(3-4)", 0), ("F(1-2)X(3-4)", 2)])
def test_a_command_ends_with_what_is_registered_for_its_end_but_searches_no_garbage(spec: str, exit_code: int) -> None:
    words = [sys.executable, "-c", END, "spec", "tiny", spec]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (exit_code, "registered 10000"), done.stderr


def test_a_command_that_prints_nothing_needs_no_stdout() -> None:
    words = f"{sys.executable} -m fttune.cli spec tiny 'F(1-2)X(3-4)' >&-"
    done = subprocess.run(words, shell=True, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr


def test_what_could_not_be_printed_is_no_success() -> None:
    with Path("/dev/full").open("w") as full:
        words = [sys.executable, "-m", "fttune.cli", "backbones"]
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode != 0
    assert "No space left" in done.stderr


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
    assert "1 corrupt image: c0/bad.png (no image of a known format); " in refused("run", sweep)
    done = fttune("prepare", tmp_path / "photos")
    found, error = done.stderr.splitlines()
    assert (done.returncode, found[:19]) == (2, "photos: 3 classes, ")
    assert error.startswith("error: dataset 'photos' has 1 corrupt image: c0/bad.png (no image of a known format); ")
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
    assert set(BACKBONES) <= {row["name"] for row in told("backbones")}


def test_preparing_a_dataset_tells_what_it_holds(tmp_path: Path) -> None:
    make_folder(tmp_path / "photos", images=6)
    (tmp_path / "photos" / "c1" / "000.png").unlink()
    facts = told("prepare", "./photos")
    assert (facts["classes"], facts["images"], facts["smallest class"], facts["its images"]) == (3, 17, "c1", 5)


@pytest.mark.parametrize("swallowed", [True, False], ids=["swallowed by a library", "heard"])
def test_an_interrupt_is_one_wherever_it_falls(tmp_path: Path, swallowed: bool) -> None:
    """As half an import of mlflow leaves it: a module without what it should have."""
    (tmp_path / "broken" / "mlflow").mkdir(parents=True)
    interrupted = "import os, signal, time\ntry:\n    os.kill(os.getpid(), signal.SIGINT)\n    time.sleep(9)\n"
    interrupted += f"except {'BaseException' if swallowed else 'OSError'}:\n    pass\n"
    (tmp_path / "broken" / "mlflow" / "__init__.py").write_text(interrupted)
    done = fttune_anew("run", write_sweep(tmp_path), PYTHONPATH=str(tmp_path / "broken"))
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr.startswith("interrupted; what is finished is ")
    assert done.stderr.count("\n") == 1


def test_a_distance_names_its_band_and_what_it_rests_on() -> None:
    near = told("distance", "photos", "--image-size", 64)
    far = told("distance", "glyphs", "--image-size", 64, "--metric", "cosine")
    assert (near["source"], near["image size"]) == ("imagenet", 64)
    rows = {row["metric"]: row for row in near["metrics"]}
    assert rows["cosine"]["value"] < far["metrics"][0]["value"]
    assert rows["cosine"]["low"] <= rows["cosine"]["value"] <= rows["cosine"]["high"]
    assert (rows["cosine"]["band"], rows["cosine"]["images"], rows["cosine"]["source images"]) == ("low", 470, 1000)
    assert rows["mmd"]["value"] > 1
    assert {name: row["value"] for name, row in rows.items() if name in ("svm", "cnn")} == {"svm": None, "cnn": None}
    assert "not measured: needs the images of --source" in fttune("distance", "photos", "--image-size", 64).stdout
    assert "needs the source's images" in refused("distance", "photos", "--image-size", 64, "--metric", "svm")
    assert "did you mean 'cosine'" in refused("distance", "photos", "--image-size", 64, "--metric", "cosin")
    assert "sizes shipped: 64, 96" in refused("distance", "photos", "--image-size", 65)


def test_a_distance_may_be_measured_from_any_images() -> None:
    own = told("distance", "photos", "--image-size", 64, "--source", "photos", "--metric", "cosine")["metrics"][0]
    assert own["value"] == pytest.approx(0, abs=1e-6)
    svm = told("distance", "photos", "--image-size", 64, "--source", "digits", "--metric", "svm")["metrics"][0]
    assert (svm["chance"], svm["interval"], svm["images"]) == (0.5, "range of 5 draws", 470)
    assert svm["value"] > 0.95


def test_a_distance_takes_a_folder_of_one_image_per_class(tmp_path: Path) -> None:
    make_folder(tmp_path / "few", classes=6, images=1)
    asked = ("distance", "photos", "--image-size", 64, "--source", "./few", "--metric", "svm")
    assert told(*asked)["metrics"][0]["images"] == 6
    assert "few: a class has fewer than 10 images, so none is left out as a test set" in fttune(*asked).stderr


def test_a_metric_without_its_source_is_refused_before_an_image_is_read(tmp_path: Path) -> None:
    make_folder(tmp_path / "mine")
    assert "needs the source's images" in refused("distance", "./mine", "--metric", "cnn")
    assert not (tmp_path / "fttune_store").exists()


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


def test_a_download_is_held_against_the_catalog_before_it_is_decoded(tmp_path: Path) -> None:
    cub200(tmp_path)
    done = fttune("prepare", "cub200", "--data-root", tmp_path, "--image-size", 32, "--json")
    facts = json.loads(done.stdout)
    assert (facts["classes"], facts["classes expected"], facts["images"], facts["official test images"]) == (
        3,
        200,
        24,
        9,
    )
    assert (facts["its images"], facts["images needed"], facts["decoded images"]) == (5, 29, 24)
    assert facts["images on disk"] == 24
    first, second, *_ = done.stderr.splitlines()
    assert first == "cub200: 3 classes, 24 of 24 images on disk, 5 in the smallest class (Black_footed_Albatross)"
    assert second == "cub200: 3 classes are used, the catalog expects 200"
    assert "some of its images are in ImageNet" in done.stderr


def test_a_sweep_says_when_a_download_is_not_whole(tmp_path: Path) -> None:
    cub200(tmp_path)
    grid = "{datasets: {cub200: [2]}, backbones: [tiny], random_top: [1]}"
    (tmp_path / "birds.yaml").write_text(f"name: birds\ngrid: {grid}\ntrain: {{image_size: 32}}\n")
    done = fttune("plan", tmp_path / "birds.yaml", f"data.root={tmp_path}")
    assert "cub200: 3 classes are used, the catalog expects 200" in done.stderr.splitlines()


def test_options_choose_a_part_of_a_dataset(tmp_path: Path) -> None:
    make_folder(tmp_path / "photos", classes=4, images=9)
    facts = told("prepare", tmp_path / "photos", "--option", "half=a", "--option", "most_per_class=5")
    assert (facts["classes"], facts["decoded images"]) == (2, 10)
    assert "unknown option 'hlaf'; did you mean 'half'?" in refused("prepare", "digits", "--option", "hlaf=a")


def test_what_cannot_be_downloaded_is_one_line(tmp_path: Path) -> None:
    assert "'mit67' cannot be downloaded by fttune" in refused("prepare", "mit67", "--download")
    assert "--data-root DIR, or FTTUNE_DATA" in refused("prepare", "caltech256", "--download", FTTUNE_DATA="")


def test_a_grid_is_counted_where_its_images_and_weights_are_not(tmp_path: Path) -> None:
    grid = "{datasets: {mit67: [1, 10], coral: [5]}, backbones: [alexnet], random_top: [1, 3]}"
    (tmp_path / "far.yaml").write_text(f"name: far\ngrid: {grid}\ntrain: {{image_size: 64}}\n")
    plan = told("plan", tmp_path / "far.yaml")
    assert (plan["total"], plan["to_run"], plan["not_prepared"]) == (12, 12, ["mit67", "coral"])
    assert "no weights of alexnet at" in plan["absent_weights"][0]
    assert plan["store_bytes"] == (6_700 + 16_000) * 74 * 74 * 3
    assert "no weights of alexnet" in refused("run", tmp_path / "far.yaml")


def test_preparing_can_be_interrupted_and_goes_on(tmp_path: Path) -> None:
    make_folder(tmp_path / "photos", classes=6, images=100, side=240)
    words = [sys.executable, "-m", "fttune.cli", "prepare", str(tmp_path / "photos"), "--json"]
    store = tmp_path / "store"
    environment = {**os.environ, "FTTUNE_STORE": str(store)}
    # A test run in the background of a shell is started with SIGINT ignored, and so would its children be.
    heard = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
    pipe = subprocess.PIPE
    process = subprocess.Popen(words, env=environment, stdout=pipe, stderr=pipe, text=True, preexec_fn=heard)
    journal = lambda: next(store.glob("*.journal"), None)  # noqa: E731
    wait_until(lambda: (path := journal()) is not None and path.read_text().count("\n") > 1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-1] == "interrupted; what is decoded is kept, and the same command goes on"
    assert "Traceback" not in err
    assert journal() is not None
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["decoded images"] == 600
    assert journal() is None


@pytest.mark.parametrize(
    ("name", "trials"), [("paper", 138), ("yosinski", 30), ("smoke", 168), ("yosinski_mini", 36), ("quickstart", 36)]
)
def test_the_sweeps_of_the_project_are_counted_without_their_images(name: str, trials: int) -> None:
    sweep = Path(__file__).parents[1] / "sweeps" / f"{name}.yaml"
    plan = told("plan", sweep, "data.root=/nowhere", "data.weights={}")
    assert (plan["total"], plan["to_run"]) == (trials, trials)
    assert f"{trials} trials" in sweep.read_text() or name == "quickstart"


def test_a_report_holds_another_sweep_beside_its_own() -> None:
    sweeps = Path(__file__).parents[1] / "sweeps"
    table = told("report", sweeps / "paper.yaml", "--with", sweeps / "yosinski.yaml")["table"]
    assert (table["name"], table["counts"]["missing"]) == ("paper with yosinski", 138 + 30)
