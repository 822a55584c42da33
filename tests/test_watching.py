"""What is seen of a running sweep, what ends it early, and who is told."""

import io
import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from fttune.bundle import Bundle
from fttune.config import Notify
from fttune.errors import ConfigError, StoreError
from fttune.plan import Plan
from fttune.record import CurvePoint, RunRecord
from fttune.sweep.budget import Brake, Budget
from fttune.sweep.hook import Hook
from fttune.sweep.ledger import Ledger, Listener, Outcome
from fttune.sweep.meter import Meter
from fttune.sweep.progress import Display
from fttune.sweep.tally import Tally
from fttune.trial import Trial
from stores import free_port, wait_until
from values import HPARAMS, make_trial

TRIALS = tuple(make_trial(seed=seed, hparams=replace(HPARAMS, steps=100, report_every=10)) for seed in range(12))


class Sweep:
    """A sweep that is played through the real ledger, on a clock of its own."""

    def __init__(self, trials: Sequence[Trial] = TRIALS, *, share: float = 0.0, expected: float | None = None) -> None:
        self.now = 1000.0
        self.meter = Meter(lambda: self.now)
        plan = Plan(done=(), failed=(), to_run=tuple(trials))
        self.tally = Tally(plan, trials, self.meter, expected=expected, now=lambda: self.now)
        self.listeners: list[Listener] = [self.tally]
        jobs = [Bundle.alone(trial) for trial in trials]
        self.ledger = Ledger(jobs, self.listeners, "abc", shares=[share] * len(jobs), meter=self.meter)

    def start(self, number: int) -> None:
        self.ledger.started(self.ledger.runs[number])

    def step(self, number: int, step: int, *, after: int = 0) -> None:
        """Every report of a trial up to a step, the first being one that was saved where it is not 0."""
        for reported in range(after + 10, step + 10, 10):
            point = CurvePoint(step=reported, train_loss=1.5, val_loss=1.0, val_accuracy=0.25)
            self._tell(number, {"point": asdict(point)})

    def end(self, number: int) -> None:
        record = RunRecord.of(TRIALS[number], status="done", val_accuracy=0.5, test_accuracy=0.75, seconds=3.0)
        self._tell(number, {"record": asdict(record)})

    def fail(self, number: int, error: str = "ValueError: no such layer") -> None:
        self._tell(number, {"error": error, "traceback": "", "final": True, "memory": False})

    def left(self) -> float:
        seconds = self.tally.counts().seconds
        assert seconds is not None
        return seconds

    def _tell(self, number: int, news: dict[str, Any]) -> None:
        run = self.ledger.runs[number]
        self.ledger.hear(run, "node", [{"trial": TRIALS[number].id, **news}])


def test_trials_are_counted_as_what_they_are() -> None:
    sweep = Sweep()
    for number in range(4):
        sweep.start(number)
    sweep.end(0)
    sweep.fail(1)
    counts = sweep.tally.counts()
    assert (counts.total, counts.done, counts.running, counts.failed) == (12, 1, 2, 1)


def test_what_was_done_before_is_counted_and_what_is_tried_again_has_not_failed_yet() -> None:
    plan = Plan(done=TRIALS[:3], failed=TRIALS[3:6], to_run=TRIALS[6:])
    assert Tally(plan, TRIALS[6:], Meter()).counts().failed == 3
    again = Tally(plan, TRIALS[3:5], Meter()).counts()
    assert (again.total, again.done, again.failed) == (12, 3, 1)


def test_a_trial_whose_process_died_is_not_running_until_it_is_tried_again() -> None:
    sweep = Sweep(share=0.5)
    sweep.start(0)
    sweep.start(1)
    assert sweep.tally.look().gpus == 1.0
    sweep.ledger.died(sweep.ledger.runs[0])
    assert sweep.tally.counts().running == 1
    assert sweep.tally.look().gpus == 0.5


@given(slots=st.sampled_from([1, 2, 3, 4, 6, 12]), seconds=st.floats(1, 1e5), reports=st.integers(1, 9))
def test_the_time_left_is_right_from_the_first_reports_on_however_many_run_side_by_side(
    slots: int, seconds: float, reports: int
) -> None:
    sweep = Sweep()
    for number in range(slots):
        sweep.start(number)
    sweep.now += seconds * reports / 10
    for number in range(slots):
        sweep.step(number, 10 * reports)
    assert sweep.left() == pytest.approx(seconds * (12 / slots - reports / 10))
    sweep.now += seconds * (1 - reports / 10)
    for number in range(slots):
        sweep.step(number, 100)
        sweep.end(number)
    assert sweep.left() == pytest.approx(seconds * (12 / slots - 1))


