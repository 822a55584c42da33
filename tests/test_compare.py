"""Levels of an axis are compared within runs that are equal in everything else; conditions say which runs."""

from dataclasses import fields, replace
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import csv, parquet

import fttune
from constructed import make_run
from fttune.analysis.compare import Level, compare
from fttune.analysis.contenders import AXES
from fttune.condition import Condition
from fttune.errors import ConfigError
from fttune.query import runs
from fttune.record import RunRecord
from fttune.tracking.runs import Tracker
from small_sweeps import fttune as command
from small_sweeps import told
from stores import make_database, record_of
from values import HPARAMS, make_trial

RUNS = [
    make_run(mode, 0.5 + 0.1 * (mode == "tune") + 0.01 * seed, dataset=dataset, images_per_class=images, seed=seed)
    for mode in ("tune", "freeze")
    for dataset in ("a", "b")
    for images in (5, 20)
    for seed in (0, 1, 2)
]


def levels(records: list[RunRecord], by: str, *hold: str) -> list[Level]:
    return list(compare(records, by=by, hold=hold, confidence=0.95).levels)


def test_the_difference_is_taken_within_pairs_and_has_none_of_the_noise_that_they_share() -> None:
    frozen, tuned = levels(RUNS, "mode")
    assert (frozen.level, tuned.level, frozen.runs, tuned.pairs, tuned.datasets) == ("freeze", "tune", 12, 12, 2)
    assert tuned.mean == pytest.approx(0.61)
    assert tuned.difference == tuned.difference_low == tuned.difference_high == pytest.approx(0.1)
    assert frozen.low is not None
    assert frozen.high is not None
    assert frozen.low < frozen.mean < frozen.high
    assert frozen.difference is None


def test_the_interval_of_an_accuracy_has_the_ends_of_a_fraction_and_that_of_a_difference_has_not() -> None:
    better = make_run("tune", 0.99, dataset="a")
    good = [better, make_run("tune", 0.95, dataset="b"), *(make_run("freeze", 0.95, dataset=name) for name in "ab")]
    _, tuned = levels(good, "mode")
    assert tuned.low is not None
    assert tuned.difference_high is not None
    assert 0 < tuned.low < tuned.mean < 1 == tuned.high
    assert tuned.mean + tuned.difference_high > 1


def test_groups_are_equal_in_what_is_held() -> None:
    found = levels(RUNS, "mode", "dataset", "images_per_class", "spec")
    assert [(*level.held.values(), level.level, level.runs) for level in found] == [
        (dataset, images, "R 1", mode, 3) for dataset in ("a", "b") for images in (5, 20) for mode in ("freeze", "tune")
    ]


@given(st.permutations(RUNS))
def test_the_order_of_runs_changes_nothing(records: list[RunRecord]) -> None:
    assert levels(records, "mode", "dataset") == levels(RUNS, "mode", "dataset")


@pytest.mark.parametrize(
    ("change", "why"),
    [({"views": "flip"}, "views"), ({"data_digest": "other"}, "images"), ({"seed": 7}, "seed"), ({"lr": 0.7}, "rate")],
)
def test_runs_that_differ_in_more_than_the_axis_are_no_pair(change: dict[str, object], why: str) -> None:
    found = compare([make_run("freeze", 0.5), replace(make_run("tune", 0.6), **change)], by="mode", confidence=0.95)
    assert [(level.runs, level.pairs, level.difference) for level in found.levels] == [(1, 0, None)] * 2, why
    assert found.notes == (
        "runs without a partner that is equal in all but mode, in the means and in no difference: 1",
    )


def test_a_searched_cell_counts_once_by_val_and_pairs_with_equal_budgets_alone() -> None:
    tried = [make_run("tune", test, lr=lr, val=val) for lr, val, test in ((0.1, 0.8, 0.6), (0.2, 0.7, 0.9))]
    frozen = [make_run("freeze", 0.5, lr=lr, val=val) for lr, val in ((0.1, 0.5), (0.2, 0.6))]
    (_, best) = levels([*tried, *frozen], "mode")
    assert (best.mean, best.difference) == (0.6, pytest.approx(0.1)), "test decides nothing"
    (_, alone) = levels([*tried, frozen[0]], "mode")
    assert (alone.runs, alone.pairs) == (1, 0)


def test_what_was_searched_can_be_compared_itself() -> None:
    found = levels([make_run("tune", test, lr=lr) for lr, test in ((0.1, 0.6), (0.2, 0.9))], "lr", "dataset")
    assert [(level.level, level.mean) for level in found] == [(0.1, 0.6), (0.2, 0.9)]
    assert found[1].difference == pytest.approx(0.3)


def test_depths_are_compared_within_a_mode() -> None:
    records = [make_run(mode, 0.9 / top, random_top=top) for mode in ("tune", "freeze") for top in (1, 3)]
    found = levels(records, "random_top", "spec")
    assert [(level.held["spec"], level.level, level.pairs) for level in found] == [
        ("freeze", 1, 0), ("freeze", 3, 1), ("tune", 1, 0), ("tune", 3, 1)
    ]  # fmt: skip


