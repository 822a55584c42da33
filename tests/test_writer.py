"""Nothing that a writer was told is lost, and nothing is written twice."""

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fttune.errors import StoreError
from fttune.plan import pending
from fttune.record import CurvePoint
from fttune.tracking.claim import Claim
from fttune.tracking.fields import SweepRun
from fttune.tracking.runs import Tracker
from fttune.tracking.spool import Spool
from fttune.tracking.writer import Writer
from fttune.trial import Trial
from stores import (
    POINTS,
    TRIALS,
    curve_of,
    free_port,
    make_database,
    make_distance,
    record_of,
    runs_of,
    serving,
    wait_until,
)

EVENTS = len(POINTS) + 2  # of one trial that `run` plays


@pytest.fixture
def tracker(tmp_path: Path) -> Tracker:
    return Tracker(make_database(tmp_path), "fttune")


@pytest.fixture
def away() -> Tracker:
    """A tracker that nobody answers for."""
    return Tracker(f"http://127.0.0.1:{free_port()}", "fttune")


def run(writer: Writer, trial: Trial, points: list[CurvePoint] = POINTS) -> None:
    writer.started(trial)
    for point in points:
        writer.point(trial.id, point)
    writer.finished(record_of(trial))


def check(uri: str, trials: list[Trial]) -> None:
    """Each trial is there once, with each point of its curve once and the very record that was sent."""
    runs = runs_of(uri, "fttune")
    assert sorted(run.data.tags["fttune.trial_id"] for run in runs) == sorted(trial.id for trial in trials)
    for found in runs:
        assert curve_of(uri, found.info.run_id) == POINTS
        assert found.info.status == "FINISHED"
    records = Tracker(uri, "fttune").records()
    assert {record.trial_id: record for record in records} == {trial.id: record_of(trial) for trial in trials}


def test_what_a_sweep_tells_reaches_the_tracker(tracker: Tracker, tmp_path: Path) -> None:
    with Writer(tracker, tmp_path / "spool", "small", pause=0.01) as writer:
        for trial in TRIALS[:3]:
            run(writer, trial)
        writer.distance(make_distance())
        assert writer.close() == 0
        assert (writer.healthy, writer.backlog, writer.problem, writer.notes) == (True, 0, "", ())
    check(tracker.uri, TRIALS[:3])
    assert tracker.distances() == [make_distance()]
    (parent,) = runs_of(tracker.uri, "fttune", kind="sweep")
    assert parent.info.status == "FINISHED"
    assert all(r.data.tags["mlflow.parentRunId"] == parent.info.run_id for r in runs_of(tracker.uri, "fttune"))
    assert (tmp_path / "spool").read_bytes() == b""


