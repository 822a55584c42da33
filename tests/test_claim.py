"""One driver at a time runs a sweep, and everybody who sees the tracker can tell which, and whether it lives."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fttune.tracking.claim import FRESH, Claim, Counts
from fttune.tracking.runs import Tracker
from fttune.tracking.writer import Writer
from stores import TRIALS, free_port, make_database, record_of, runs_of, serving, wait_until


@pytest.fixture
def tracker(tmp_path: Path) -> Tracker:
    return Tracker(make_database(tmp_path), "fttune")


def elsewhere(*, silent: float = 0.0) -> Claim:
    """A driver of another machine, silent for some seconds."""
    heard = datetime.now(UTC) - timedelta(seconds=silent)
    return replace(Claim.own(), host="far", machine="another", since=heard, heard=heard)


def of_dead_process() -> Claim:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return replace(Claim.own(), pid=ended.pid)


def test_a_sweep_nobody_runs_has_no_claim_and_asking_makes_no_database(tmp_path: Path) -> None:
    assert Tracker(f"sqlite:///{tmp_path}/none.db", "fttune").claim("s") is None
    assert not (tmp_path / "none.db").exists()


def test_a_claim_is_held_until_its_driver_ends_and_then_free(tracker: Tracker) -> None:
    parent, own = tracker.open_sweep("s"), Claim.own()
    assert tracker.take(parent, own)
    assert tracker.claim("s") == own
    counts = Counts(total=9, done=3, running=2, failed=1, seconds=61.5)
    assert tracker.beat(parent, own.heard_now(counts))
    held = tracker.claim("s")
    assert held is not None
    assert held.counts == counts
    assert held.fresh
    assert not tracker.take(parent, elsewhere())
    assert tracker.beat(parent, own.heard_now(counts, ended=True))
    assert tracker.claim("s") is None
    assert tracker.take(parent, elsewhere())


def test_a_silent_driver_is_stale_and_a_dead_process_of_this_machine_at_once() -> None:
    assert elsewhere(silent=FRESH - 10).fresh
    assert not elsewhere(silent=FRESH + 1).fresh
    assert elsewhere(silent=-3600).ahead
    assert not elsewhere(silent=-3600).fresh, "a clock that runs ahead tells nothing"
    assert elsewhere(silent=10 - FRESH).fresh
    assert Claim.own().fresh
    assert of_dead_process().gone
    assert not of_dead_process().fresh


def test_who_was_taken_over_learns_it_and_writes_nothing_more(tracker: Tracker) -> None:
    parent, old, new = tracker.open_sweep("s"), elsewhere(silent=3 * FRESH), Claim.own()
    assert tracker.take(parent, old)
    assert tracker.take(parent, new, over=old)
    assert tracker.claim("s") == new
    assert not tracker.beat(parent, old.heard_now(Counts()))
    assert not tracker.beat(parent, old.heard_now(Counts(), ended=True))
    assert tracker.claim("s") == new


def test_only_the_claim_that_was_seen_can_be_taken_over(tracker: Tracker) -> None:
    parent, seen = tracker.open_sweep("s"), elsewhere(silent=3 * FRESH)
    tracker.take(parent, seen)
    assert tracker.take(parent, elsewhere(), over=seen)
    assert not tracker.take(parent, Claim.own(), over=seen)


def test_of_many_drivers_that_start_at_once_one_runs_the_sweep(tmp_path: Path) -> None:
    store, port = make_database(tmp_path), free_port()
    with serving(store, port, tmp_path), ThreadPoolExecutor(8) as pool:
        uri = f"http://127.0.0.1:{port}"
        Tracker(uri, "fttune").open_sweep("s")
        for round_ in range(3):
            trackers, claims = [Tracker(uri, "fttune") for _ in range(8)], [Claim.own() for _ in range(8)]
            parents = [one.open_sweep("s") for one in trackers]
            over = [trackers[0].claim("s")] * 8
            won = list(pool.map(Tracker.take, trackers, parents, claims, over))
            assert sum(won) == 1, round_
            assert trackers[0].claim("s") == claims[won.index(True)]


def test_a_sign_of_life_that_cannot_be_read_leaves_the_claim_as_it_began(tracker: Tracker) -> None:
    from mlflow import MlflowClient

    parent, own = tracker.open_sweep("s"), Claim.own()
    assert tracker.take(parent, own)
    for text in ("", "{}", "[1]", "null", json.dumps(asdict(own) | {"heard": 5}, default=str)):
        MlflowClient(tracker.uri).set_tag(parent.run_id, "fttune.claim", text)
        assert tracker.claim("s") == own


def test_a_writer_gives_signs_of_life_and_clears_its_claim(tracker: Tracker, tmp_path: Path) -> None:
    with Writer(tracker, tmp_path / "spool", "s", pause=0.02, between_beats=0.05) as writer:
        writer.counts = lambda: Counts(total=4, done=1)
        assert writer.hold()
        wait_until(lambda: (held := tracker.claim("s")) and held.counts.done == 1)
        first = tracker.claim("s")
        wait_until(lambda: (held := tracker.claim("s")) and first and held.heard > first.heard)
        assert not Writer(Tracker(tracker.uri, "fttune"), tmp_path / "other", "s").hold()
    assert tracker.claim("s") is None


def test_signs_of_life_do_not_wait_for_the_end_of_a_batch(tracker: Tracker, tmp_path: Path) -> None:
    beats: list[int] = []

    def counts() -> Counts:
        beats.append(1)
        return Counts()

    writer = Writer(tracker, tmp_path / "spool", "s", pause=60, between_beats=0)
    assert writer.hold()
    writer.counts = counts
    for trial in TRIALS[:3]:
        writer.started(trial)
        writer.finished(record_of(trial))
    assert writer.close() == 0
    assert len(beats) > 6, "one for each request, not for each batch"


def test_a_writer_whose_sweep_was_taken_delivers_nothing_more_and_keeps_it(tracker: Tracker, tmp_path: Path) -> None:
    writer = Writer(tracker, tmp_path / "spool", "s", pause=0.02, between_beats=0.05)
    assert writer.hold()
    other = Tracker(tracker.uri, "fttune")
    assert other.take(other.open_sweep("s"), elsewhere(), over=other.claim("s"))
    wait_until(lambda: writer.lost)
    writer.started(TRIALS[0])
    writer.finished(record_of(TRIALS[0]))
    assert writer.close() == 2
    assert runs_of(tracker.uri, "fttune") == []
    assert (held := tracker.claim("s")) is not None
    assert held.host == "far"
