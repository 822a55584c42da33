"""Real sweeps: one driver at a time, seen from anywhere, and ended by its budget."""

import json
import os
import re
import signal
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fttune.errors import UsageError
from fttune.sweep.turn import ago, await_turn, take_turn
from fttune.tracking.claim import FRESH, Claim
from fttune.tracking.runs import Tracker
from fttune.tracking.writer import Writer
from small_sweeps import Driver, database, fttune, gone, once_each, told, write_sweep
from stores import make_database, wait_until


def of_far(*, silent: float) -> Claim:
    heard = datetime.now(UTC) - timedelta(seconds=silent)
    return replace(Claim.own(), host="far", machine="another", since=heard, heard=heard)


@pytest.fixture
def tracker(tmp_path: Path) -> Tracker:
    return Tracker(make_database(tmp_path), "fttune")


def test_a_sweep_that_a_living_driver_runs_is_refused_and_who_it_is_told(tracker: Tracker) -> None:
    tracker.take(tracker.open_sweep("s"), of_far(silent=7))
    with pytest.raises(UsageError, match=r"'s' is being run by far \(process \d+\), last heard [78] s ago"):
        await_turn(tracker, "s", print)


def test_a_silent_driver_is_waited_for_and_then_taken_over(tracker: Tracker, tmp_path: Path) -> None:
    tracker.take(tracker.open_sweep("s"), of_far(silent=720))
    lines: list[str] = []
    over = await_turn(tracker, "s", lines.append, patience=0.05)
    (line,) = lines
    assert re.match(r"the driver on far \(process \d+\) was last heard 12 min ago; taking over in 0 s unless", line)
    with Writer(tracker, tmp_path / "spool", "s") as writer:
        take_turn(writer, tracker, "s", over)
        held = tracker.claim("s")
        assert held is not None
        assert held.pid == os.getpid()
        with Writer(tracker, tmp_path / "another", "s") as late, pytest.raises(UsageError, match="is being run by"):
            take_turn(late, tracker, "s", over)


def test_a_driver_whose_clock_is_wrong_gives_a_sign_of_life_and_is_left_alone(tracker: Tracker) -> None:
    parent, slow = tracker.open_sweep("s"), of_far(silent=2 * FRESH)
    tracker.take(parent, slow)

    def beats(_: str) -> None:
        tracker.beat(parent, replace(slow, heard=slow.heard + timedelta(seconds=15)))

    with pytest.raises(UsageError, match="is being run by far"):
        await_turn(tracker, "s", beats, patience=0.01)


def test_a_dead_driver_whose_clock_ran_ahead_is_not_waited_for_until_that_hour(tracker: Tracker) -> None:
    dead = of_far(silent=-3600)
    tracker.take(tracker.open_sweep("s"), dead)
    lines: list[str] = []
    assert await_turn(tracker, "s", lines.append, patience=0.01) == dead
    assert "UTC, ahead of the clock here; taking over in 0 s unless it gives a sign of life" in lines[0]


def test_time_that_has_passed_is_told_in_the_unit_one_would_say_it_in() -> None:
    assert [ago(s) for s in (0, 7.4, 119, 120, 7199, 7200, 172799, 172800)] == [
        "0 s ago", "7 s ago", "119 s ago", "2 min ago", "120 min ago", "2 h ago", "48 h ago", "2 days ago",
    ]  # fmt: skip


