"""Every test has places of its own and a clean environment."""

import os
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("FTTUNE_", "MLFLOW_", "RAY_ADDRESS"))]:
        monkeypatch.delenv(name)
    for variable in ("FTTUNE_STORE", "FTTUNE_CACHE", "FTTUNE_STATE"):
        monkeypatch.setenv(variable, str(tmp_path / variable.lower()))
    monkeypatch.chdir(tmp_path)
