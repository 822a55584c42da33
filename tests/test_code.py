"""Which code runs, told so that a result can be traced to it and machines held against each other."""

import shutil
import subprocess
from pathlib import Path

import pytest

from fttune import code


def git(folder: Path, *words: str) -> str:
    named = ("-c", "user.name=a", "-c", "user.email=a@b")
    return subprocess.check_output(["git", *named, "-C", folder, *words], text=True).strip()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of one commit with a package of two modules, taken for ours."""
    package = tmp_path / "package"
    (package / "below").mkdir(parents=True)
    (package / "one.py").write_text("A = 1\n")
    (package / "below" / "two.py").write_text("B = 2\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    monkeypatch.setattr(code, "_PACKAGE", package)
    monkeypatch.setenv("FTTUNE_COMMIT", "told")
    return tmp_path


def test_the_commit_is_the_checkouts_and_tells_what_was_changed_since(checkout: Path) -> None:
    head = git(checkout, "rev-parse", "HEAD")
    assert code.commit() == head
    (checkout / "package" / "one.py").write_text("A = 2\n")
    assert code.commit() == f"{head}+"


def test_a_copy_without_a_history_is_of_the_commit_that_it_is_told(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(checkout / ".git")
    assert code.commit() == "told"
    monkeypatch.delenv("FTTUNE_COMMIT")
    assert code.commit() == ""


def test_any_change_of_a_module_changes_the_digest_and_nothing_else_does(checkout: Path) -> None:
    package = checkout / "package"
    seen = {code.digest()}
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "one.pyc").write_bytes(b"compiled")
    assert {code.digest()} == seen
    (package / "one.py").write_text("A = 2\n")
    seen.add(code.digest())
    (package / "below" / "two.py").rename(package / "two.py")
    seen.add(code.digest())
    (package / "three.py").touch()
    seen.add(code.digest())
    assert len(seen) == 4