def test_what_is_to_follow_is_called_once_all_told_before_has_arrived(tracker: Tracker, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    with Writer(tracker, tmp_path / "spool", "small", pause=60) as writer:
        for trial in TRIALS[:3]:
            run(writer, trial)
            writer.then(lambda: seen.append((len(tracker.records()), writer.backlog)))
        wait_until(lambda: len(seen) == 3)
    assert [arrived for arrived, _ in seen] == sorted(arrived for arrived, _ in seen)
    assert all(arrived >= number for number, (arrived, _) in enumerate(seen, start=1))


def test_nothing_follows_what_has_not_arrived(away: Tracker, tmp_path: Path) -> None:
    seen: list[int] = []
    with Writer(away, tmp_path / "spool", "small", pause=0.01) as writer:
        run(writer, TRIALS[0])
        writer.then(lambda: seen.append(1))
        time.sleep(0.5)  # in which it tries five times
        assert writer.problem
    assert seen == []


def test_events_keep_the_time_when_they_happened(away: Tracker, tracker: Tracker, tmp_path: Path) -> None:
    with Writer(away, tmp_path / "spool", "small") as writer:
        run(writer, TRIALS[0])
    rows = [json.loads(line) for line in (tmp_path / "spool").read_text().splitlines()]
    Writer(tracker, tmp_path / "spool", "small").close()
    (found,) = runs_of(tracker.uri, "fttune")
    assert (found.info.start_time, found.info.end_time) == (rows[0]["at"], rows[-1]["at"])
    assert [row["at"] for row in rows] == sorted(row["at"] for row in rows)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_delivery_cut_off_anywhere_and_repeated_writes_nothing_twice(
    tracker: Tracker, away: Tracker, tmp_path: Path, data: st.DataObject
) -> None:
    """The first lines of a spool are delivered, the acknowledgement is lost, and the whole spool is delivered again."""
    spool, experiment = tmp_path / "spool", f"experiment {data.draw(st.uuids())}"
    with Writer(away, spool, "small") as writer:
        writer.started(TRIALS[0])
        run(writer, TRIALS[1])
        run(writer, TRIALS[0])
        writer.distance(make_distance())
    whole = spool.read_bytes()
    cut = data.draw(st.integers(0, whole.count(b"\n")))
    for lines in (cut, None):
        spool.write_bytes(b"".join(whole.splitlines(keepends=True)[:lines]))
        again = Tracker(tracker.uri, experiment)
        assert Writer(again, spool, "small").close() == 0
    runs = runs_of(tracker.uri, experiment)
    assert sorted(r.data.tags["fttune.trial_id"] for r in runs) == sorted(trial.id for trial in TRIALS[:2])
    assert [curve_of(tracker.uri, r.info.run_id) for r in runs] == [POINTS, POINTS]
    assert sorted(again.records(), key=lambda r: r.seed) == [record_of(TRIALS[0]), record_of(TRIALS[1])]
    assert again.distances() == [make_distance()]
    assert len(runs_of(tracker.uri, experiment, kind="distance")) == 1


def test_a_trial_resumed_from_an_earlier_step_repeats_no_point(tracker: Tracker, tmp_path: Path) -> None:
    with Writer(tracker, tmp_path / "spool", "small", pause=0.01) as writer:
        writer.started(TRIALS[0])
        for point in POINTS[:6]:
            writer.point(TRIALS[0].id, point)
    assert runs_of(tracker.uri, "fttune")[0].info.status == "KILLED"
    with Writer(tracker, tmp_path / "spool", "small", pause=0.01) as writer:
        run(writer, TRIALS[0], POINTS[3:])
    check(tracker.uri, TRIALS[:1])


def test_a_failed_trial_is_retried_in_its_own_run(tracker: Tracker, tmp_path: Path) -> None:
    failed = record_of(TRIALS[0], status="failed", error="boom", val_accuracy=None)
    with Writer(tracker, tmp_path / "spool", "small") as writer:
        writer.started(TRIALS[0])
        writer.point(TRIALS[0].id, POINTS[0])
        writer.finished(failed, "Traceback\n  boom")
    (first,) = runs_of(tracker.uri, "fttune")
    assert (first.info.status, first.data.tags["fttune.traceback"]) == ("FAILED", "Traceback\n  boom")
    assert tracker.records() == [failed]
    with Writer(tracker, tmp_path / "spool", "small") as writer:
        run(writer, TRIALS[0])
    assert runs_of(tracker.uri, "fttune")[0].info.run_id == first.info.run_id
    check(tracker.uri, TRIALS[:1])


def test_a_trial_that_failed_before_it_started_has_a_run(tracker: Tracker, tmp_path: Path) -> None:
    failed = record_of(TRIALS[0], status="failed", error="no node", val_accuracy=None)
    with Writer(tracker, tmp_path / "spool", "small") as writer:
        writer.finished(failed)
    (found,) = runs_of(tracker.uri, "fttune")
    assert (found.info.run_name, found.data.params["dataset"]) == (TRIALS[0].name, "digits")
    assert tracker.records() == [failed]


def test_a_second_sweep_tags_what_the_first_has_done(tracker: Tracker, tmp_path: Path) -> None:
    with Writer(tracker, tmp_path / "first", "first") as writer:
        run(writer, TRIALS[0])
    with Writer(tracker, tmp_path / "second", "second") as writer:
        plan = pending(TRIALS[:2], tracker.records())
        writer.adopt(plan.done)
        for trial in plan.to_run:
            run(writer, trial)
    check(tracker.uri, TRIALS[:2])
    tags = {r.data.tags["fttune.trial_id"]: r.data.tags for r in runs_of(tracker.uri, "fttune")}
    assert tags[TRIALS[0].id].items() >= {"fttune.sweep.first": "true", "fttune.sweep.second": "true"}.items()
    assert "fttune.sweep.first" not in tags[TRIALS[1].id]


class Watched(Tracker):
    """A tracker that counts the signs of life that it is given."""

    beats = 0

    def beat(self, sweep: SweepRun, own: Claim) -> bool:
        self.beats += 1
        return super().beat(sweep, own)


def test_signs_of_life_do_not_wait_until_all_trials_of_another_sweep_are_adopted(
    tracker: Tracker, tmp_path: Path
) -> None:
    with Writer(tracker, tmp_path / "first", "first") as writer:
        for trial in TRIALS:
            run(writer, trial)
    watched = Watched(tracker.uri, "fttune")
    with Writer(watched, tmp_path / "second", "second", pause=60, between_beats=0) as writer:
        assert writer.hold()
        before = watched.beats
        writer.adopt(TRIALS)
    assert watched.beats - before > len(TRIALS)
    assert len(watched.records("second")) == len(TRIALS)


def test_a_trial_that_another_sweep_finished_meanwhile_is_this_sweeps_too(tracker: Tracker, tmp_path: Path) -> None:
    with Writer(tracker, tmp_path / "first", "first") as writer:
        run(writer, TRIALS[0])
    with Writer(tracker, tmp_path / "second", "second") as writer:
        run(writer, TRIALS[0])
    check(tracker.uri, TRIALS[:1])
    assert tracker.records("second") == tracker.records("first") == tracker.records()


def test_a_killed_driver_loses_nothing_it_was_told(tracker: Tracker, tmp_path: Path) -> None:
    code = """
import os, signal, sys
from pathlib import Path
from fttune.tracking.runs import Tracker
from fttune.tracking.writer import Writer
from test_writer import TRIALS, run
writer = Writer(Tracker("http://127.0.0.1:9", "fttune"), Path("spool"), "small", pause=60)
for trial in TRIALS[:2]:
    run(writer, trial)
os.kill(os.getpid(), signal.SIGKILL)
"""
    paths = os.pathsep.join(sys.path)
    killed = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": paths}, cwd=tmp_path)
    assert killed.returncode == -signal.SIGKILL
    with (tmp_path / "spool").open("ab") as spool:
        spool.write(b'{"number": 99, "at": 17, "ki')
    with Writer(tracker, tmp_path / "spool", "small") as writer:
        assert pending(TRIALS[:2], tracker.records()).done == tuple(TRIALS[:2])
        (note,) = writer.notes
    assert note.endswith("spool: left out a last line of 28 bytes that was never written to its end")
    check(tracker.uri, TRIALS[:2])


def fill(path: Path) -> None:
    """A spool with five events in it."""
    with closing(Spool(path)) as spool:
        for step in range(5):
            spool.append(at=step, kind="point", key="a", body={"step": step})


def times(path: Path) -> list[int]:
    """When the events that wait in a spool happened."""
    with closing(Spool(path)) as spool:
        return [event.at for event in spool.head(99)]


def test_a_spool_forgets_only_what_was_delivered(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    fill(path)
    with closing(Spool(path)) as spool:
        spool.drop(spool.head(2)[-1].number)
        spool.append(at=5, kind="stopped", key="a", body={})
    assert times(path) == [2, 3, 4, 5]
    with closing(Spool(path)) as spool:
        spool.drop(spool.head(99)[-1].number)
        assert (len(spool), path.read_bytes()) == (0, b"")
        spool.append(at=6, kind="stopped", key="a", body={})
    assert times(path) == [6]


def test_a_spool_has_one_holder(tmp_path: Path) -> None:
    with (
        closing(Spool(tmp_path / "spool")),
        pytest.raises(StoreError, match="another process runs this sweep and holds its spool"),
    ):
        Spool(tmp_path / "spool")
    assert times(tmp_path / "spool") == []


def test_an_event_that_the_disk_refuses_is_kept_in_memory_and_leaves_no_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    fill(path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with closing(Spool(path)) as spool:
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, hard))
        try:
            with pytest.raises(StoreError, match="spool: cannot write the spool: no room left"):
                spool.append(at=5, kind="stopped", key="a", body={})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert [event.at for event in spool.head(99)] == [0, 1, 2, 3, 4, 5]
        spool.append(at=6, kind="stopped", key="a", body={})
    assert times(path) == [0, 1, 2, 3, 4, 5, 6], "written when there is room"


def test_what_neither_disk_nor_tracker_takes_is_not_said_to_wait(away: Tracker, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Writer(away, tmp_path / "spool", "small") as writer:
        writer.started(TRIALS[0])
        resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "spool").stat().st_size + 10, hard))
        try:
            run(writer, TRIALS[1])
            assert writer.close() == 1 + EVENTS + 1
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    refused, lost = writer.notes
    assert refused.endswith("spool: cannot write the spool: no room left; what cannot be written waits in memory")
    assert lost == f"{EVENTS + 1} of the events that wait could not be kept: their trials run again"
    assert len(times(tmp_path / "spool")) == 1