def test_the_first_of_many_to_end_does_not_stand_for_all_that_was_done() -> None:
    sweep = Sweep()
    for number in range(6):
        sweep.start(number)
    sweep.now += 100
    for number in range(6):
        sweep.step(number, 100)
    sweep.end(0)
    assert sweep.left() == pytest.approx(100), "six more beside each other, not eleven after one another"


def test_the_last_trial_alone_takes_its_own_time() -> None:
    sweep = Sweep(TRIALS[:5])
    for start in (0, 2):
        for number in (start, start + 1):
            sweep.start(number)
        sweep.now += 100
        for number in (start, start + 1):
            sweep.step(number, 100)
            sweep.end(number)
    sweep.start(4)
    assert sweep.left() == pytest.approx(100), "although two ran side by side until then"


def test_before_anything_is_seen_the_cost_model_has_the_word_and_then_gives_way() -> None:
    sweep = Sweep(expected=600.0)
    assert sweep.left() == 600.0
    sweep.start(0)
    sweep.now += 1
    sweep.step(0, 10)
    assert 450 < sweep.left() < 600, "a hundredth of the sweep in a second says little"
    for number in range(6):
        sweep.start(number)
        sweep.now += 10
        sweep.step(number, 100)
        sweep.end(number)
    assert sweep.left() == pytest.approx(61), "half of the sweep says all"
    assert Sweep().tally.counts().seconds is None


def test_a_trial_that_goes_on_where_it_was_saved_makes_the_sweep_look_no_faster() -> None:
    sweep = Sweep(TRIALS[:2])
    sweep.start(0)
    sweep.now += 10
    sweep.step(0, 90, after=80)
    assert sweep.left() == pytest.approx(10 + 100), "ten steps took ten seconds; eighty were made before"
    assert sweep.tally.look().images_per_second == pytest.approx(HPARAMS.batch_size)


def terminal(file: io.StringIO) -> Console:
    return Console(file=file, force_terminal=True, width=120, height=40, highlight=False)


def screen(sweep: Sweep) -> str:
    """What is on the terminal now."""
    display = sweep.listeners[1]
    assert isinstance(display, Display)
    file = io.StringIO()
    Console(file=file, width=120, height=40).print(display._render())
    return file.getvalue()


def test_a_terminal_shows_counts_speed_gpus_time_left_and_the_last_failure() -> None:
    sweep, file = Sweep(share=0.25), io.StringIO()
    display = Display(sweep.tally, terminal(file))
    sweep.listeners.append(display)
    with display:
        for number in range(4):
            sweep.start(number)
        sweep.now += 50
        for number in range(4):
            sweep.step(number, 50)
        lines = screen(sweep).splitlines()
        assert lines[0].startswith("trials")
        assert "0/12" in lines[0]
        assert len([line for line in lines if "val 0.250  loss 1.500" in line]) == 4
        assert lines[-1] == "  0 done, 4 running, 0 failed, 32 images/s, 1 GPUs taken, about 4:10 left"
        sweep.fail(2)
        sweep.end(3)
        lines = screen(sweep).splitlines()
        assert lines[-1].startswith(f"last failure: {TRIALS[2].name}: ValueError: no such layer")
        sweep.fail(1, "OSError: [Errno 28] " + "far " * 99)
        lines = screen(sweep).splitlines()
        assert lines[-1].startswith(f"last failure: {TRIALS[1].name}: OSError: [Errno 28] far")
        assert len(lines[-1]) <= 120
    shown = file.getvalue()
    assert f"{TRIALS[2].name}" in shown
    assert "FAILED  ValueError: no such layer" in shown, "said at once, in full"
    assert "last failure" in shown
    assert "\x1b[" in shown


def test_where_there_is_no_terminal_there_is_a_line_for_each_trial_and_one_now_and_then() -> None:
    sweep, file = Sweep(), io.StringIO()
    display = Display(sweep.tally, Console(file=file, width=40), between=0.05)
    sweep.listeners.append(display)
    with display:
        sweep.start(0)
        sweep.start(1)
        sweep.now += 20
        sweep.step(0, 20)
        wait_until(lambda: "about" in file.getvalue())
        sweep.end(0)
        sweep.fail(1)
    lines = file.getvalue().splitlines()
    assert "     0/12  0 done, 2 running, 0 failed, 8 images/s, about 19:40 left" in lines
    assert f"     1/12  {TRIALS[0].name:<36} val 0.500  test 0.750  3.0 s" in lines
    assert f"     2/12  {TRIALS[1].name:<36} FAILED  ValueError: no such layer" in lines
    assert "\x1b" not in file.getvalue()
    time.sleep(0.15)
    assert file.getvalue().splitlines() == lines, "nothing more once it has ended"