def test_a_sweep_is_seen_from_anywhere_run_once_and_taken_over_when_its_driver_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = {"steps": 400, "batch_size": 6, "image_size": 32, "report_every": 200, "views": "flip"}
    sweep, uri = write_sweep(tmp_path, tables=True, train=train), database(tmp_path)
    driver = Driver(tmp_path, sweep)
    driver.until(lambda: " 1/8 " in driver.told)
    workers = driver.workers()
    for worker in workers:
        os.kill(worker, signal.SIGSTOP)  # so that it is not over before it was looked at
    monkeypatch.chdir("/")
    wait_until(lambda: told("status", sweep)["done"])  # what the driver has told has to arrive
    facts = told("status", sweep)
    assert facts["active"]
    assert facts["driver"]["pid"] == driver.process.pid
    assert facts["driver"]["fresh"]
    assert 1 <= facts["done"] < 8
    here = fttune("status", sweep).stderr
    assert f"running on {facts['driver']['host']} (process {driver.process.pid}) since" in here

    # Another machine has neither this one's state nor its images, but sees the tracker.
    far = {name: str(tmp_path / "far") for name in ("FTTUNE_STATE", "FTTUNE_STORE")}
    away = [sweep, f"tracking.uri={uri}"]
    seen = fttune("status", *away, **far)
    assert "running on" in seen.stderr, seen.stderr
    assert re.search(r"small: \d of 8 done, \d running, 0 failed", seen.stderr)
    refused = fttune("run", *away, **far)
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: sweep 'small' is being run by")
    assert refused.stderr.count("\n") == 1

    monkeypatch.chdir(tmp_path)
    driver.kill(signal.SIGKILL)
    driver.end()
    for worker in workers:
        with suppress(ProcessLookupError):
            os.kill(worker, signal.SIGCONT)
    gone(workers)
    assert "it is gone" in fttune("status", sweep).stderr
    assert not told("status", sweep)["active"]
    again = fttune("run", *away, **far)
    assert again.returncode == 0, again.stderr
    assert len(Tracker(uri, "fttune").records()) == 8
    assert Tracker(uri, "fttune").claim("small") is None
    assert told("status", sweep)["driver"] is None


def test_a_budget_ends_a_sweep_with_what_is_left_and_the_same_command_goes_on(tmp_path: Path) -> None:
    notify = {"command": f"cat >> {tmp_path}/told; echo >> {tmp_path}/told"}
    sweep = write_sweep(tmp_path, tables=True, notify=notify)
    first = fttune("run", sweep, "notify.url=http://u:$PW@127.0.0.1:9/key", "--budget", "trials=3", PW="pw")
    assert first.returncode == 3, first.stderr
    done = len(Tracker(database(tmp_path), "fttune").records())
    assert 3 <= done < 8
    assert f"budget reached: trials=3 ({done} taken); {8 - done} of 8 trials left" in first.stderr
    assert f"to go on: fttune run {sweep} notify.url=...\n" in first.stderr
    assert "notify.url: Connection refused" in first.stderr
    assert "pw" not in first.stderr + first.stdout
    assert "No evidence" in first.stdout, "what there is, is reported"
    rest = fttune("run", sweep, "--budget", "hours=1")
    assert rest.returncode == 0, rest.stderr
    assert f"8 trials: {done} done, 0 failed, {8 - done} to run" in rest.stderr
    once_each(database(tmp_path), 8)
    ends = [json.loads(line) for line in (tmp_path / "told").read_text().splitlines()]
    assert [(one["event"], one["exit_code"], one["counts"]["done"]) for one in ends] == [
        ("end", 3, done),
        ("end", 0, 8),
    ]
    assert ends[1]["resume"] == f"fttune run {sweep}"
    assert "pw" not in ends[0]["resume"]


def test_bad_words_are_one_line_before_anything_is_made(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path)
    wrong = {
        ("--budget", "gpu_hour=2"): "error: --budget: unknown key 'gpu_hour'; did you mean 'gpu_hours'?",
        ("--only", "sed=1"): "error: --only: unknown key 'sed'; did you mean 'seed'?",
        ("notify.ulr=x",): f"error: {sweep}: unknown key in notify 'ulr'; did you mean 'url'?",
        ("notify=https://u:pw@host",): f"error: {sweep}: notify: input should be a mapping of keys: Notify",
        ("notify.url=ftp://host",): "error: notify.url must be http://HOST/... or https://HOST/..., once",
        ("notify.url=https://u:pw@host",): f"error: {sweep}: notify.url: names and passwords come from the environment",
    }
    for words, line in wrong.items():
        done = fttune("run", sweep, *words)
        assert done.returncode == 2
        assert done.stderr.startswith(line), done.stderr
        assert done.stderr.count("\n") == 1
        assert "pw" not in done.stderr
    assert not list(tmp_path.glob("mlflow*"))
    assert not list(tmp_path.glob("fttune_*"))
