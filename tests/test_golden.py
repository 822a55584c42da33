"""The losses of two small trainings are those that are written down: a change of the code that moves them is seen.

Where they are meant to move, `SCIENCE` in `fttune.trial` is raised, and a failing test prints the new file.
"""

from dataclasses import replace
from pathlib import Path

import pytest

from fttune.backbones import catalog as backbones
from fttune.data import catalog as datasets
from fttune.data.store import build
from fttune.record import CurvePoint
from fttune.runtime import Runtime
from fttune.training.run import run_trial
from fttune.trial import Trial, Views, stored_size
from values import HPARAMS, make_trial

GOLDEN = Path(__file__).with_name("golden")
# Relative. Kernels of another instruction set add in another order.
TOLERANCE = 1e-5
SETTINGS = replace(HPARAMS, lr=0.5)  # a rate at which 20 steps move the losses by more than their noise
CASES: dict[str, tuple[str, Views]] = {
    "tuned-crops": ("T(1-3)R(4)", "crop"),
    "frozen-cached-head": ("F(1-3)R(4)", "flip"),
}


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    base = tmp_path_factory.mktemp("golden")
    return Runtime(store=base / "store", cache=base / "cache", device="cpu", threads=1)


def curve_of(trial: Trial, runtime: Runtime) -> list[CurvePoint]:
    points: list[CurvePoint] = []
    run_trial(trial, runtime, points.append)
    return points


@pytest.mark.parametrize("name", CASES)
def test_losses_are_those_written_down(runtime: Runtime, name: str) -> None:
    spec, views = CASES[name]
    source = datasets.find("digits").source()
    store = build(source, name="digits", size=stored_size(HPARAMS.image_size), resize="crop", root=runtime.store)
    digests = {"data_digest": store.digest, "weights_digest": backbones.weights_digest("tiny")}
    points = curve_of(make_trial(spec, hparams=replace(SETTINGS, views=views), **digests), runtime)
    rows = [f"{point.step} {point.train_loss:.9g} {point.val_loss:.9g}" for point in points]
    told = (GOLDEN / f"{name}.txt").read_text().splitlines()[1:]
    now, then = ([float(word) for row in some for word in row.split()] for some in (rows, told))
    assert now == pytest.approx(then, rel=TOLERANCE), "\n".join(["step train_loss val_loss", *rows])
