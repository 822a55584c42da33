"""A job on a worker, without Ray: what goes wrong with some of its trials, or with the machine, is told as it is."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, ClassVar
from weakref import ref

import pytest
import torch
from torch import Tensor, nn

from fttune.backbones import tiny
from fttune.backbones.catalog import BACKBONES
from fttune.bundle import Bundle
from fttune.config import load_sweep
from fttune.record import RunRecord
from fttune.runtime import Runtime
from fttune.sweep.driver import machine
from fttune.sweep.ground import Ground, prepare
from fttune.sweep.ledger import Ledger
from fttune.sweep.leftovers import Leftovers
from fttune.sweep.supply import Supply
from fttune.sweep.worker import measure, work
from fttune.training.checkpoint import file_of, save
from small_sweeps import write_sweep
from values import make_trial


class Greedy(nn.Module):
    """A layer that has memory for one training: it runs out of it while what an earlier one computed is there."""

    seen: ClassVar[list[ref[Tensor]]] = []
    trained: ClassVar[bool] = True  # whether it is trainings that need memory, or features

    def forward(self, values: Tensor) -> Tensor:
        if self.training is self.trained and (not self.seen or any(one() is not None for one in self.seen)):
            self.seen.append(ref(values))
            raise torch.OutOfMemoryError("injected")
        return values


def build(*, classes: int = 10) -> nn.Sequential:
    net = tiny.build(classes=classes)
    net[2].append(Greedy())  # pyright: ignore
    return net


@pytest.fixture
def ground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Ground:
    monkeypatch.setitem(BACKBONES, "greedy", replace(BACKBONES["tiny"], name="greedy", build=build))
    Greedy.seen.clear()
    grid = {
        "datasets": {"mine": {"path": "photos", "images_per_class": [2], "val": 3, "test": 5}},
        "backbones": ["greedy"],
        "random_top": [1],
        "modes": [getattr(request, "param", "tune")],
        "seeds": [0, 1],
    }
    loaded = load_sweep(write_sweep(tmp_path, grid=grid))
    return prepare(loaded, machine(loaded), lambda *_: None)


def runtime(ground: Ground) -> Runtime:
    return replace(machine(ground.sweep), device="cpu")


def told(ground: Ground, bundle: Bundle) -> list[dict[str, Any]]:
    """What becomes of a bundle here, but for its curves."""
    news: list[dict[str, Any]] = []
    work(bundle, runtime(ground), lambda **one: news.append(one), lambda: False)
    return [one for one in news if "point" not in one]


@pytest.mark.parametrize("ground", ["freeze"], indirect=True)
def test_trials_go_on_one_by_one_only_once_the_memory_of_their_bundle_is_free(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Greedy, "trained", False)
    news = told(ground, Bundle(trials=ground.trials, depths=(3,)))
    assert Greedy.seen, "the bundle itself ran out of memory"
    assert "2 trials that train at once have failed, and run one by one: OutOfMemoryError: injected" in caplog.text
    assert [(one["record"]["status"], one["record"]["together"]) for one in news] == [("done", 1)] * 2, news


def test_trials_that_cannot_train_at_once_are_each_told_as_they_end(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Greedy, "forward", lambda self, values: values)
    news: list[dict[str, Any]] = []
    work(Bundle(trials=ground.trials), runtime(ground), lambda **one: news.append(one), lambda: False)
    one, other = ground.trials
    told = [(news["trial"], "record" in news) for news in news]
    assert told == [*[(one.id, False)] * 3, (one.id, True), *[(other.id, False)] * 3, (other.id, True)]


@pytest.mark.parametrize(
    ("error", "memory"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (OSError("CUDA error: out of memory"), False),
    ],
)
def test_a_gpu_without_room_is_known_by_the_words_of_each_library(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, error: Exception, memory: bool
) -> None:
    def fail(self: Greedy, values: Tensor) -> Tensor:
        raise error

    monkeypatch.setattr(Greedy, "forward", fail)
    (news,) = told(ground, Bundle.alone(ground.trials[0]))
    assert news["memory"] is memory


def test_a_machine_without_the_images_is_at_fault_and_not_the_user(ground: Ground, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "photos")
    elsewhere = replace(runtime(ground), store=tmp_path / "node")
    news: list[dict[str, Any]] = []
    work(Bundle(trials=ground.trials), elsewhere, lambda **one: news.append(one), lambda: False, Supply.of(ground))
    assert [(one["lacks"], one["final"]) for one in news] == [(ground.trials[0].data_digest, False)] * 2
    assert "has no decoded images of mine" in news[0]["error"]


WITHOUT_TORCH = """
import sys
from pathlib import Path
sys.modules["torch"] = None
from fttune.bundle import Bundle
from fttune.runtime import Runtime
from fttune.sweep.worker import work
from values import make_trial
news = []
bundle = Bundle(trials=(make_trial("F(1-3)R(4)"), make_trial("F(1-3)R(4)", seed=1)))
work(bundle, Runtime(store=Path("s"), cache=Path("c")), lambda **one: news.append(one), lambda: False)
print([(one["trial"] == trial.id, one["lacks"], one["memory"]) for one, trial in zip(news, bundle.trials, strict=True)])
print(news[0]["error"])
"""


def test_a_machine_that_cannot_load_torch_is_at_fault_and_says_so() -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    words = [sys.executable, "-c", WITHOUT_TORCH]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    told, error = done.stdout.splitlines()
    assert told == "[(True, '', False), (True, '', False)]"
    assert "cannot train, since its installation is not whole" in error


def test_a_backbone_that_would_end_the_process_fails_its_trials(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Greedy, "forward", lambda self, values: sys.exit(7))
    news = told(ground, Bundle(trials=ground.trials))
    assert [one["error"] for one in news] == ["SystemExit: 7"] * 2


def test_a_bundle_that_cannot_be_measured_is_no_end_of_the_run(ground: Ground, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "photos")
    elsewhere = replace(runtime(ground), store=tmp_path / "node")
    line = measure(Bundle(trials=ground.trials), elsewhere, Supply.of(ground))
    assert re.fullmatch(
        r"what mine/2 .* takes of a GPU was not measured: \S+ has no decoded images of mine .*", str(line)
    )


@pytest.mark.parametrize(
    "end",
    [
        {"error": "no", "traceback": "", "final": True, "memory": False},
        {"record": asdict(RunRecord.of(make_trial("F(1-3)R(4)"), status="done", git_commit="abc"))},
    ],
    ids=["failed for good", "done"],
)
def test_a_checkpoint_goes_once_the_end_of_its_trial_is_told(ground: Ground, end: dict[str, Any]) -> None:
    one, other = ground.trials
    here = save_some(ground)
    ledger = Ledger([Bundle.alone(one)], [Leftovers(here)], "abc", shares=[0.0])
    if "record" in end:
        end["record"]["trial_id"] = one.id
    ledger.hear(ledger.runs[0], "n", [end])
    assert here.checkpoints
    assert [file.stem for file in here.checkpoints.iterdir()] == [other.id]


def test_a_checkpoint_that_a_killed_driver_left_of_a_trial_that_is_done_goes(ground: Ground) -> None:
    one, other = ground.trials
    here = save_some(ground)
    Leftovers(here, [one])
    assert here.checkpoints
    assert [file.stem for file in here.checkpoints.iterdir()] == [other.id]


def save_some(ground: Ground) -> Runtime:
    """A machine with a checkpoint of each trial."""
    here = runtime(ground)
    assert here.checkpoints
    for trial in ground.trials:
        save(file_of(here.checkpoints, trial.id), {}, {})
    return here