@pytest.mark.usefixtures("_no_sync")
def test_a_disk_that_refuses_to_sync_keeps_nothing_from_the_tracker(tracker: Tracker, tmp_path: Path) -> None:
    with Writer(tracker, tmp_path / "spool", "small") as writer:
        run(writer, TRIALS[0])
        assert writer.close() == 0
    check(tracker.uri, TRIALS[:1])


@pytest.mark.usefixtures("_no_sync")
def test_what_a_disk_did_not_sync_is_not_said_to_wait_there(away: Tracker, tmp_path: Path) -> None:
    with Writer(away, tmp_path / "spool", "small") as writer:
        run(writer, TRIALS[0])
        assert writer.close() == EVENTS
    assert writer.notes[-1] == f"{EVENTS} of the events that wait could not be kept: their trials run again"


@pytest.fixture
def _no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk of a network whose quota is over, as it is told at a sync alone."""

    def refuse(file: int) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(os, "fsync", refuse)


@pytest.mark.parametrize("cut", range(1, 40, 6))
def test_a_half_written_line_is_left_out_wherever_it_was_cut(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "spool"
    fill(path)
    content = path.read_bytes()
    path.write_bytes(content[:-cut])
    with closing(Spool(path)) as spool:
        assert spool.torn == len(content.splitlines(keepends=True)[-1]) - cut
        spool.append(at=7, kind="stopped", key="a", body={})
    assert times(path) == [0, 1, 2, 3, 7]


@pytest.mark.parametrize("line", ["not json", "[]", "{}", '{"number": 1, "at": 1, "kind": "x", "key": "", "body": {}}'])
def test_a_file_that_is_not_a_spool_is_named_with_its_line(tmp_path: Path, line: str) -> None:
    (tmp_path / "spool").write_text('{"delivered": 3}\n' + line + "\n")
    with pytest.raises(StoreError, match="spool, line 2: not an event of a sweep"):
        Spool(tmp_path / "spool")


def test_a_server_that_dies_in_the_middle_loses_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    database, port = make_database(tmp_path), free_port()
    tracker = Tracker(f"http://127.0.0.1:{port}", "fttune")
    spool = tmp_path / "spool"

    with Writer(tracker, spool, "small", pause=0.05) as writer:
        run(writer, TRIALS[0])
        wait_until(lambda: not writer.healthy)
        assert writer.close() == EVENTS
        assert writer.problem == f"the tracker {tracker.uri} does not answer: connection refused"

    with serving(database, port, tmp_path):
        writer = Writer(tracker, spool, "small", pause=0.05)
        assert writer.backlog == 0
        check(database, TRIALS[:1])
        for trial in TRIALS[1:10]:
            run(writer, trial)
        wait_until(lambda: len(runs_of(database, "fttune")) >= 4)
    assert writer.backlog > 0
    for trial in TRIALS[10:]:
        run(writer, trial)
    wait_until(lambda: not writer.healthy)

    with serving(database, port, tmp_path):
        wait_until(lambda: writer.backlog == 0)
        assert writer.close() == 0
    check(database, TRIALS)
    assert len(runs_of(database, "fttune", kind="sweep")) == 1
