"""Imports run one way, down the floors of the house, and each heavy dependency stays behind one door."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "fttune"
FILES = sorted(PACKAGE.rglob("*.py"))

# Each room and the rooms it may import; F0 is open to all.
GROUND = {"errors", "text", "layers", "ways", "trial", "record", "runtime", "files", "tree", "plan"} | {
    "condition",
    "mistakes",
    "part",
    "schedule",
    "secrets",
    "config",
    "entries",
    "space",
    "recipe",
    "interrupt",
    "preferred",
    "code",
    "garbage",
}
VALUES = GROUND - {
    "condition",
    "tree",
    "mistakes",
    "part",
    "schedule",
    "config",
    "entries",
    "space",
    "recipe",
    "plan",
    "interrupt",
    "code",
}
UPPER = GROUND | {
    "caching",
    "cost",
    "footprint",
    "bundle",
    "feature_cache",
    "feature_claim",
    "feature_file",
    "data",
    "backbones",
    "features",
    "classifier",
    "training",
    "distance",
    "tracking",
    "sweep",
    "analysis",
}
ROOMS: dict[str, set[str]] = {
    "errors": set(),
    "text": set(),
    "layers": {"errors"},
    "ways": {"errors", "layers"},
    "trial": {"errors", "layers", "ways"},
    "record": {"trial", "ways"},
    "runtime": set(),
    "files": {"errors"},
    "condition": {"errors"},
    "tree": {"errors"},
    "mistakes": {"errors"},
    "part": set(),
    "interrupt": set(),
    "preferred": set(),
    "code": set(),
    "garbage": set(),
    "secrets": set(),
    "schedule": {"trial", "part"},
    "entries": {"errors", "part"},
    "space": {"errors", "part", "schedule"},
    "config": {
        "entries",
        "errors",
        "layers",
        "ways",
        "tree",
        "trial",
        "mistakes",
        "part",
        "schedule",
        "secrets",
        "space",
    },
    "recipe": {"trial", "tree", "mistakes", "part", "schedule", "entries"},
    "plan": {"errors", "layers", "ways", "trial", "record", "config"},
    "data": VALUES,
    "backbones": VALUES,
    "bundle": {"trial", "ways"},
    "cost": {"bundle", "layers", "record", "trial", "ways"},
    "footprint": {"bundle", "trial"},
    "caching": {"bundle", "cost", "trial", "ways"},
    "feature_file": VALUES,
    "feature_claim": VALUES,
    "feature_cache": VALUES | {"feature_file", "feature_claim"},
    "features": VALUES | {"data", "backbones"},
    "classifier": VALUES | {"data", "backbones", "features"},
    "training": VALUES
    | {"bundle", "cost", "footprint", "data", "backbones", "feature_cache", "features", "classifier"},
    "distance": VALUES | {"data", "backbones", "feature_cache", "features", "training"},
    "tracking": VALUES,
    "sweep": GROUND
    | {"bundle", "caching", "cost", "footprint", "data", "backbones", "features", "classifier", "training", "distance"}
    | {"tracking"},
    "analysis": VALUES | {"tracking"},
    "terminal": GROUND,
    "inventory": UPPER | {"terminal"},
    "describe": UPPER | {"inventory", "terminal"},
    "reporting": UPPER | {"terminal"},
    "pledge": UPPER,
    "session": UPPER | {"pledge", "reporting", "terminal"},
    "status": UPPER | {"terminal"},
    "pretraining": UPPER | {"terminal"},
    "query": GROUND | {"analysis", "tracking"},
    "trained": UPPER | {"terminal"},
    "asking": GROUND | {"query", "terminal"},
    "placing": UPPER | {"terminal"},
    "trying": UPPER | {"placing"},
    "advising": UPPER | {"placing", "session", "terminal", "trying"},
    "commands": UPPER
    | {
        "advising",
        "asking",
        "describe",
        "query",
        "inventory",
        "placing",
        "pretraining",
        "reporting",
        "session",
        "status",
        "terminal",
        "trained",
    },
    "cli": GROUND | {"commands", "describe", "terminal"},
}
# Rooms that run on a bare GPU machine, and what they may stand on there.
BARE = {"data", "backbones", "features", "classifier", "training", "distance"} | {
    "feature_file",
    "feature_claim",
    "feature_cache",
}
BARE_PACKAGES = {"torch", "torchvision", "numpy", "PIL", "pyarrow"}
_RAY = ("tune", "actor", "cluster", "admission", "machines", "feed", "probe", "queue")
DOORS = {
    "ray": {f"fttune/sweep/{name}.py" for name in _RAY},
    "mlflow": {"fttune/tracking/client.py"},
    "optuna": {"fttune/sweep/search.py", "fttune/sweep/study.py"},
    "safetensors": {"fttune/backbones/tensors.py"},
    "datasets": {"fttune/data/huggingface.py"},  # an extra
    "sklearn": {"fttune/distance/linear_svm.py", "fttune/distance/scores.py", "fttune/training/convex.py"},
    "timm": {"fttune/backbones/chain.py"},  # an extra
    "plotly": {"fttune/analysis/page.py"},
}
# What a bare machine does without: each is imported when the one thing that needs it is asked for.
BARE_DOORS = {
    "fttune/backbones/chain.py": {"timm"},
    "fttune/backbones/tensors.py": {"safetensors"},  # the form in which networks are kept
    "fttune/data/huggingface.py": {"datasets"},
    "fttune/data/imagenet.py": {"scipy"},  # the devkit's class table is a MATLAB file
    "fttune/distance/linear_svm.py": {"sklearn"},
    "fttune/distance/scores.py": {"sklearn"},
    "fttune/training/convex.py": {"sklearn"},
}


def imports(path: Path) -> Iterator[str]:
    """Every module a file imports, at the top or inside a function."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            if node.module == "fttune":
                yield from (f"fttune.{alias.name}" for alias in node.names)
            else:
                yield node.module or ""


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path: Path) -> None:
    here = room(path)
    allowed = set(ROOMS) if here == "__init__" else ROOMS[here] | {here}
    ours = {module.split(".")[1] for module in imports(path) if module.startswith("fttune.")}
    assert ours <= allowed, f"{here} must not import {sorted(ours - allowed)}"


