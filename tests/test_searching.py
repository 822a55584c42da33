"""A search by TPE through the command line and a real Ray, its driver killed outright in the middle, and continued."""

import json
import re
import signal
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from pyarrow.parquet import read_table

from fttune.analysis.select import cell_of, searched, setting_of
from fttune.config import load_sweep
from fttune.query import compare, runs
from fttune.record import RunRecord
from fttune.tracking.runs import Tracker
from fttune.trial import SEARCHED
from small_sweeps import Driver, database, fttune, results, told, undisturbed, write_sweep
from stores import curve_of, runs_of

SEARCH: dict[str, Any] = {
    "sampler": "tpe",
    "settings": 6,
    "wave": 3,
    "space": {"lr": [0.005, 0.5], "copied_lr_scale": [0.05, 1]},
    "select": "cv",
    "folds": 2,
    "pruner": "median",
}
GRID = {
    "datasets": {"mine": {"path": "photos", "images_per_class": [3], "val": 3, "test": 5}},
    "backbones": ["tiny"],
    "random_top": [1],
    "seeds": [0, 1],
}
# Long enough for the tracker to keep up, which says when to kill.
TRAIN = {"lr": 0.05, "steps": 24, "batch_size": 6, "image_size": 32, "report_every": 8, "views": "flip"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("searching")


def settle(folder: Path, patch: pytest.MonkeyPatch) -> None:
    for variable in ("FTTUNE_STORE", "FTTUNE_CACHE", "FTTUNE_STATE", "FTTUNE_NETWORKS"):
        patch.setenv(variable, str(folder / variable.lower()))
    patch.chdir(folder)


@pytest.fixture(autouse=True)
def _places_of_the_sweep(_own_places: None, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(folder, monkeypatch)


@pytest.fixture(scope="module")
def sweep(folder: Path) -> Path:
    # Both tests and driver read it at once: else both make its tables, and one of them fails.
    return write_sweep(folder, tables=True, grid=GRID, train=TRAIN, search=SEARCH, tracking={"uri": database(folder)})


@pytest.fixture(scope="module")
def records(folder: Path, sweep: Path) -> list[RunRecord]:
    """The finished trials of a search whose driver was killed once some had ended."""
    with pytest.MonkeyPatch.context() as patch:
        settle(folder, patch)
        driver = Driver(folder, sweep)
        driver.until(lambda: len(Tracker(database(folder), "fttune").records()) >= 1)
        driver.kill(signal.SIGKILL)
        driver.end()
        before = Tracker(database(folder), "fttune").records()
        again = fttune("run", sweep)
    assert again.returncode == 0, again.stderr
    done = re.search(r"small: \d+ trials: (\d+) done, 0 failed", again.stderr)
    assert done
    assert 1 <= len(before) <= int(done[1]) < 24
    after = Tracker(database(folder), "fttune").records()
    assert all(record in after for record in before), (
        "what is finished is not trained again, for it would take other time"
    )
    return after


def test_a_killed_search_asks_for_no_finished_trial_twice(folder: Path, records: list[RunRecord]) -> None:
    runs = runs_of(database(folder), "fttune")
    assert len({run.data.tags["fttune.trial_id"] for run in runs}) == len(runs) == len(records)
    assert {run.info.status for run in runs} == {"FINISHED"}
    ends = {record.trial_id: record.pruned_step or record.steps for record in records}
    for run in runs:
        steps = [point.step for point in curve_of(database(folder), run.info.run_id)]
        assert steps == list(range(8, ends[run.data.tags["fttune.trial_id"]] + 1, 8))


def test_each_cell_had_equal_budgets_and_its_choice_and_the_default_are_repeated(
    sweep: Path, records: list[RunRecord]
) -> None:
    own = setting_of(load_sweep(sweep).train.hparams())
    cells = searched(records).values()
    assert len(cells) == 2
    for cell in cells:
        assert (len(cell.tried), cell.given.trials, cell.given.steps) == (6, 12, 12 * 24)
        assert own in cell.tried
        assert cell.repeats.keys() == {cell.chosen, own}
        assert all(run.pruned_step is None and run.fold is None for runs in cell.repeats.values() for run in runs)
        assert {(run.train_images, run.val_images) for runs in cell.tried.values() for run in runs} == {(9, 9)}


def test_a_trial_of_a_search_is_one_like_any_other(folder: Path, sweep: Path, records: list[RunRecord]) -> None:
    first = undisturbed(sweep)
    assert len(first) == 2 * 3 * 2
    ours = results(database(folder))
    assert {trial_id: ours[trial_id] for trial_id in first} == first


def test_plan_and_status_count_it_and_nothing_is_left(sweep: Path, records: list[RunRecord]) -> None:
    plan = told("plan", sweep)
    assert (plan["total"], plan["done"], plan["unknown"]) == (len(records), len(records), 0)
    assert told("plan", sweep, "search.settings=9")["unknown"] == 2 * 2 * 2
    assert told("status", sweep)["done"] == len(records)


def test_the_report_has_the_whole_list_what_was_chosen_and_what_it_gained(
    sweep: Path, records: list[RunRecord]
) -> None:
    folder = Path(told("report", sweep)["report"])
    search, illusion = (json.loads((folder / f"{name}.json").read_text()) for name in ("search", "illusion"))
    assert len(search["tried"]) == 2 * 6 * 2
    assert {row["trials"] for row in search["rows"]} == {12}
    for row in search["rows"]:
        assert row["gain"] == pytest.approx(row["test"] - row["test of default"])
        assert sum(one["chosen"] for one in search["tried"] if one["spec"] == row["spec"]) == 2
    table = read_table(folder / "runs.parquet")
    assert table.equals(runs(uri=database(folder.parents[1])).select(table.column_names))
    cells = {cell: one.chosen for cell, one in searched(records).items()}
    wanted = {record.trial_id: setting_of(record) == cells[cell_of(record)] for record in records}
    assert dict(zip(*table.select(["trial_id", "chosen"]).to_pydict().values(), strict=True)) == wanted
    for row in illusion["rows"]:
        tests: dict[str, list[float]] = {}
        for one in search["tried"]:
            if one["spec"] == row["spec"]:
                tests.setdefault(str([one[name] for name in SEARCHED]), []).append(one["test_accuracy"])
        (chosen,) = {
            str([one[name] for name in SEARCHED])
            for one in search["tried"]
            if one["chosen"] and one["spec"] == row["spec"]
        }
        assert row["held out"] == 6
        assert row["gap"] == pytest.approx(max(map(fmean, tests.values())) - fmean(tests[chosen]))
    pairs = json.loads((folder / "table.json").read_text())["unplaced_pairs"]
    assert [(pair["seed"], pair["numerator_given"]["trials"]) for pair in pairs] == [(0, 13), (1, 13)]


def test_a_comparison_shows_chosen_and_default_side_by_side_with_what_each_was_given(
    folder: Path, records: list[RunRecord]
) -> None:
    rows = compare("mode", uri=database(folder)).to_pylist()
    assert [(row["setting"], row["level"], row["runs"], row["pairs"]) for row in rows] == [
        ("chosen", "freeze", 2, 0),
        ("chosen", "tune", 2, 2),
        ("default", "freeze", 2, 0),
        ("default", "tune", 2, 2),
    ]
    assert [row["given_trials"] for row in rows] == [14, 14, 2, 2]


def test_another_space_is_refused_in_one_line(folder: Path, sweep: Path, records: list[RunRecord]) -> None:
    studies = folder / "mlflow.studies"
    before = studies.read_bytes()
    for command in ("run", "plan"):
        refused = fttune(command, sweep, "search.space.lr=[0.001,0.5]")
        assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (2, "", 1)
        assert (
            "search.space changed under the running search of small (lr [0.005, 0.5] -> [0.001, 0.5])" in refused.stderr
        )
    assert studies.read_bytes() == before
