"""`fttune recommend` on real images: counted, measured, priced, and a sweep that finds out; bad input is one line."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_pretrain import write_recipe

import fttune
from fttune.advising import show_recommendation
from fttune.analysis.answer import Answer
from fttune.analysis.evidence import Body, shipped
from fttune.analysis.recommend import Verdict
from fttune.config import load_sweep
from fttune.data.catalog import folder
from fttune.errors import UsageError
from fttune.placing import Question, count, place_target
from fttune.pretraining import pretrain_network
from fttune.recipe import load_recipe
from fttune.record import DistanceRecord
from fttune.runtime import Runtime
from fttune.session import plan_sweep
from fttune.sweep.driver import Choice, machine, open_tracker
from fttune.sweep.ground import survey
from fttune.trying import check_file, sweep_name, sweep_of, sweep_tree
from images import make_folder
from small_sweeps import fttune as command
from stores import record_of

NETWORK = "tiny@mine"


@pytest.fixture
def network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """A small network with a source mean at 32 px, trained in this test's own place."""
    assert pretrain_network(load_recipe(write_recipe(tmp_path)), again="again", as_json=True) == 0
    capsys.readouterr()
    return NETWORK


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "my birds", images=9, seed=1)


def ask(target: Path | str, network: str, **changes: Any) -> Answer:
    return fttune.recommend(str(target), backbone=network, **changes)


def test_an_answer_counts_measures_prices_and_writes_a_sweep_that_runs(target: Path, network: str) -> None:
    answer = fttune.recommend(target, backbone=network)
    images, distance = answer.images, answer.distance
    assert (images.classes, images.images, images.smallest, images.median, images.largest) == (3, 27, 9, 9, 9)
    assert (images.val, images.test, images.fits, images.per_class) == (1, 3, 5, 5)
    assert (distance.source, distance.image_size, distance.images, distance.test_per_class) == ("photos", 32, 18, 3)
    assert 0 <= distance.low <= distance.value <= distance.high < 1
    assert answer.verdict is Verdict.BOTH
    assert [option.spec for option in answer.options] == ["F(1-3)R(4)", "T(1-3)R(4)", "F(1)R(2-4)", "T(1)R(2-4)"]
    assert all(option.seconds and option.seconds > 0 for option in answer.options)
    assert {option.seconds_from for option in answer.options} == {"stage times measured on this machine"}
    assert answer.trying
    assert (answer.trying.trials, answer.trying.to_run) == (9, 9)
    assert answer.trying.seconds
    assert answer.trying.command.endswith("my birds' --backbone tiny@mine --write sweep.yaml && fttune run sweep.yaml")


def shown(capsys: pytest.CaptureFixture[str], *, as_json: bool = False, **asked: Any) -> str:
    """What `fttune recommend --write try.yaml` prints."""
    assert show_recommendation(Question(**asked), write=Path("try.yaml"), verify=False, as_json=as_json) == 0
    return capsys.readouterr().out


def test_what_is_measured_is_what_the_sweep_measures(
    target: Path, network: str, capsys: pytest.CaptureFixture[str]
) -> None:
    told = shown(capsys, target=str(target), backbone=network)
    assert told.splitlines()[-2:] == ["  try.yaml is written", "  fttune run try.yaml"]
    sweep = load_sweep(Path("try.yaml"))
    ground = survey(sweep, machine(sweep))
    specs = [str(trial.cell.spec) for trial in ground.trials[::3]]
    assert specs[:2] == ["F(1-3)R(4)", "T(1-3)R(4)"]
    assert {trial.seed for trial in ground.trials} == {0, 1, 2}
    (job,) = ground.distances()[0]
    document = json.loads(shown(capsys, target=str(target), backbone=network, as_json=True))
    measured = DistanceRecord(**document["distance"])
    assert [option["spec"] for option in document["options"] if option["tried"]] == specs
    assert job.id.partition("/")[2] == measured.id.partition("/")[2]
    assert (document["trying"]["file"], document["exit_code"]) == ("try.yaml", 0)
    plan_sweep(sweep, Choice(), as_json=True)
    assert json.loads(capsys.readouterr().out)["to_run"] == document["trying"]["trials"] == 9


def test_a_file_of_images_is_named_in_its_sweep_so_that_it_is_found_again(
    target: Path, network: str, tmp_path: Path
) -> None:
    files = sorted(target.glob("*/*.png"))
    columns = {"image": [file.read_bytes() for file in files], "label": [file.parent.name for file in files]}
    pq.write_table(pa.table(columns), tmp_path / "birds.parquet")
    question = Question(target="parquet:birds.parquet", backbone=network, options={"min_per_class": 4})
    placed = place_target(question, Runtime(store=tmp_path / "s", cache=tmp_path / "c"))
    sweep = sweep_of(sweep_tree(question, placed, ["T(1-3)R(4)"]), question)
    (entry,) = sweep.grid.datasets.values()
    name = f"recommend-birds-{placed.distance.data_digest[:6]}"
    assert (sweep.name, entry.parquet) == (name, tmp_path / "birds.parquet")
    ground = survey(sweep, replace(machine(sweep), store=tmp_path / "s"))
    assert {trial.data_digest for trial in ground.trials} == {placed.distance.data_digest}


