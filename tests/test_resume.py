"""A trial that is stopped, killed or moved goes on where it was saved, and ends as if nothing had happened."""

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fttune.backbones import catalog as backbones
from fttune.bundle import Bundle
from fttune.data.store import ImageStore
from fttune.errors import StoppedError
from fttune.record import CurvePoint
from fttune.runtime import Runtime
from fttune.training import checkpoint
from fttune.training.run import run_bundle, run_trial
from fttune.trial import Trial, Views
from values import HPARAMS, make_trial

CLOCKED = {"seconds", "data_seconds", "feature_seconds", "train_seconds", "eval_seconds", "images_per_second"}
FROZEN, TUNED = "F(1-2)R(3-4)", "T(1-2)R(3-4)"


def trial_on(store: ImageStore, spec: str, *, views: Views = "crop", **changes: Any) -> Trial:
    hparams = replace(HPARAMS, views=views, steps=11, report_every=4, lr_drop_steps=(6,), **changes)
    return make_trial(spec, hparams=hparams, data_digest=store.digest, weights_digest=backbones.weights_digest("tiny"))


class After:
    """Asks to stop once it was asked itself more often than `steps` times."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


def run(trial: Trial, runtime: Runtime, stop_after: int = 10**9) -> tuple[dict[str, object], list[CurvePoint]]:
    """The record without its clocks, and the curve."""
    points: list[CurvePoint] = []
    (done,) = run_bundle(Bundle.alone(trial), runtime, lambda _, point: points.append(point), After(stop_after))
    left_out = CLOCKED | {"peak_memory_mb", "resumed_step"}
    return {name: value for name, value in asdict(done).items() if name not in left_out}, points


def saved(runtime: Runtime, trial: Trial) -> Path:
    assert runtime.state is not None
    return checkpoint.file_of(runtime.state / "checkpoints", trial.id)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("views", ["flip", "crop"])
@pytest.mark.parametrize("spec", [FROZEN, TUNED])
def test_a_trial_stopped_again_and_again_ends_bit_for_bit_as_one_left_alone(
    store: ImageStore, runtime: Runtime, tmp_path: Path, spec: str, views: Views, momentum: float
) -> None:
    trial = trial_on(store, spec, views=views, momentum=momentum)
    whole = run(trial, replace(runtime, state=tmp_path / "undisturbed"))
    for _ in range(3):
        with pytest.raises(StoppedError):
            run(trial, runtime, stop_after=3)
        assert saved(runtime, trial).exists()
    assert run(trial, runtime) == whole, "the curve is told as a whole, and every number of it is the same"
    assert saved(runtime, trial).exists(), "whoever runs it may die before its end is told"
    assert run(trial, runtime) == whole
    run_trial(trial, runtime, lambda point: None)
    assert not saved(runtime, trial).exists(), "its end is told"


def test_a_trial_is_saved_by_the_clock_and_how_often_changes_nothing(
    store: ImageStore, runtime: Runtime, tmp_path: Path
) -> None:
    trial = trial_on(store, TUNED)
    seen: list[bool] = []

    def look(_: Trial, point: CurvePoint) -> None:
        seen.append(saved(runtime, trial).exists())

    (often,) = run_bundle(Bundle.alone(trial), replace(runtime, checkpoint_seconds=0.0), look)
    assert seen == [True] * 3
    seldom, _ = run(trial, replace(runtime, state=tmp_path / "seldom"))
    assert {name: value for name, value in asdict(often).items() if name in seldom} == seldom


@pytest.mark.parametrize("harm", ["cut", "garbage", "empty", "other values", "a bit"])
def test_a_damaged_checkpoint_is_said_and_the_trial_starts_anew(
    store: ImageStore, runtime: Runtime, tmp_path: Path, caplog: pytest.LogCaptureFixture, harm: str
) -> None:
    trial = trial_on(store, TUNED)
    with pytest.raises(StoppedError):
        run(trial, runtime, stop_after=5)
    path = saved(runtime, trial)
    whole = path.read_bytes()
    path.write_bytes(
        {
            "cut": whole[: len(whole) // 2],
            "garbage": b"x" * 500,
            "empty": b"",
            "other values": b"\x08" + b"\0" * 7 + b'{"a": 1}',
            "a bit": whole[:-9] + bytes([whole[-9] ^ 4]) + whole[-8:],
        }[harm]
    )
    again = run(trial, runtime)
    assert "damaged checkpoint" in caplog.text
    assert "the trial starts anew" in caplog.text
    assert again == run(trial, replace(runtime, state=tmp_path / "undisturbed"))


def test_a_checkpoint_of_another_torch_is_not_gone_on_with(
    store: ImageStore, runtime: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    trial = trial_on(store, TUNED)
    with pytest.raises(StoppedError):
        run(trial, runtime, stop_after=5)
    path = saved(runtime, trial)
    there = checkpoint.load(path, {"trial": trial.id, "torch": torch.__version__, "device": "cpu"})
    assert there is not None
    checkpoint.save(path, {"trial": trial.id, "torch": "1.0", "device": "cpu"}, there)
    run(trial, runtime)
    assert "torch is 1.0 there" in caplog.text


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """What a full disk does to this process: no file may grow beyond `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)


def test_a_trial_without_room_for_what_it_measures_and_saves_says_so_and_goes_on(
    store: ImageStore, runtime: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    trial = trial_on(store, TUNED)
    with files_of_at_most(100):
        done, _ = run(trial, replace(runtime, checkpoint_seconds=0.0))
        run(trial, runtime)
    assert done["status"] == "done"
    assert caplog.text.count("nothing is known of the costs of tiny") == 1, "it is not measured in vain again"
    assert "goes on without a checkpoint: no room left" in caplog.text
    assert not saved(runtime, trial).exists()
    assert not list(saved(runtime, trial).parent.glob(".*")), "nothing half-written stays"


def test_trials_that_train_together_stop_when_asked_and_start_anew(store: ImageStore, runtime: Runtime) -> None:
    one = trial_on(store, "F(1-3)R(4)", views="flip")
    trials = tuple(replace(one, seed=seed) for seed in (0, 1))
    bundle = Bundle(trials=trials, depths=(3,))
    with pytest.raises(StoppedError):
        run_bundle(bundle, runtime, lambda *_: None, After(1))
    assert [record.status for record in run_bundle(bundle, runtime, lambda *_: None)] == ["done", "done"]
