"""Every test has places of its own and a clean environment."""

import fcntl
import os
import tempfile
from collections.abc import Generator
from functools import cache
from pathlib import Path

import pytest
from hypothesis import settings

from fttune.data import catalog as datasets
from fttune.data.store import ImageStore, build
from fttune.runtime import Runtime
from fttune.trial import stored_size
from values import HPARAMS

# How long an example takes says more about the machine than about the code.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")

# Read when Ray is first imported, which a test may do before `fttune.sweep`, where it is set too.
os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"


# Nodes that are started while another Ray starts on the machine may be taken for its own.
_CLUSTERS = ("test_cluster_faults", "test_admission")
# What takes minutes goes first, lest one process end with it while the other has nothing left to do.
_LONGEST = (*_CLUSTERS, "test_faults", "test_sweep", "test_turns", "test_searching", "test_team", "test_cli")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ranks = {name: rank for rank, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path.stem, len(ranks)))


class _Machine:
    """This machine, which the processes of a test run share, or one of them has for itself."""

    def __init__(self) -> None:
        run = Path(tempfile.gettempdir()) / f"fttune-tests-{os.environ.get('PYTEST_XDIST_TESTRUNUID', os.getpid())}"
        self._gate, self._nodes = (os.open(run.with_suffix(s), os.O_RDWR | os.O_CREAT) for s in (".gate", ".nodes"))
        self._taken = False

    def take(self, kind: int) -> None:
        if not self._taken:
            fcntl.flock(self._gate, fcntl.LOCK_EX)  # who waits to be alone is not passed by
            fcntl.flock(self._nodes, kind)
            fcntl.flock(self._gate, fcntl.LOCK_UN)
            self._taken = True

    def leave(self) -> None:
        fcntl.flock(self._nodes, fcntl.LOCK_UN)  # a process that a test left behind may still hold the file
        self._taken = False


_machine = cache(_Machine)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, object, object]:
    """Tests that start nodes run alone on the machine, one after the other; others beside each other."""
    alone = item.path.stem in _CLUSTERS
    _machine().take(fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
    try:
        return (yield)
    finally:
        if not (alone and nextitem and nextitem.path.stem in _CLUSTERS):
            _machine().leave()


@pytest.fixture(autouse=True)
def _own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Ray itself leaves a mode of authentication behind, which a command started from here would take for one's wish.
    own = ("FTTUNE_", "MLFLOW_", "RAY_ADDRESS", "RAY_AUTH_MODE")
    for name in [name for name in os.environ if name.startswith(own)]:
        monkeypatch.delenv(name)
    for variable in ("FTTUNE_STORE", "FTTUNE_CACHE", "FTTUNE_STATE", "FTTUNE_NETWORKS"):
        monkeypatch.setenv(variable, str(tmp_path / variable.lower()))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `store`."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="session")
def store(root: Path) -> ImageStore:
    """The digits."""
    source = datasets.find("digits").source()
    return build(source, name="digits", size=stored_size(HPARAMS.image_size), resize="crop", root=root)


@pytest.fixture
def runtime(root: Path, tmp_path: Path) -> Runtime:
    """Trials on `store`, with places of their own for features and checkpoints."""
    return Runtime(store=root, cache=tmp_path / "cache", state=tmp_path / "state", device="cpu", threads=1)
