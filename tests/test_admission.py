"""A cluster that cannot be joined is told of in seconds; one that can is shown our token and given its first worker."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread

import pytest
from nodes import ray_node

from fttune.errors import UnreachableError, UsageError
from fttune.sweep.admission import seek_admission
from small_sweeps import fttune, write_sweep

TOKEN = "a" * 64


def free_port() -> int:
    with closing(socket.socket()) as line:
        line.bind(("127.0.0.1", 0))
        return line.getsockname()[1]


@pytest.mark.parametrize(
    "address", ["head", ":6379", "http://head:8265", "head:", "head:port", "head:70000", "a..b:6379"]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="auto or HOST:PORT"):
        seek_admission(address)


def test_a_port_where_nothing_listens_is_no_cluster() -> None:
    with pytest.raises(UnreachableError, match="Connection refused"):
        seek_admission(f"127.0.0.1:{free_port()}")


def test_a_page_server_is_no_cluster() -> None:
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(UnreachableError, match="something else"):
            seek_admission(f"127.0.0.1:{server.server_port}")
        server.shutdown()


def test_a_sweep_for_a_cluster_that_is_not_there_ends_before_its_images_are_decoded(tmp_path: Path) -> None:
    done = fttune("run", write_sweep(tmp_path), "--address", f"127.0.0.1:{free_port()}")
    assert done.returncode == 4
    assert "Connection refused" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.rglob("*.arrow"))
    assert not (tmp_path / "mlflow.db").exists()


@dataclass(frozen=True, kw_only=True, slots=True)
class Client:
    """Another process that seeks admission, with a home folder and settings of its own."""

    address: str
    home: Path

    def seek(self, **settings: str) -> str:
        """The last line that it printed."""
        code = (
            "import sys\nfrom fttune.errors import FttuneError\nfrom fttune.sweep.admission import seek_admission\n"
            "try: print('admitted to', seek_admission(sys.argv[1]))\nexcept FttuneError as error: print(error)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, self.address],
            cwd=Path(__file__).parents[1],
            env=bare() | {"HOME": str(self.home)} | settings,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert not done.stderr
        return done.stdout.splitlines()[-1]


def bare() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}


@contextmanager
def node(*words: str) -> Iterator[None]:
    """A node of a cluster, on loopback, for the length of the block."""
    ray = [str(Path(sys.executable).with_name("ray")), "start", "--block", "--node-ip-address=127.0.0.1", *words]
    with ray_node([*ray, "--disable-usage-stats"], bare() | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}):
        yield


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A head that asks for a token and works on nothing itself."""
    port = free_port()
    # A short path: Ray makes sockets below it, and the name of one may have 107 letters.
    with (
        TemporaryDirectory(prefix="ray-") as place,
        node("--head", f"--port={port}", "--num-cpus=0", f"--temp-dir={place}", "--include-dashboard=false"),
    ):
        yield f"127.0.0.1:{port}"


def test_a_token_in_the_home_folder_is_shown_to_a_cluster_that_asks(address: str, tmp_path: Path) -> None:
    file = tmp_path / ".ray" / "auth_token"
    file.parent.mkdir()
    file.write_text(TOKEN)
    assert Client(address=address, home=tmp_path).seek() == f"admitted to {address}"


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({}, "here is none"),
        ({"RAY_AUTH_MODE": "token"}, "here is none"),
        ({"RAY_AUTH_TOKEN": "b" * 64}, "here is another"),
        ({"RAY_AUTH_TOKEN": TOKEN, "RAY_AUTH_MODE": "disabled"}, "may not be shown"),
    ],
    ids=["nothing", "only the mode", "another token", "forbidden to show it"],
)
def test_without_the_token_the_answer_is_one_line(
    address: str, tmp_path: Path, settings: dict[str, str], reason: str
) -> None:
    line = Client(address=address, home=tmp_path).seek(**settings)
    assert address in line
    assert reason in line


def test_a_cluster_that_is_but_a_head_is_given_time_for_its_first_worker(address: str) -> None:
    code = (
        "import sys\nfrom fttune.config import Resources\nfrom fttune.sweep.cluster import cluster\n"
        "from fttune.sweep.machines import await_place\nimport ray\n"
        "with cluster(sys.argv[1]):\n"
        " await_place(Resources(cpu=2), lambda: False)\n print(ray.cluster_resources()['CPU'])"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, address],
        cwd=Path(__file__).parents[1],
        env=bare() | {"RAY_AUTH_TOKEN": TOKEN},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as driver:
        try:
            assert driver.stderr
            assert any("no machine of the cluster has 2 CPU yet" in line for line in driver.stderr)
            with node(f"--address={address}", "--num-cpus=3"):
                out, _ = driver.communicate(timeout=60)
        finally:
            driver.kill()
    assert out.strip() == "3.0"
    assert driver.returncode == 0
