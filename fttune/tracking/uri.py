"""Where the tracker is, and in which words it is said that it does not answer."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fttune.errors import FttuneError, UnreachableError
from fttune.secrets import masked

_DEFAULT = "sqlite:///mlflow.db"
_SQLITE = "sqlite:///"

# What of a long message tells a person why a server did not answer.
_REASONS = re.compile(
    r"connection refused|timed out|failed to resolve|connection reset|connection aborted|no route to host",
    re.IGNORECASE,
)

# How MLflow's client words what a server says of credentials.
_REFUSALS = re.compile(r"failed with error code (401|403)")
_MEANT = {"401": "takes no such name and password", "403": "gives this user no right to do this"}


def resolve_uri(configured: str | None) -> str:
    """Where MLflow is: as configured, else MLFLOW_TRACKING_URI, else `sqlite:///mlflow.db` in the current folder."""
    return configured or os.environ.get("MLFLOW_TRACKING_URI") or _DEFAULT


def database_file(uri: str) -> Path | None:
    """The file of an SQLite URI; None for a server and for any other database."""
    return Path(uri.removeprefix(_SQLITE)) if uri.startswith(_SQLITE) else None


def in_full(uri: str) -> str:
    """The URI with the file of an SQLite database in full: MLflow opens a relative one where the process first was."""
    file = database_file(uri)
    return f"{_SQLITE}{file.absolute()}" if file else uri


def reason(error: Exception) -> str:
    """Why something failed: a few words where it is a known reason, else the beginning of the message, in one line."""
    text = " ".join(str(error).partition("[SQL:")[0].split())
    known = _REASONS.search(text)
    return known[0].lower() if known else masked(text)[:200] or type(error).__name__


@contextmanager
def asking(uri: str) -> Iterator[None]:
    """Turn whatever goes wrong between here and the tracker into an UnreachableError of one line."""
    try:
        yield
    except FttuneError:
        raise
    except Exception as error:
        # MLflow lets through whatever its stores raise: its own, SQLAlchemy's, the database driver's, OSError.
        raise UnreachableError(f"the tracker {masked(uri)} {_failing(error)}") from error


def _failing(error: Exception) -> str:
    if refused := _REFUSALS.search(str(error)):
        return f"{_MEANT[refused[1]]}: see MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    return f"does not answer: {reason(error)}"
