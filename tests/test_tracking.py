"""An MLflow experiment holds each trial once and gives back its record exactly."""

import json
import socket
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fttune.errors import ConfigError, StoreError, UnreachableError
from fttune.plan import pending
from fttune.record import DistanceRecord, RunRecord
from fttune.reporting import _oldest_first
from fttune.tracking.fields import record_name, record_params, record_tags, trial_params, unpack
from fttune.tracking.runs import Tracker, resolve_uri
from fttune.tracking.table import export, read_parquet
from fttune.trial import HParams
from stores import POINTS, TRIALS, curve_of, free_port, make_database, make_distance, record_of, records, runs_of
from values import make_trial

TRIAL = TRIALS[0]
FAILED = record_of(TRIAL, status="failed", error="boom", val_accuracy=None, best_step=None)


@pytest.fixture
def tracker(tmp_path: Path) -> Tracker:
    return Tracker(make_database(tmp_path), "fttune")


def finish(tracker: Tracker, record: RunRecord, *, sweep: str = "small", at: int = 1000) -> str:
    """Write a record as a sweep would; gives the run's id."""
    parent = tracker.open_sweep(sweep)
    run = tracker.open_trial(parent, record.trial_id, name=record_name(record), at=at)
    tracker.start_trial(run, params=record_params(record), tags={})
    tracker.finish_trial(run, record, "Traceback ..." if record.error else "", at)
    return run.run_id


@given(records())
def test_a_record_packed_into_tags_is_the_same_record(record: RunRecord) -> None:
    tags = record_tags(record)
    assert unpack(RunRecord, tags) == record
    assert all(len(value) <= 5000 for value in tags.values())


@given(records(), records())
def test_a_shorter_record_hides_the_rest_of_a_longer_one(longer: RunRecord, record: RunRecord) -> None:
    longer = replace(longer, error=longer.error + "x" * 12_000)
    assert unpack(RunRecord, record_tags(longer) | record_tags(record)) == record


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(records(), min_size=1, max_size=4, unique_by=lambda record: record.trial_id))
def test_mlflow_gives_back_the_records_it_was_given(tracker: Tracker, rows: list[RunRecord]) -> None:
    tracker = Tracker(tracker.uri, f"experiment {hash(tuple(rows))}")
    rows = [replace(row, trial_id=f"{number:016x}") for number, row in enumerate(rows)]
    for row in rows:
        finish(tracker, row)
    assert sorted(tracker.records(), key=lambda record: record.trial_id) == rows


def test_what_was_not_measured_and_what_is_not_a_number_come_back_apart(tracker: Tracker) -> None:
    odd = record_of(TRIAL, val_accuracy=float("nan"), test_accuracy=None, seconds=float("inf"), git_commit="")
    finish(tracker, odd)
    (back,) = tracker.records()
    assert repr(back) == repr(odd)


@given(st.sampled_from(["T(1-3)R(4)", "F(1-2)T(3)R(4)", "R(1-4)"]), st.floats(1e-9, 1e3), st.lists(st.integers(1, 9)))
def test_the_params_of_a_trial_are_those_of_its_record(spec: str, lr: float, drops: list[int]) -> None:
    trial = make_trial(spec, hparams=HParams(lr=lr, steps=9, report_every=3, lr_drop_steps=tuple(drops)))
    record = RunRecord.of(trial, status="done")
    assert trial_params(trial) == record_params(record)
    assert trial.name == record_name(record)


def test_a_run_shows_the_trial_to_people(tracker: Tracker) -> None:
    finish(tracker, record_of(TRIAL, test_accuracy=0.25, seconds=1.5, device="cpu", git_commit="abc"))
    (run,) = runs_of(tracker.uri, "fttune")
    (parent,) = runs_of(tracker.uri, "fttune", kind="sweep")
    assert run.info.run_name == "digits/5 T(1-3)R(4) s0"
    assert (run.info.status, run.info.start_time, run.info.end_time) == ("FINISHED", 1000, 1000)
    assert run.data.params.items() >= {"dataset": "digits", "lr": "0.05", "mode": "tune", "lr_drop_steps": ""}.items()
    assert run.data.metrics == {
        "best_val_accuracy": 0.1 + 0.2,
        "test_accuracy": 0.25,
        "seconds": 1.5,
        "best_step": 5,
        "together": 1,
    }
    shown = {"fttune.trial_id": TRIAL.id, "fttune.kind": "trial", "fttune.status": "done", "git_commit": "abc"}
    shown |= {"fttune.sweep.small": "true", "mlflow.parentRunId": parent.info.run_id, "data_digest": "d"}
    assert run.data.tags.items() >= shown.items()


