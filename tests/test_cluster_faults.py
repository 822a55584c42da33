"""Nodes that vanish and GPUs that are too small, on a cluster of several Ray nodes with GPUs that do not exist."""

import os
import re
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

import fttune as fttune_package
from fttune.tracking.runs import Tracker
from small_sweeps import (
    SIDE_BY_SIDE,
    Driver,
    assert_as_if_nothing_had_happened,
    database,
    fttune,
    gone,
    running,
    write_sweep,
)
from stores import curve_of, runs_of

GRID = {
    "datasets": {"mine": {"path": "photos", "images_per_class": [5], "val": 3, "test": 5}},
    "backbones": ["tiny"],
    "random_top": [1, 2],
    "modes": ["tune"],
}
TRAIN = {"lr": 0.05, "steps": 1500, "batch_size": 6, "image_size": 32, "report_every": 500, "views": "flip"}


@contextmanager
def nodes(*gpus: int) -> Iterator[Any]:
    """A cluster of a head that does no work and a node of one core with each number of GPUs."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for count in gpus:
            cluster.add_node(num_cpus=1, num_gpus=count)
        yield cluster
    finally:
        cluster.shutdown()


def test_a_node_that_joins_and_vanishes_costs_its_trials_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "once").mkdir()  # one failure is the end of a trial, so that none goes unnoticed
    (tmp_path / "once" / "sitecustomize.py").write_text(
        "import pathlib\nimport fttune.sweep.ledger as one\none.TRIES = 1\npathlib.Path(__file__ + '.read').touch()\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'once'}:{os.environ.get('PYTHONPATH', '')}")
    every = 3000  # steps; trials must be under way until the second node has come
    train = TRAIN | {"steps": 3 * every, "report_every": every}
    sweep = write_sweep(tmp_path, tables=True, grid=GRID, train=train, resources=SIDE_BY_SIDE)
    with nodes(1) as cluster:
        driver = Driver(tmp_path, sweep, "--address", cluster.address)
        under_way = tmp_path / "fttune_state" / "checkpoints"
        driver.until(lambda: [*under_way.glob("*.safetensors")])
        node = cluster.add_node(num_cpus=1, num_gpus=1)
        driver.until(lambda: len([*under_way.glob("*.safetensors")]) == 2)
        everyone = [*driver.family(), *running("ray::")]
        cluster.remove_node(node, allow_graceful=False)
        assert driver.end() == 0, driver.told
    gone(everyone)
    assert (tmp_path / "once" / "sitecustomize.py.read").exists()
    assert "FAILED" not in driver.told
    assert [record.resumed_step for record in Tracker(database(tmp_path), "fttune").records() if record.resumed_step]
    assert_as_if_nothing_had_happened(database(tmp_path), sweep, 2, (every, 2 * every, 3 * every))


def test_a_driver_that_is_killed_leaves_a_cluster_as_it_was_and_the_next_goes_on(tmp_path: Path) -> None:
    every = 3000  # steps; a trial must be under way when the driver is killed
    train = TRAIN | {"steps": 3 * every, "report_every": every}
    sweep = write_sweep(tmp_path, tables=True, grid=GRID, train=train, resources=SIDE_BY_SIDE)
    under_way = tmp_path / "fttune_state" / "checkpoints"
    with nodes(0) as cluster:
        first = Driver(tmp_path, sweep, "--address", cluster.address)
        first.until(lambda: [*under_way.glob("*.safetensors")])
        # Ray changes a worker's title with each call, and between two it may have another for a moment.
        workers = first.until(lambda: [*running("ray::Worker"), *running("ray::ResourceTrainable")])
        first.kill(signal.SIGKILL)
        assert first.end() == -signal.SIGKILL
        gone(workers)
        second = Driver(tmp_path, sweep, "--address", cluster.address)
        assert second.end() == 0, second.told
        assert len(cluster.list_all_nodes()) == 2, "of the cluster nothing ended with it"
    assert "2 trials: 0 done, 0 failed, 2 to run" in second.told
    assert [record.resumed_step for record in Tracker(database(tmp_path), "fttune").records() if record.resumed_step]
    assert_as_if_nothing_had_happened(database(tmp_path), sweep, 2, (every, 2 * every, 3 * every))


def copy_of_fttune(folder: Path, file: str, old: str, new: str) -> Path:
    """The package with one word changed, as what a machine has installed."""
    copy = shutil.copytree(Path(fttune_package.__file__).parent, folder / "fttune") / file
    assert old in copy.read_text()
    copy.write_text(copy.read_text().replace(old, new))
    return folder


def test_machines_that_cannot_train_cost_no_trial_a_try_and_where_no_other_is_left_trials_stay_to_be_run(
    tmp_path: Path,
) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "torch.py").write_text("raise OSError('libcudart.so: no such file')\n")
    older = copy_of_fttune(tmp_path / "older", "data/readers.py", "FolderSource", "Folder")
    other = copy_of_fttune(tmp_path / "other", "layers.py", '"""', '"""\n')
    at_once = SIDE_BY_SIDE | {"max_concurrent": 3}
    sweep = write_sweep(tmp_path, tables=True, grid=GRID | {"modes": ["tune", "freeze"]}, resources=at_once)
    with nodes() as cluster:
        for folder in (tmp_path / "broken", older):
            cluster.add_node(num_cpus=1, env_vars={"PYTHONPATH": str(folder)})
        cluster.wait_for_nodes()
        stranded = Driver(tmp_path, sweep, "--address", cluster.address)
        assert stranded.end() == 1, stranded.told
        assert Tracker(database(tmp_path), "fttune").records() == []
        cluster.add_node(num_cpus=1, env_vars={"PYTHONPATH": str(other)})
        cluster.wait_for_nodes()
        driver = Driver(tmp_path, sweep, "--address", cluster.address)
        assert driver.end() == 0, driver.told
    assert re.search(r"cannot train, .* not whole: libcudart.so: .*; its trials are left to others", stranded.told)
    assert re.search(r"cannot read what the driver sends, .*: ImportError: .*FolderSource", stranded.told)
    assert re.search(r"no machine is left for it \(.*\); 4 of 4 trials left", stranded.told)
    assert f"once that is mended: fttune run {sweep} --address" in stranded.told
    assert driver.told.count("has other code of fttune than the driver") == 1
    assert "FAILED" not in stranded.told + driver.told
    assert_as_if_nothing_had_happened(database(tmp_path), sweep, 4, (4, 8, 12))


def test_where_the_last_machine_that_lacks_nothing_is_lost_another_is_waited_for(tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "torch.py").write_text("raise OSError('libcudart.so: no such file')\n")
    train = TRAIN | {"steps": 4500, "report_every": 1500}
    grid = GRID | {"random_top": [1], "modes": ["tune", "freeze"], "seeds": [0, 1]}
    sweep = write_sweep(tmp_path, tables=True, grid=grid, train=train, resources=SIDE_BY_SIDE)
    with nodes() as cluster:
        cluster.add_node(num_cpus=1, env_vars={"PYTHONPATH": str(tmp_path / "broken")})
        good = cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        driver = Driver(tmp_path, sweep, "--address", cluster.address)
        saved = tmp_path / "fttune_state" / "checkpoints"
        driver.until(lambda: "its trials are left to others" in driver.told and [*saved.glob("*.safetensors")])
        cluster.remove_node(good, allow_graceful=False)
        driver.until(lambda: "no machine that is there has what the rest reads; another is waited for" in driver.told)
        cluster.add_node(num_cpus=1)
        assert driver.end() == 0, driver.told
    assert "FAILED" not in driver.told
    assert_as_if_nothing_had_happened(database(tmp_path), sweep, 4, (1500, 3000, 4500))


# Networks that need a part of a GPU: as a package of a user's own, since a worker knows none but installed ones.
GREEDY = """
    from dataclasses import replace

    import ray
    import torch
    from torch import nn

    from fttune.backbones import tiny
    from fttune.backbones.catalog import BACKBONES

    class Greedy(nn.Module):
        def __init__(self, needed):
            super().__init__()
            self.needed = needed

        def forward(self, values):
            assigned = ray.get_runtime_context().get_assigned_resources() if ray.is_initialized() else {"GPU": 1}
            share = max((number for name, number in assigned.items() if name.startswith("GPU")), default=0)
            if self.training and share < self.needed:
                raise torch.OutOfMemoryError(f"injected: {share} of a GPU")
            return values

    def row(name, needed):
        def build(*, classes=10):
            net = tiny.build(classes=classes)
            net[2].append(Greedy(needed))
            return net

        return replace(BACKBONES["tiny"], name=name, build=build)

    HALF, NEVER = row("half", 0.5), row("never", 2)
