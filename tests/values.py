"""Small values that many tests start from."""

from dataclasses import replace
from typing import Any

from fttune.layers import LayerSpec
from fttune.trial import Cell, HParams, Trial

HPARAMS = HParams(lr=0.05, steps=20, report_every=5, image_size=32, batch_size=8, views="center")


def make_trial(spec: str = "T(1-3)R(4)", *, hparams: HParams = HPARAMS, **changes: Any) -> Trial:
    """A trial on the test network `tiny`; fields of the cell or of the trial may be changed."""
    cell = Cell(dataset="digits", images_per_class=5, backbone="tiny", spec=LayerSpec.parse(spec))
    cell = replace(cell, **{name: changes.pop(name) for name in list(changes) if name in Cell.__slots__})
    trial = Trial(
        cell=cell, hparams=hparams, seed=0, val_per_class=2, test_per_class=5, data_digest="d", weights_digest="w"
    )
    return replace(trial, **changes)