def test_only_finished_trials_have_records(tracker: Tracker) -> None:
    parent = tracker.open_sweep("small")
    run = tracker.open_trial(parent, TRIAL.id, name="x", at=1)
    tracker.start_trial(run, params={}, tags={})
    assert tracker.records() == []
    tracker.stop_trial(run, 5)
    assert tracker.records() == []
    assert runs_of(tracker.uri, "fttune")[0].info.status == "KILLED"


def test_a_failed_trial_is_retried_in_its_own_run(tracker: Tracker) -> None:
    first = finish(tracker, FAILED)
    assert pending([TRIAL], tracker.records()).failed == (TRIAL,)
    (run,) = runs_of(tracker.uri, "fttune")
    assert (run.info.status, run.data.tags["fttune.error"]) == ("FAILED", "boom")
    assert run.data.tags["fttune.traceback"] == "Traceback ..."
    second = finish(tracker, record_of(TRIAL), at=2000)
    assert second == first
    (run,) = runs_of(tracker.uri, "fttune")
    assert (run.info.status, run.info.end_time, run.data.tags["fttune.error"]) == ("FINISHED", 2000, "")
    assert tracker.records() == [record_of(TRIAL)]
    assert pending([TRIAL], tracker.records()).done == (TRIAL,)


def test_a_done_trial_cannot_be_undone(tracker: Tracker) -> None:
    finish(tracker, record_of(TRIAL))
    finish(tracker, FAILED, at=2000)
    assert tracker.records() == [record_of(TRIAL)]
    (run,) = runs_of(tracker.uri, "fttune")
    assert (run.info.status, run.info.end_time) == ("FINISHED", 1000)


def test_a_curve_takes_each_step_once(tracker: Tracker) -> None:
    parent = tracker.open_sweep("small")
    for first, last, at in ((0, 4, 1000), (2, 8, 2000), (0, 10, 3000)):
        run = tracker.open_trial(parent, TRIAL.id, name="x", at=at)
        tracker.add_points(run, [(at + n, point) for n, point in enumerate(POINTS[first:last])])
    (run,) = runs_of(tracker.uri, "fttune")
    assert curve_of(tracker.uri, run.info.run_id) == POINTS


def test_a_long_curve_fits_mlflows_batches(tracker: Tracker) -> None:
    parent = tracker.open_sweep("small")
    points = [replace(POINTS[0], step=step) for step in range(1, 702)]
    run = tracker.add_points(tracker.open_trial(parent, TRIAL.id, name="x", at=1), [(1, point) for point in points])
    assert run.step == 701
    assert len(curve_of(tracker.uri, run.run_id)) == 701


def test_two_sweeps_share_a_trial(tracker: Tracker) -> None:
    run_id = finish(tracker, record_of(TRIAL), sweep="first")
    second = tracker.open_sweep("second")
    tracker.adopt(second, [TRIAL.id, "f" * 16])
    (run,) = runs_of(tracker.uri, "fttune")
    (first,) = [run for run in runs_of(tracker.uri, "fttune", kind="sweep") if run.info.run_name == "first"]
    assert run.info.run_id == run_id
    assert {tag for tag in run.data.tags if tag.startswith("fttune.sweep.")} == {
        "fttune.sweep.first",
        "fttune.sweep.second",
    }
    assert run.data.tags["mlflow.parentRunId"] == first.info.run_id != second.run_id


def test_a_sweep_has_one_run_for_life(tracker: Tracker) -> None:
    first = tracker.open_sweep("small")
    tracker.close_sweep(first, 2_000_000_000_000)
    assert runs_of(tracker.uri, "fttune", kind="sweep")[0].info.status == "FINISHED"
    assert tracker.open_sweep("small") == first
    assert [run.info.status for run in runs_of(tracker.uri, "fttune", kind="sweep")] == ["RUNNING"]


def test_a_distance_is_kept_once_and_measured_anew_in_place(tracker: Tracker) -> None:
    parent = tracker.open_sweep("small")
    other = make_distance(dataset='it\'s "odd"')
    for at, record in enumerate((make_distance(), make_distance(), other, make_distance(value=0.5)), start=1):
        tracker.write_distance(parent, record, at)
    assert tracker.distances() == [make_distance(value=0.5), other]
    assert len(runs_of(tracker.uri, "fttune", kind="distance")) == 2
    assert tracker.records() == []


