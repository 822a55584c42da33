"""What docs/extend.md shows is true: each diff applies to this repository, and the commands under it run."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from images import make_folder

ROOT = Path(__file__).parents[1]
_HEADING = re.compile(r"^## (.+)\n", re.MULTILINE)
_FENCED = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_, *_PARTS = _HEADING.split((ROOT / "docs" / "extend.md").read_text())

# Each example, by its heading: the blocks in their order as (language, text).
EXAMPLES = {title: _FENCED.findall(text) for title, text in zip(_PARTS[::2], _PARTS[1::2], strict=True)}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The repository as far as examples change or run it, with a folder of photographs beside it."""
    folder = tmp_path / "copy"
    for part in ("fttune", "tests"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__", "test_extend.py"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    make_folder(folder / "photos" / "birds", classes=3, images=40)
    return folder


def ran(folder: Path, text: str) -> str:
    """What a shell prints that runs commands on the copy; they must all succeed."""
    paths = [folder, *(path.parent for path in folder.glob("*/*.dist-info"))]
    done = subprocess.run(
        ["bash", "-euc", text],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def apply(folder: Path, diff: str) -> None:
    done = subprocess.run(
        ["git", "apply", "--verbose", "-"],
        cwd=folder,
        input=diff,
        env={**os.environ, "GIT_CEILING_DIRECTORIES": str(folder.parent)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def install(project: Path) -> None:
    """What `uv pip install` leaves of a project of one module, as far as entry points go."""
    facts = tomllib.loads(project.read_text())["project"]
    folder = project.parent / f"{facts['name'].replace('-', '_')}-{facts['version']}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {facts['name']}\nVersion: {facts['version']}\n",
    )
    groups = [
        f"[{group}]\n" + "\n".join(f"{name} = {target}" for name, target in points.items())
        for group, points in facts["entry-points"].items()
    ]
    (folder / "entry_points.txt").write_text("\n".join(groups))


@pytest.mark.parametrize("title", EXAMPLES)
def test_an_example_applies_and_runs(title: str, copy: Path) -> None:
    told = ""
    for language, text in EXAMPLES[title]:
        if language == "diff":
            apply(copy, text)
            for project in copy.glob("*/pyproject.toml"):
                install(project)
        else:
            told += ran(copy, text.replace("uv run ", ""))
    assert "no tests ran" not in told
    assert re.search(rf"(?<!\d){re.escape(PRINTED[title])}", told), told


# What a reader is promised to see.
PRINTED = {
    "A dataset: a folder": "birds: 24 trials: 0 done, 0 failed, 24 to run",
    "A dataset with a layout of its own": "2 passed",
    "A backbone of torchvision or timm": "1 passed",
    "A backbone of your own, in your own package": "conv3",
    "A distance": "bray_curtis  0.21",
    "A mode": "75 %",
}


def test_an_example_takes_two_files_of_the_package_at_most() -> None:
    for title, blocks in EXAMPLES.items():
        changed = {name for _, text in blocks for name in re.findall(r"^\+\+\+ b/(\S+)$", text, re.MULTILINE)}
        assert 1 <= len({name for name in changed if not name.startswith("tests/")}) <= 2, title


@pytest.mark.parametrize("title", EXAMPLES)
def test_a_new_file_is_in_the_house_style(title: str, tmp_path: Path) -> None:
    for number, (language, text) in enumerate(EXAMPLES[title]):
        added = re.findall(r"^\+\+\+ b/\S+\.py\n@@ -0,0 \S+ @@\n((?:\+.*\n)+)", text, re.MULTILINE)
        for content in added if language == "diff" else ():
            path = tmp_path / f"new_{number}.py"
            path.write_text("".join(line[1:] + "\n" for line in content.splitlines()))
            for command in (["format", "--check"], ["check"]):
                subprocess.run(["ruff", *command, "--config", str(ROOT / "pyproject.toml"), str(path)], check=True)