def test_failed_runs_are_told() -> None:
    failed = replace(make_run("tune", 0.5), status="failed", test_accuracy=None)
    assert compare([failed], by="mode", confidence=0.95).notes == ("failed runs, left out: 1",)


@pytest.mark.parametrize(("by", "hold", "told"), [("mod", (), "did you mean 'mode'"), ("mode", ("mode",), "be held")])
def test_what_is_no_axis_is_one_line(by: str, hold: tuple[str, ...], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        compare(RUNS, by=by, hold=hold, confidence=0.95)


def test_every_setting_of_a_trial_is_an_axis_or_held_equal() -> None:
    known = {*AXES, *(name for follows in AXES.values() for name in follows)}
    assert {field.name for field in fields(HPARAMS)} <= known


@given(st.integers(0, 40), st.integers(0, 40), st.sampled_from(["=", "!=", "<", "<=", ">", ">="]))
def test_a_condition_means_what_it_says(images: int, edge: int, sign: str) -> None:
    condition = Condition.parse(f"images_per_class {sign} {edge}", {"images_per_class": int})
    python = {"=": "=="}.get(sign, sign)
    assert condition.meets(make_run("tune", 0.5, images_per_class=images)) == eval(f"{images} {python} {edge}")


@pytest.mark.parametrize(
    ("text", "told"),
    [("seed", "a condition reads"), ("sed=1", "did you mean 'seed'"), ("seed=one", "seed is a number, not 'one'")],
)
def test_what_is_no_condition_is_one_line(text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Condition.parse(text, {"seed": int})


@pytest.fixture
def logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[RunRecord]:
    """An experiment with four finished trials and a failed one."""
    uri = make_database(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    tracker = Tracker(uri, "fttune")
    parent = tracker.open_sweep("s")
    measured = {"test_accuracy": 0.5, "classes": 10}
    records = [
        record_of(make_trial(spec, seed=seed), **measured) for spec in ("T(1-3)R(4)", "F(1-3)R(4)") for seed in (0, 1)
    ]
    records.append(record_of(make_trial(seed=9), status="failed", error="boom", val_accuracy=None))
    for number, record in enumerate(records):
        run = tracker.open_trial(parent, record.trial_id, name="n", at=number + 1)
        tracker.finish_trial(run, record, "", number + 2)
    return records


def test_runs_are_an_arrow_table_of_every_field_and_of_what_was_chosen(logged: list[RunRecord]) -> None:
    table = fttune.runs(["seed<1", "status=done"])
    assert isinstance(table, pa.Table)
    assert table.column_names == [*(field.name for field in fields(RunRecord)), "chosen"]
    assert sorted(table.column("trial_id").to_pylist()) == sorted(r.trial_id for r in logged if r.seed == 0)
    assert runs(experiment="no such experiment").num_rows == 0
    assert fttune.compare("mode", ["dataset"]).column("pairs").to_pylist() == [0, 2]


def test_the_commands_print_lines_and_write_files(logged: list[RunRecord], tmp_path: Path) -> None:
    listed = command("runs", "--filter", "status=done", "--sweep", "s")
    assert listed.returncode == 0, listed.stderr
    assert [line.split()[0] for line in listed.stdout.splitlines()[1:]] == [r.trial_id for r in logged[:4]]
    assert '"error": "boom"' in command("runs", "--filter", "status=failed", "--json").stdout
    compared = command("compare", "--by", "mode", "--hold", "dataset,spec")
    assert [line.split()[:5] for line in compared.stdout.splitlines()[1:]] == [
        ["digits", "R", "1", "freeze", "2"],
        ["digits", "R", "1", "tune", "2"],
    ]
    assert "failed runs, left out: 1" in compared.stderr
    assert told("compare", "--by", "mode")["levels"][1]["pairs"] == 2
    for suffix, read in (("csv", csv.read_csv), ("parquet", parquet.read_table)):
        for words in (["runs"], ["compare", "--by", "mode"]):
            assert command(*words, "--out", tmp_path / f"a.{suffix}").returncode == 0
            assert read(tmp_path / f"a.{suffix}").num_rows == (5 if words == ["runs"] else 2)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["runs", "--filter", "sed=1"], "error: condition 'sed=1': unknown field 'sed'; did you mean 'seed'?"),
        (["compare", "--by", "mode", "--metric", "test"], "error: compare: unknown metric 'test'"),
        (["compare", "--by", "mode", "--confidence", "95"], "error: compare: confidence must lie between 0 and 1"),
        (["runs", "--out", "a.xls"], "error: --out a.xls: a table is written as .csv or .parquet"),
    ],
)
def test_bad_words_are_one_line(logged: list[RunRecord], words: list[str], line: str) -> None:
    done = command(*words)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(line)