def test_a_report_lies_at_its_sweep(tracker: Tracker, tmp_path: Path) -> None:
    (tmp_path / "out" / "figures").mkdir(parents=True)
    (tmp_path / "out" / "table.md").write_text("a table")
    (tmp_path / "out" / "figures" / "a.svg").write_text("<svg/>")
    tracker.log_report("small", tmp_path / "out")
    (run,) = runs_of(tracker.uri, "fttune", kind="sweep")
    (folder,) = (tmp_path / "mlartifacts" / run.info.run_id).rglob("report")
    assert (folder / "table.md").read_text() == "a table"
    assert (folder / "figures" / "a.svg").exists()
    with pytest.raises(StoreError, match="nowhere: a report is a folder"):
        tracker.log_report("small", tmp_path / "nowhere")


def test_an_experiment_is_exported_whole(tracker: Tracker, tmp_path: Path) -> None:
    rows = [record_of(trial) for trial in TRIALS[:3]]
    for row in rows:
        finish(tracker, row)
    assert export(tracker, tmp_path / "runs.parquet") == 3
    assert read_parquet(tmp_path / "runs.parquet", RunRecord) == tracker.records()
    assert {row.trial_id for row in tracker.records()} == {row.trial_id for row in rows}


def test_a_record_of_another_version_is_read_or_refused_by_name(tracker: Tracker) -> None:
    tags = record_tags(make_distance())
    row = json.loads(tags["fttune.record.0"])
    newer = {"fttune.record.0": json.dumps(row | {"kernel": "rbf"})}
    assert unpack(DistanceRecord, newer) == make_distance()
    del row["low"]
    with pytest.raises(StoreError, match="a DistanceRecord must have 'low'"):
        unpack(DistanceRecord, {"fttune.record.0": json.dumps(row)})
    with pytest.raises(StoreError, match="must hold a record as JSON"):
        unpack(DistanceRecord, {})


def test_the_default_is_a_database_in_the_current_folder(
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert resolve_uri(None) == "sqlite:///mlflow.db"
    tracker = Tracker(None, "fttune")
    assert (tracker.records(), tracker.distances()) == ([], [])
    assert not (tmp_path / "mlflow.db").exists()
    finish(tracker, record_of(TRIAL))
    assert (tmp_path / "mlflow.db").exists()
    assert runs_of(tracker.uri, "fttune")[0].info.artifact_uri.startswith((tmp_path / "mlartifacts").as_uri())
    assert capfd.readouterr() == ("", "")
    monkeypatch.chdir(tmp_path_factory.mktemp("another"))
    assert Tracker(None, "fttune").records() == [], "a process that goes elsewhere finds what is there"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere")
    assert (resolve_uri(None), resolve_uri("sqlite:///x.db")) == ("http://elsewhere", "sqlite:///x.db")


def test_a_tracker_that_is_not_there_is_named_in_one_line() -> None:
    uri = f"http://me:secret@127.0.0.1:{free_port()}"
    with pytest.raises(UnreachableError) as caught:
        Tracker(uri, "fttune").records()
    assert str(caught.value) == f"the tracker {uri.replace('me:secret', '***')} does not answer: connection refused"


def test_a_tracker_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(UnreachableError, match="does not answer: timed out"):
            Tracker(uri, "fttune").records()


def test_a_broken_database_is_named_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "broken.db").write_text("this is not a database " * 100)
    with pytest.raises(UnreachableError, match=r"broken\.db does not answer: .*file is not a database") as caught:
        Tracker("sqlite:///broken.db", "fttune").records()
    assert "\n" not in str(caught.value)


def test_a_uri_that_mlflow_does_not_know_is_a_usage_error() -> None:
    with pytest.raises(ConfigError, match=r"tracking\.uri htp://x: .*unsupported URI"):
        Tracker("htp://x", "fttune").records()


def test_a_deleted_experiment_is_not_written_to(tracker: Tracker) -> None:
    from mlflow import MlflowClient

    tracker.open_sweep("small")
    found = MlflowClient(tracker.uri).get_experiment_by_name("fttune")
    assert found
    MlflowClient(tracker.uri).delete_experiment(found.experiment_id)
    with pytest.raises(ConfigError, match=r"tracking\.experiment 'fttune' was deleted"):
        Tracker(tracker.uri, "fttune").open_sweep("small")


def test_the_runs_of_two_sweeps_are_reported_oldest_first_where_they_share_an_experiment(tracker: Tracker) -> None:
    late, early = (record_of(trial) for trial in TRIALS[:2])
    finish(tracker, late, sweep="one", at=2000)
    finish(tracker, early, sweep="two", at=1000)
    trackers = [tracker, Tracker(tracker.uri, tracker.experiment)]
    records = {record.trial_id: record for one in ("one", "two") for record in tracker.records(one)}
    assert list(records.values()) == [late, early]
    assert _oldest_first(records, trackers) == [early, late]
    assert _oldest_first(records, trackers[:1]) == [late, early]