def test_a_short_sweep_has_no_lines_between_its_trials() -> None:
    sweep, file = Sweep(), io.StringIO()
    display = Display(sweep.tally, Console(file=file))
    sweep.listeners.append(display)
    with display:
        sweep.start(0)
        sweep.end(0)
    assert len(file.getvalue().splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("gpu_hour=20", "did you mean 'gpu_hours'?"),
        ("days=1", "known: gpu_hours, hours, trials"),
        ("hours", "must read key=value, such as hours=20"),
        ("hours=0", "hours must be a number above 0, but got '0'"),
        ("gpu_hours=-3", "gpu_hours must be a number above 0, but got '-3'"),
        ("gpu_hours=lots", "but got 'lots'"),
        ("hours=nan", "but got 'nan'"),
        ("hours=inf", "but got 'inf'"),
        ("trials=2.5", "trials must be a whole number above 0, but got '2.5'"),
        ("hours=", "but got ''"),
    ],
)
def test_a_bad_budget_is_told_in_one_line(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        Budget.parse([text])
    assert words in str(error.value)
    assert str(error.value).startswith("--budget")
    assert "\n" not in str(error.value)


def test_a_budget_is_read_key_by_key_and_each_once() -> None:
    assert Budget.parse(["gpu_hours=20", "trials=7"]) == Budget(gpu_hours=20, trials=7)
    with pytest.raises(ConfigError, match="'hours' stands twice"):
        Budget.parse(["hours=1", "hours=2"])


def test_gpu_hours_are_shares_times_seconds_of_all_that_ran_and_runs() -> None:
    sweep = Sweep(share=0.25)
    brake = Brake(Budget(gpu_hours=1), sweep.meter)
    sweep.start(0)
    sweep.start(1)
    sweep.now += 3600
    assert sweep.meter.gpu_hours == pytest.approx(0.5)
    sweep.end(0)
    sweep.ledger.died(sweep.ledger.runs[1])
    sweep.now += 3600
    assert sweep.meter.gpu_hours == pytest.approx(0.5), "nothing runs"
    assert not brake(sweep.ledger.outcome)
    sweep.start(2)
    sweep.now += 7199
    assert not brake(sweep.ledger.outcome)
    sweep.now += 1
    assert brake(sweep.ledger.outcome)
    assert brake.reached == "gpu_hours=1 (1 taken)"


def test_the_brake_is_pulled_by_trials_hours_a_failure_and_the_loss_of_the_sweep() -> None:
    record = RunRecord.of(TRIALS[0], status="done")
    assert Brake(Budget(trials=2), Meter())(Outcome(finished=[record], failed=[record]))
    assert not Brake(Budget(trials=2), Meter())(Outcome(finished=[record]))
    assert Brake(Budget(hours=1), Meter(), since=time.monotonic() - 3601)(Outcome())
    assert not Brake(Budget(hours=1), Meter())(Outcome())
    assert Brake(Budget(), Meter(), fail_fast=True)(Outcome(failed=[record]))
    assert not Brake(Budget(), Meter())(Outcome(failed=[record]))
    assert Brake(Budget(), Meter(), lost=lambda: True)(Outcome())


def test_a_budget_of_gpu_hours_where_nothing_runs_on_a_gpu_is_told() -> None:
    assert "ended nothing" in Brake(Budget(gpu_hours=1), Meter()).notes[0]
    assert not Brake(Budget(hours=1), Meter()).notes


@contextmanager
def server(*, status: int = 200, pause: float = 0.0) -> Iterator[tuple[str, list[tuple[dict[str, str], Any]]]]:
    """A real HTTP server: where it is, and the headers and documents that were posted to it."""
    heard: list[tuple[dict[str, str], Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            heard.append(({name.lower(): value for name, value in self.headers.items()}, json.loads(body)))
            heard[-1][0]["path"] = self.path
            time.sleep(pause)
            self.send_response(status)
            self.send_header("Location", "/elsewhere")
            self.end_headers()

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as one:
        thread = threading.Thread(target=one.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{one.server_port}", heard
        finally:
            one.shutdown()


FACTS = {"sweep": "small", "resume": "fttune run small.yaml"}


def test_a_command_reads_the_first_failure_and_the_end(tmp_path: Path) -> None:
    warnings: list[str] = []
    sweep = Sweep()
    with Hook(Notify(command=f"cat >> {tmp_path}/told; echo >> {tmp_path}/told"), FACTS, warnings.append) as hook:
        hook.counts = sweep.tally.counts
        sweep.listeners.append(hook)
        for number in range(3):
            sweep.start(number)
        sweep.end(0)
        sweep.fail(1)
        sweep.fail(2, "KeyError: another")
        hook.exit_code = 1
    first, last = map(json.loads, (tmp_path / "told").read_text().splitlines())
    assert first == FACTS | {
        "event": "failure",
        "error": f"{TRIALS[1].name}: ValueError: no such layer",
        "counts": first["counts"],
    }
    assert (first["counts"]["done"], first["counts"]["failed"], first["counts"]["total"]) == (1, 1, 12)
    assert (last["event"], last["exit_code"], last["counts"]["failed"]) == ("end", 1, 2)
    assert not warnings


def test_a_server_is_posted_to_with_the_login_of_its_url_and_its_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: list[str] = []
    monkeypatch.setenv("HOOK_TOKEN", "s3cret")
    with server() as (place, heard):
        notify = Notify(url=f"http://me:$HOOK_TOKEN@{place}/hooks/${{HOOK_TOKEN}}?x=1")
        with Hook(notify, FACTS, warnings.append):
            pass
    ((headers, document),) = heard
    assert document["event"] == "end"
    assert headers["content-type"] == "application/json"
    assert headers["authorization"] == "Basic bWU6czNjcmV0"
    assert headers["path"] == "/hooks/s3cret?x=1"
    assert not warnings


def test_the_end_by_an_error_tells_the_error() -> None:
    with server() as (place, heard):
        with pytest.raises(StoreError), Hook(Notify(url=f"http://{place}"), FACTS, print):
            raise StoreError("no room left")
        with pytest.raises(KeyboardInterrupt), Hook(Notify(url=f"http://{place}"), FACTS, print):
            raise KeyboardInterrupt
    assert [(one["event"], one["error"], one["exit_code"]) for _, one in heard] == [
        ("end", "no room left", 1),
        ("end", "", 130),
    ]


@pytest.mark.parametrize("status", [302, 404, 500])
def test_a_server_that_refuses_or_sends_elsewhere_is_one_line(status: int) -> None:
    warnings: list[str] = []
    with server(status=status) as (place, heard), Hook(Notify(url=f"http://u:pw@{place}/key"), FACTS, warnings.append):
        pass
    assert warnings == [f"notify.url: the server answers {status}; the sweep is none the worse for it"]
    assert len(heard) == 1


def test_whoever_hangs_is_left_and_killed_and_the_sweep_does_not_wait(tmp_path: Path) -> None:
    warnings: list[str] = []
    sweep = Sweep()
    with server(pause=1.0) as (place, _):
        notify = Notify(command=f"echo $$ > {tmp_path}/pid; sleep 60 & sleep 60", url=f"http://u:pw@{place}/key")
        start = time.monotonic()
        with Hook(notify, FACTS, warnings.append, seconds=0.3) as hook:
            sweep.listeners.append(hook)
            sweep.start(0)
            sweep.fail(0)
            assert time.monotonic() - start < 0.2, "the event loop goes on"
        assert time.monotonic() - start < 5
    assert set(warnings) == {
        "notify.command: not done within 0.3 s, and killed; the sweep is none the worse for it",
        "notify.url: no answer within 0.3 s; the sweep is none the worse for it",
    }
    group = int((tmp_path / "pid").read_text())
    wait_until(lambda: not members(group))


def members(group: int) -> list[str]:
    """The processes of a group that are not yet gone."""
    stats = [path.read_text().rpartition(")")[2].split() for path in Path("/proc").glob("[0-9]*/stat") if path.exists()]
    return [one[0] for one in stats if one[2] == str(group) and one[0] != "Z"]


def test_a_command_that_fails_or_reads_nothing_is_one_line_at_most() -> None:
    warnings: list[str] = []
    for command in ("exit 7", "no-such-command-anywhere", "true"):
        with Hook(Notify(command=command), FACTS, warnings.append):
            pass
    assert [line.partition(";")[0] for line in warnings] == [
        "notify.command: exit code 7",
        "notify.command: exit code 127",
    ]


def test_no_warning_holds_a_url() -> None:
    warnings: list[str] = []
    with Hook(Notify(url=f"http://u:pw@127.0.0.1:{free_port()}/key"), FACTS, warnings.append):
        pass
    assert warnings == ["notify.url: Connection refused; the sweep is none the worse for it"]


@pytest.mark.parametrize("url", ["ftp://u:pw@host/x", "u:pw@host", "http://", "http://u:pw@host:port/", "http://[u:pw"])
def test_what_is_no_url_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(ConfigError) as error:
        Hook(Notify(url=url), FACTS, print)
    assert "notify.url must be http://" in str(error.value)
    assert "pw" not in str(error.value)


def test_a_variable_that_is_not_set_is_named() -> None:
    with pytest.raises(ConfigError, match=r"notify\.url: the environment has no HOOK_NOWHERE"):
        Hook(Notify(url="https://host/$HOOK_NOWHERE"), FACTS, print)
