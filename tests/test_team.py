"""Many writers share one tracker with names and passwords; nothing is lost, doubled or given away."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Barrier

import pytest

from fttune.config import load_sweep
from fttune.errors import UnreachableError
from fttune.sweep.driver import is_running
from fttune.tracking.runs import Tracker
from fttune.tracking.writer import Writer
from fttune.trial import Trial
from small_sweeps import fttune, once_each, write_sweep
from stores import POINTS, curve_of, make_distance, record_of, runs_of
from team import Team, add_user, dump, missing, postgresql, serving_team
from values import make_trial

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

WRITERS = 16
EACH = 4  # trials of a writer
CURVE = POINTS[:3]


@pytest.fixture(scope="module")
def team() -> Iterator[Team]:
    with TemporaryDirectory() as folder, postgresql() as database, serving_team(database, Path(folder)) as team:
        yield team


@pytest.fixture(autouse=True)
def _credentials(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in team.credentials.items():
        monkeypatch.setenv(name, value)


def write(team: Team, experiment: str, spool: Path, sweep: str, trials: Sequence[Trial], together: Barrier) -> int:
    """What one driver does; gives the number of events that stayed behind."""
    together.wait()
    with Writer(Tracker(team.uri, experiment), spool, sweep, pause=0.05) as writer:
        for trial in trials:
            writer.started(trial)
            for point in CURVE:
                writer.point(trial.id, point)
            writer.finished(record_of(trial))
        return writer.close()


def test_sixteen_writers_at_once_lose_nothing_and_double_nothing(team: Team, tmp_path: Path) -> None:
    shares = [[make_trial(seed=EACH * place + n) for n in range(EACH)] for place in range(WRITERS)]
    together = Barrier(WRITERS)
    with ThreadPoolExecutor(WRITERS) as pool:
        jobs = [
            pool.submit(write, team, "many", tmp_path / str(place), f"sweep-{place % 4}", trials, together)
            for place, trials in enumerate(shares)
        ]
        assert [job.result() for job in jobs] == [0] * WRITERS
    trials = {trial.id: trial for share in shares for trial in share}
    runs = runs_of(team.database, "many")
    assert sorted(run.data.tags["fttune.trial_id"] for run in runs) == sorted(trials)
    assert all(curve_of(team.database, run.info.run_id) == CURVE for run in runs)
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert {record.trial_id: record for record in Tracker(team.uri, "many").records()} == {
        key: record_of(trial) for key, trial in trials.items()
    }
    assert Counter(run.info.run_name for run in runs_of(team.database, "many", "sweep")) == {
        f"sweep-{place}": 1 for place in range(4)
    }


def test_writers_of_the_same_trials_open_one_run_for_each(team: Team, tmp_path: Path) -> None:
    trials, together = [make_trial(seed=seed) for seed in range(6)], Barrier(4)
    with ThreadPoolExecutor(4) as pool:
        jobs = [
            pool.submit(write, team, "same", tmp_path / str(place), "small", trials, together) for place in range(4)
        ]
        assert [job.result() for job in jobs] == [0] * 4
    runs = runs_of(team.database, "same")
    assert sorted(run.data.tags["fttune.trial_id"] for run in runs) == sorted(trial.id for trial in trials)
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert len(runs_of(team.database, "same", "sweep")) == 1


def test_a_distance_that_two_measure_at_once_has_one_run(team: Team) -> None:
    trackers, together = [Tracker(team.uri, "apart") for _ in range(4)], Barrier(4)

    def measure(tracker: Tracker, value: float) -> None:
        together.wait()
        tracker.write_distance(tracker.open_sweep("small"), make_distance(value=value), 1000)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(measure, trackers, (0.1, 0.2, 0.3, 0.4)))
    assert len(runs_of(team.database, "apart", "distance")) == 1


def test_a_report_written_by_one_is_read_by_another(team: Team, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    (tmp_path / "out" / "figures").mkdir(parents=True)
    (tmp_path / "out" / "table.md").write_text("a table")
    (tmp_path / "out" / "figures" / "a.svg").write_text("<svg/>")
    Tracker(team.uri, "reports").log_report("small", tmp_path / "out")
    (run,) = runs_of(team.database, "reports", "sweep")
    assert run.info.artifact_uri.startswith("mlflow-artifacts:/"), "no path of one machine"
    (tmp_path / "there").mkdir()
    found = Path(MlflowClient(team.uri).download_artifacts(run.info.run_id, "report", str(tmp_path / "there")))
    assert (found / "table.md").read_text() == "a table"
    assert (found / "figures" / "a.svg").read_text() == "<svg/>"


def test_a_sweep_on_the_teams_server_is_whole_and_gives_nothing_away(
    team: Team, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = write_sweep(tmp_path, tracking={"uri": team.uri, "experiment": "fttune"})
    with TemporaryDirectory(prefix="ray-") as ray:
        monkeypatch.setenv("RAY_TMPDIR", ray)  # Ray writes logs of its own
        done = fttune("run", sweep)
        assert done.returncode == 0, done.stderr
        once_each(team.database, 8)
        report = fttune("report", sweep, "--json")
        assert report.returncode == 0, report.stderr
        assert report.stdout.startswith("{"), "one document and nothing else"
        logged = holding(Path(ray), b"")
        assert logged, "Ray's logs are there to be searched"
        assert holding(Path(ray), team.password.encode()) == []
    (parent,) = runs_of(team.database, "fttune", "sweep")
    assert (team.artifacts / parent.info.experiment_id / parent.info.run_id).is_dir()
    assert list((team.artifacts).rglob("report/report.html"))
    assert team.password not in done.stdout + done.stderr + report.stdout + report.stderr
    assert holding(tmp_path, team.password.encode()) == []
    assert holding(team.artifacts, team.password.encode()) == []
    assert b"fttune.trial_id" in (rows := dump(team.database))
    assert team.password.encode() not in rows
    assert not is_running(load_sweep(sweep))


def holding(folder: Path, secret: bytes) -> list[Path]:
    """The files under a folder that hold a secret."""
    return [path for path in folder.rglob("*") if path.is_file() and secret in path.read_bytes()]


def test_a_wrong_password_is_told_in_one_line_within_seconds(team: Team, tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path, tracking={"uri": team.uri})
    start = time.monotonic()
    done = fttune("run", sweep, MLFLOW_TRACKING_PASSWORD="not-the-one")
    assert time.monotonic() - start < 60
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.splitlines()[-1] == (
        f"error: the tracker {team.uri} takes no such name and password: "
        "see MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    )
    assert "Traceback" not in done.stderr
    assert "not-the-one" not in done.stderr
    assert holding(tmp_path, b"not-the-one") == []


def test_a_user_without_the_right_to_write_is_told_so(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    Tracker(team.uri, "theirs").open_sweep("small")
    add_user(team, "guest", "long-enough-for-a-guest")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "guest")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "long-enough-for-a-guest")
    assert Tracker(team.uri, "theirs").records() == []
    with pytest.raises(UnreachableError, match="gives this user no right to do this"):
        Tracker(team.uri, "theirs").open_sweep("small")


def test_a_password_that_is_changed_in_mid_sweep_costs_nothing(
    team: Team, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = make_trial(seed=99)
    with Writer(Tracker(team.uri, "changed"), tmp_path / "spool", "small", pause=0.05) as writer:
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "old")
        writer.started(trial)
        writer.finished(record_of(trial))
        assert writer.close() == 2
        assert "takes no such name and password" in writer.problem
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", team.password)
    Writer(Tracker(team.uri, "changed"), tmp_path / "spool", "small").close()
    assert Tracker(team.uri, "changed").records() == [record_of(trial)]
