"""Who is told of a sweep's end and of its first failure, and what is never told."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from fttune.config import Notify
from fttune.errors import ConfigError, StoreError
from fttune.record import RunRecord
from fttune.sweep.hook import Hook
from fttune.tracking.claim import Counts
from stores import free_port, wait_until
from values import make_trial

TRIAL = make_trial()
FAILURE = RunRecord.of(TRIAL, status="failed", error="ValueError: no such layer")


@pytest.fixture(autouse=True)
def password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PW", "pw")


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
    with Hook(Notify(command=f"cat >> {tmp_path}/told; echo >> {tmp_path}/told"), FACTS, warnings.append) as hook:
        hook.counts = lambda: Counts(total=12, done=1, failed=1)
        hook.finished(RunRecord.of(TRIAL, status="done"))
        hook.finished(FAILURE)
        hook.counts = lambda: Counts(total=12, done=1, failed=2)
        hook.finished(RunRecord.of(TRIAL, status="failed", error="KeyError: another"))
        hook.exit_code = 1
    first, last = map(json.loads, (tmp_path / "told").read_text().splitlines())
    assert first == FACTS | {
        "event": "failure",
        "error": f"{TRIAL.name}: ValueError: no such layer",
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
    with server(status=status) as (place, heard), Hook(Notify(url=f"http://u:$PW@{place}/key"), FACTS, warnings.append):
        pass
    assert warnings == [f"notify.url: the server answers {status}; the sweep is none the worse for it"]
    assert len(heard) == 1


def test_whoever_hangs_is_left_and_killed_and_the_sweep_does_not_wait(tmp_path: Path) -> None:
    warnings: list[str] = []
    with server(pause=1.0) as (place, _):
        notify = Notify(command=f"echo $$ > {tmp_path}/pid; sleep 60 & sleep 60", url=f"http://u:$PW@{place}/key")
        start = time.monotonic()
        with Hook(notify, FACTS, warnings.append, seconds=0.3) as hook:
            hook.finished(FAILURE)
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
    with Hook(Notify(url=f"http://u:$PW@127.0.0.1:{free_port()}/key"), FACTS, warnings.append):
        pass
    assert warnings == ["notify.url: Connection refused; the sweep is none the worse for it"]


@pytest.mark.parametrize(
    "url", ["ftp://u:$PW@host/x", "u:$PW@host", "http://", "http://u:$PW@host:port/", "http://[u:$PW"]
)
def test_what_is_no_url_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(ConfigError) as error:
        Hook(Notify(url=url), FACTS, print)
    assert "notify.url must be http://" in str(error.value)
    assert "pw" not in str(error.value)


def test_a_variable_that_is_not_set_is_named() -> None:
    with pytest.raises(ConfigError, match=r"notify\.url: the environment has no HOOK_NOWHERE"):
        Hook(Notify(url="https://host/$HOOK_NOWHERE"), FACTS, print)
