"""Tell somebody that a sweep has ended or that its first trial failed: a command, a URL, or both."""

import base64
import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from queue import SimpleQueue
from threading import Thread
from types import TracebackType
from typing import Any, Literal, Self
from urllib.error import HTTPError, URLError
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from fttune.config import Notify
from fttune.errors import ConfigError, FttuneError
from fttune.record import CurvePoint, DistanceRecord, RunRecord
from fttune.tracking.claim import Counts
from fttune.tracking.fields import record_name
from fttune.trial import Trial

SECONDS = 10.0  # that a command, or a server, may take
_MOST = 4  # waits for one of them at most: two events, each told in two ways
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})")


class Hook:
    """A listener that tells of a sweep; what goes wrong with that is one line to `warn`, and nothing else.

    Messages leave one after the other from a thread of their own; leaving the block waits for them, but not for long.
    Leaving tells the end. `facts` stand in each document. ConfigError where the URL cannot be made.
    """

    def __init__(
        self, notify: Notify, facts: Mapping[str, Any], warn: Callable[[str], None], seconds: float = SECONDS
    ) -> None:
        self.counts: Callable[[], Counts] = Counts  # how far the sweep is
        self.exit_code = 0  # that is told with the end, unless an error is
        self._ways: dict[str, Callable[[bytes, float], str]] = {}
        if notify.command:
            self._ways["notify.command"] = partial(_run, notify.command)
        if notify.url:
            self._ways["notify.url"] = partial(_post, _server(notify.url))
        self._facts, self._warn, self._seconds = facts, warn, seconds
        self._failed = False
        self._queue: SimpleQueue[bytes | None] = SimpleQueue()
        self._thread = Thread(target=self._keep_sending, name="fttune-hook", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        code = error.exit_code if isinstance(error, FttuneError) else 130 if kind is KeyboardInterrupt else 1
        self._tell("end", str(error or ""), exit_code=code if kind else self.exit_code)
        self._queue.put(None)
        self._thread.join(_MOST * self._seconds + 1)
        if self._thread.is_alive():
            # A server that sends a byte now and then answers in no time that could be waited for.
            self._warn(f"notify.url: no answer within {self._seconds:g} s")

    def started(self, trial: Trial) -> None:
        """Nobody is told of it."""

    def point(self, trial_id: str, point: CurvePoint) -> None:
        """Nobody is told of it."""

    def distance(self, record: DistanceRecord) -> None:
        """Nobody is told of it."""

    def finished(self, record: RunRecord, traceback: str = "") -> None:
        """The first failure is told of."""
        if record.status == "failed" and not self._failed:
            self._failed = True
            self._tell("failure", f"{record_name(record)}: {record.error}")

    def _tell(self, event: Literal["failure", "end"], error: str, **more: Any) -> None:
        if self._ways:
            document = {**self._facts, "event": event, "error": error, "counts": asdict(self.counts()), **more}
            self._queue.put(json.dumps(document).encode())

    def _keep_sending(self) -> None:
        while (document := self._queue.get()) is not None:
            for name, send in self._ways.items():
                if problem := self._try(send, document):
                    self._warn(f"{name}: {problem}; the sweep is none the worse for it")

    def _try(self, send: Callable[[bytes, float], str], document: bytes) -> str:
        try:
            return send(document, self._seconds)
        except Exception as error:
            # Its text may hold the URL, and with it a password.
            return type(error).__name__


class _Stay(HTTPRedirectHandler):
    """Follows no redirection: what a document or a password is sent to is what the user named."""

    def redirect_request(self, *args: Any, **more: Any) -> None:
        return None


def _run(command: str, document: bytes, seconds: float) -> str:
    """Run a command of the shell with a document on its stdin; what went wrong, or nothing."""
    quiet = subprocess.DEVNULL
    with subprocess.Popen(
        command, shell=True, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet, start_new_session=True
    ) as process:
        try:
            process.communicate(document, timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return f"not done within {seconds:g} s, and killed"
    return f"exit code {process.returncode}" if process.returncode else ""


def _post(url: SplitResult, document: bytes, seconds: float) -> str:
    """Post a document; what went wrong, or nothing."""
    place = url._replace(netloc=url.netloc.rpartition("@")[2], fragment="").geturl()
    request = Request(place, document, {"Content-Type": "application/json", **_login(url)})
    try:
        with build_opener(_Stay).open(request, timeout=seconds):
            return ""
    except HTTPError as error:
        return f"the server answers {error.code}"
    except TimeoutError:
        return f"no answer within {seconds:g} s"
    except URLError as error:
        late = isinstance(error.reason, TimeoutError)
        known = error.reason.strerror if isinstance(error.reason, OSError) else None
        return f"no answer within {seconds:g} s" if late else known or "no answer"


def _login(url: SplitResult) -> dict[str, str]:
    if url.username is None:
        return {}
    words = f"{unquote(url.username)}:{unquote(url.password or '')}"
    return {"Authorization": f"Basic {base64.b64encode(words.encode()).decode()}"}


def _server(text: str) -> SplitResult:
    """A URL with its variables filled in; ConfigError, without the URL, where that makes none."""
    filled = _VARIABLE.sub(_value, text)
    try:
        url = urlsplit(filled)
        whole = url.scheme in ("http", "https") and url.hostname and url.port != 0
    except ValueError:
        url = whole = None
    if not url or not whole:
        raise ConfigError("notify.url must be http://HOST/... or https://HOST/..., once its variables are filled in")
    return url


def _value(found: re.Match[str]) -> str:
    name = found[1] or found[2]
    if name not in os.environ:
        raise ConfigError(f"notify.url: the environment has no {name}")
    return os.environ[name]
