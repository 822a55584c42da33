"""A tracker as a team has it: a real MLflow server with names and passwords, on PostgreSQL, all on loopback."""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import mkdtemp
from urllib.request import Request, urlopen

from stores import answers, free_port, wait_until

_OWNER = "postgres"  # PostgreSQL refuses to run as root
_NEEDED = ("psycopg", "flask_wtf")


@dataclass(frozen=True, kw_only=True, slots=True)
class Team:
    """A server and how to reach it; `database` is the way past it."""

    uri: str
    user: str
    password: str
    database: str
    artifacts: Path

    @property
    def credentials(self) -> dict[str, str]:
        """The environment of whoever may write."""
        return {"MLFLOW_TRACKING_USERNAME": self.user, "MLFLOW_TRACKING_PASSWORD": self.password}


def missing() -> str:
    """Why there can be no such server here; empty where there can."""
    if _programs() is None:
        return "PostgreSQL is not installed"
    absent = [name for name in _NEEDED if find_spec(name) is None]
    return f"not installed: {', '.join(absent)} (the extra `team`)" if absent else ""


@contextmanager
def postgresql() -> Iterator[str]:
    """The URI of an empty database; its server and files are gone after the block."""
    programs, port, password = _programs(), free_port(), secrets.token_hex()
    assert programs is not None
    user = _OWNER if os.getuid() == 0 else None
    folder = Path(mkdtemp(prefix="fttune-pg-"))
    (folder / "password").write_text(password)
    if user:
        for path in (folder, folder / "password"):
            shutil.chown(path, user)
    cluster = folder / "data"
    made = [programs / "initdb", "-D", cluster, "-U", "fttune", "-A", "scram-sha-256", "--pwfile", folder / "password"]
    subprocess.run([*made, "--no-sync"], cwd=folder, user=user, check=True, stdout=subprocess.DEVNULL)
    options = [f"port={port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={folder}", "fsync=off"]
    server = subprocess.Popen(
        [programs / "postgres", "-D", cluster, *(word for option in options for word in ("-c", option))],
        cwd=folder,
        user=user,
        stderr=subprocess.DEVNULL,
    )
    asked = [programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
    try:
        wait_until(lambda: server.poll() is not None or subprocess.run(asked, check=False).returncode == 0)
        yield f"postgresql://fttune:{password}@127.0.0.1:{port}/postgres"
    finally:
        server.send_signal(signal.SIGINT)  # end now, whoever is connected
        server.wait()
        shutil.rmtree(folder)


@contextmanager
def serving_team(database: str, folder: Path) -> Iterator[Team]:
    """A server on a database, with one user and artifacts that it hands on; killed at the end of the block."""
    port, user, password = free_port(), "admin", f"pw-{secrets.token_hex()}"
    (folder / "auth.ini").write_text(
        f"[mlflow]\ndatabase_uri = sqlite:///{folder}/auth.db\nadmin_username = {user}\ndefault_permission = READ\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\nauth_cache_ttl_seconds = 60\n"
    )
    settings = {
        "MLFLOW_BACKEND_STORE_URI": database,
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"),
        "MLFLOW_AUTH_ADMIN_PASSWORD": password,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    artifacts = folder / "artifacts"
    words = ["--app-name", "basic-auth", "--host", "127.0.0.1", "--port", str(port), "--workers", "2"]
    words += ["--serve-artifacts", "--artifacts-destination", str(artifacts)]
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *words],
            cwd=folder,
            env={**os.environ, **settings},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        wait_until(lambda: server.poll() is not None or answers(port), 180)
        assert server.poll() is None, (folder / "server.log").read_text()
        uri = f"http://127.0.0.1:{port}"
        yield Team(uri=uri, user=user, password=password, database=database, artifacts=artifacts)
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def add_user(team: Team, name: str, password: str) -> None:
    """A user who may read everything and create experiments."""
    key = b64encode(f"{team.user}:{team.password}".encode()).decode()
    asked = Request(
        f"{team.uri}/api/2.0/mlflow/users/create",
        data=json.dumps({"username": name, "password": password}).encode(),
        headers={"Authorization": f"Basic {key}", "Content-Type": "application/json"},
    )
    with urlopen(asked):
        pass


def dump(database: str) -> bytes:
    """Everything that a database holds."""
    programs = _programs()
    assert programs is not None
    return subprocess.run([programs / "pg_dump", "-d", database], capture_output=True, check=True).stdout


def _programs() -> Path | None:
    """The folder of the newest PostgreSQL's programs, where Debian and its kin put them or on the path."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    program = str(found[-1]) if found else shutil.which("initdb")
    return Path(program).parent if program else None
