"""Every test has places of its own and a clean environment."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# How long an example takes says more about the machine than about the code.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")

# Read when Ray is first imported, which a test may do before `fttune.sweep.tune`, where it is set too.
os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"


@pytest.fixture(autouse=True)
def _own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("FTTUNE_", "MLFLOW_", "RAY_ADDRESS"))]:
        monkeypatch.delenv(name)
    for variable in ("FTTUNE_STORE", "FTTUNE_CACHE", "FTTUNE_STATE", "FTTUNE_NETWORKS"):
        monkeypatch.setenv(variable, str(tmp_path / variable.lower()))
    monkeypatch.chdir(tmp_path)