"""


@pytest.fixture
def greedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The backbones `half` and `never`, which run out of memory on less than half a GPU and on any."""
    package = tmp_path / "installed"
    (package / "greedy-1.0.dist-info").mkdir(parents=True)
    (package / "greedy-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: greedy\nVersion: 1.0\n")
    (package / "greedy-1.0.dist-info" / "entry_points.txt").write_text(
        "[fttune.backbones]\nhalf = greedy:HALF\nnever = greedy:NEVER\n"
    )
    (package / "greedy.py").write_text(dedent(GREEDY))
    monkeypatch.setenv("PYTHONPATH", str(package))
    monkeypatch.syspath_prepend(package)
    yield
    sys.modules.pop("greedy", None)


@pytest.mark.usefixtures("greedy")
def test_a_gpu_is_shared_out_by_what_trials_take_until_a_whole_one_is_too_little_or_the_budget_is_used_up(
    tmp_path: Path,
) -> None:
    grid = GRID | {"backbones": ["half", "never"], "random_top": [1]}
    sweep = write_sweep(tmp_path, tables=True, grid=grid, train=TRAIN | {"steps": 12, "report_every": 4})
    with nodes(1) as cluster:
        large = fttune("run", sweep, "resources.cpu=2", "--address", cluster.address)
        address = cluster.address
        other = ("grid.backbones=[tiny]", "grid.random_top=[1,2,3]", "resources.gpu=1", "tracking.experiment=other")
        short = fttune("run", sweep, *other, "--budget", "gpu_hours=1e-9", "--address", address)
        driver = Driver(tmp_path, sweep, "--address", address)
        assert driver.end() == 1
    assert large.returncode == 2
    (line,) = [line for line in large.stderr.splitlines() if line.startswith("error")]
    assert line == "error: resources.cpu: a trial asks for 2, but no machine of the cluster has more than 1"
    assert short.returncode == 3, short.stderr
    assert re.search(r"budget reached: gpu_hours=1e-09 \(\S+ taken\); [23] of 3 trials", short.stderr), short.stderr
    assert driver.told.count("out of memory in 0.25 of a GPU; tried again with twice the share") == 2
    assert driver.told.count("out of memory in 0.5 of a GPU; tried again with twice the share") == 1
    assert re.search(r"tried again with twice the share\n(.*\n)* *\d/2 .*FAILED .*injected: 1", driver.told), (
        "told at once"
    )
    assert f"fttune run {sweep} --address {address} --retry-failed" in driver.told
    runs = {run.data.params["backbone"]: run for run in runs_of(database(tmp_path), "fttune")}
    assert {name: run.info.status for name, run in runs.items()} == {"half": "FINISHED", "never": "FAILED"}
    assert "OutOfMemoryError" in str(runs["never"].data.tags)
    assert [point.step for point in curve_of(database(tmp_path), runs["half"].info.run_id)] == [4, 8, 12]