def test_what_failed_is_not_promised_to_run_and_is_told_with_what_runs_it(target: Path, network: str) -> None:
    question = Question(target=str(target), backbone=network)
    answer = ask(target, network)
    assert answer.trying
    sweep = sweep_of(dict(answer.trying.sweep), question)
    first, second, *_ = survey(sweep, machine(sweep)).trials
    tracker = open_tracker(sweep)
    parent = tracker.open_sweep(sweep.name)
    for trial, status in ((first, "failed"), (second, "done")):
        run = tracker.open_trial(parent, trial.id, name="x", at=1)
        tracker.start_trial(run, params={}, tags={})
        tracker.finish_trial(run, record_of(trial, status, test_accuracy=0.5, classes=3), "", 2)
    again = ask(target, network)
    assert again.trying
    assert (again.trying.trials, again.trying.to_run, again.trying.failed) == (9, 7, 1)
    assert ", 1 of them done before;" in " ".join(str(again).split())
    last = f"  and the one that failed again: {again.trying.command} --retry-failed"
    assert str(again).splitlines()[-1] == last


def test_two_folders_of_one_name_have_a_sweep_each(tmp_path: Path, network: str) -> None:
    names = []
    for seed, parent in enumerate("ab"):
        (tmp_path / parent).mkdir()
        question = Question(target=str(make_folder(tmp_path / parent / "photos", seed=seed)), backbone=network)
        names.append(sweep_name(place_target(question, Runtime(store=tmp_path / "s", cache=tmp_path / "c"))))
    assert len(set(names)) == 2
    assert all(name.startswith("recommend-photos-") for name in names)


def test_a_verified_answer_is_of_runs_on_these_images(target: Path, network: str) -> None:
    asked = ("--backbone", network, "--images-per-class", "2")
    done = command("recommend", target, *asked, "--verify", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["exit_code"], told["trying"]["to_run"], told["doubts"]) == (0, 0, [])
    assert told["trying"]["file"] == f"recommend-my-birds-{told['distance']['data_digest'][:6]}.yaml"
    own = told["own"]
    assert (own["source"], own["images_per_class"]) == ("your runs (fttune)", 2)
    assert own["effect"]["pairs"] + own["effect"]["flagged"] == 3
    priced = [option["seconds_from"] for option in told["options"]]
    assert priced.count("logged runs") == 3
    assert {*own["tuned"], *own["frozen"]} < set(fttune.runs()["trial_id"].to_pylist())
    again = ask(target, network, images_per_class=2)
    assert again.own
    assert list(again.own.tuned) == own["tuned"]
    assert "Measured on these images (tuned / frozen, one new layer)" in str(again)


@pytest.mark.parametrize(
    ("smallest", "held", "fits"),
    [(3, (1, 1), 1), (11, (1, 3), 7), (15, (2, 5), 8), (30, (5, 10), 15), (99, (5, 10), 84)],
)
def test_small_classes_hold_out_less(tmp_path: Path, smallest: int, held: tuple[int, int], fits: int) -> None:
    row = folder("mine", make_folder(tmp_path / "few", classes=2, images=1))
    images = count(row, ("a", "b"), np.repeat([0, 1], [smallest, 120]), ["any"] * (smallest + 120), None)
    assert ((images.val, images.test), images.fits, images.smallest_class) == (held, fits, "a")
    assert images.usual == fits + (smallest + 120) // 2 - smallest


@pytest.mark.parametrize(
    ("classes", "images", "asked", "says"),
    [
        (1, 9, {}, "must hold at least two class folders"),
        (0, 9, {}, "must hold one folder per class, but holds none"),
        (3, 1, {}, "class 'c0': has 1 image, but must have 3: one to train on, one for val and one to test on"),
        (3, 9, {"images_per_class": 6}, "--images-per-class 6: class 'c0' has 9 images, which leaves at most 5"),
        (3, 9, {"backbone": "tinny"}, "unknown backbone 'tinny'; did you mean 'tiny'?"),
        (3, 9, {"backbone": "tiny"}, "no source mean of tiny is shipped at 96 px, so no distance can be measured"),
        (3, 9, {"image_size": 100}, "sizes shipped: 64, 96, 128, 160, 192, 224; choose one with --image-size"),
        (3, 9, {"image_size": 8}, "--image-size: efficientnet_lite0 needs at least 32 px, but got 8"),
    ],
)
def test_what_cannot_be_answered_is_told_before_anything_is_decoded(
    tmp_path: Path, classes: int, images: int, asked: dict[str, Any], says: str
) -> None:
    (tmp_path / "few").mkdir()
    make_folder(tmp_path / "few", classes=classes, images=images)
    with pytest.raises(UsageError) as caught:
        fttune.recommend(str(tmp_path / "few"), **asked)
    assert says in str(caught.value)
    assert caught.value.exit_code == 2
    assert not (tmp_path / "fttune_store").exists()


def test_a_folder_that_is_not_there_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    done = command("recommend", tmp_path / "nowhere")
    (line,) = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (2, "")
    assert "nowhere must be a folder of class folders, but does not exist" in line


def test_a_sweep_file_of_somebody_else_s_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("name: mine\n")
    for name, says in (("mine.yaml", "was not written by"), ("a.txt", "ends in .yaml"), ("no/a.yaml", "no folder")):
        with pytest.raises(UsageError, match=says):
            check_file(tmp_path / name)
    assert (tmp_path / "mine.yaml").read_text() == "name: mine\n"


def test_what_ships_as_evidence_can_be_read_and_is_placed() -> None:
    body = shipped()
    assert isinstance(body, Body)
    assert {result.dataset for result in body.results} == {"digits", "glyphs", "photos"}
    assert {result.backbone for result in body.results} == {"efficientnet_lite0"}
    assert all(result.place in body.distances for result in body.results)
    cells: dict[Any, set[int]] = {}
    for result in body.results:
        cells.setdefault((result.dataset, result.images_per_class, result.spec), set()).add(result.seed)
    assert {len(seeds) for seeds in cells.values()} == {3}


def test_the_question_s_defaults_are_those_of_the_shipped_runs(tmp_path: Path) -> None:
    body = shipped()
    assert body
    assert {size for _, _, size, _ in body.distances} == {96}
    assert Question(target="x").backbone == "efficientnet_lite0"
