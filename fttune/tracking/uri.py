"""Where the tracker is, and in which words it is said that it does not answer."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fttune.errors import FttuneError, UnreachableError

_DEFAULT = "sqlite:///mlflow.db"
_SQLITE = "sqlite:///"

# What of a long message tells a person why a server did not answer.
_REASONS = re.compile(
    r"connection refused|timed out|failed to resolve|connection reset|connection aborted|no route to host",
    re.IGNORECASE,
)


def resolve_uri(configured: str | None) -> str:
    """Where MLflow is: as configured, else MLFLOW_TRACKING_URI, else `sqlite:///mlflow.db` in the current folder."""
    return configured or os.environ.get("MLFLOW_TRACKING_URI") or _DEFAULT


def database_file(uri: str) -> Path | None:
    """The file of an SQLite URI; None for a server and for any other database."""
    return Path(uri.removeprefix(_SQLITE)) if uri.startswith(_SQLITE) else None


def masked(text: str) -> str:
    """Text without the password of a URI in it."""
    return re.sub(r"//[^@/\s]*@", "//***@", text)


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
        raise UnreachableError(f"the tracker {masked(uri)} does not answer: {reason(error)}") from error