@pytest.mark.parametrize("package", sorted(DOORS))
def test_a_heavy_dependency_has_one_door(package: str) -> None:
    users = {
        str(path.relative_to(PACKAGE.parent))
        for path in FILES
        if any(module.split(".")[0] == package for module in imports(path))
    }
    assert users == DOORS[package]


@pytest.mark.parametrize(
    "path", [path for path in FILES if room(path) in BARE], ids=lambda p: str(p.relative_to(PACKAGE))
)
def test_what_trains_runs_on_a_bare_machine(path: Path) -> None:
    roots = {module.split(".")[0] for module in imports(path)}
    allowed = BARE_PACKAGES | {"fttune"} | BARE_DOORS.get(str(path.relative_to(PACKAGE.parent)), set())
    foreign = {name for name in roots if name not in sys.stdlib_module_names} - allowed
    assert not foreign


def test_the_readme_names_every_room() -> None:
    text = (PACKAGE.parent / "README.md").read_text()
    table = text[text.index("## Layout") :]
    assert not [name for name in ROOMS if f"`{name}`" not in table and f"`{name}/`" not in table]


@pytest.mark.parametrize("path", [path for path in FILES if room(path) in {"tracking", "analysis"}], ids=str)
def test_tables_regenerate_without_torch_or_ray(path: Path) -> None:
    assert not {module.split(".")[0] for module in imports(path)} & {"torch", "torchvision", "ray"}


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("fttune.cli", ("torch", "ray", "mlflow", "optuna", "matplotlib", "plotly", "pandas")),
        ("fttune.sweep.tune", ("torch", "mlflow")),
        ("fttune.sweep.ground", ("torch", "ray", "mlflow", "optuna")),
        ("fttune.analysis.advice", ("torch", "ray", "mlflow", "matplotlib")),
        ("fttune.analysis.report", ("torch", "ray", "mlflow", "matplotlib", "plotly", "sklearn", "scipy.stats")),
        ("fttune.tracking.table", ("torch", "ray", "mlflow")),
        ("fttune.training.run", ("ray", "mlflow", "pydantic", "typer")),
        ("fttune.training.pretrain", ("ray", "mlflow", "pydantic", "typer")),
    ],
)
def test_nobody_pays_for_an_import_they_do_not_use(module: str, unwanted: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print(*sorted(set({unwanted!r}) & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert loaded == []
