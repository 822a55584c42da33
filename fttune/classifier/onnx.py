"""A network as ONNX: bytes of images in, probabilities out, any number of images; its card in the file's metadata."""

import importlib.util
import json
import logging
import warnings
from pathlib import Path

import torch

from fttune.classifier.card import Card
from fttune.classifier.network import Classifier
from fttune.errors import UsageError

_NEEDED = ("onnx", "onnxscript")


def check_extra() -> None:
    """UsageError where the packages that write ONNX are not installed."""
    if missing := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
        raise UsageError(f"ONNX is written by the package {missing[0]}, which is not here: install fttune[onnx]")


def write_onnx(network: Classifier, card: Card, path: Path) -> None:
    """Write a network; UsageError for one that torch cannot trace.

    Input `images` uint8 [N, S, S, 3], output `probabilities` float32 [N, C]. The metadata hold `classes` (a JSON list),
    `images` (in words, how a file becomes an input) and `fttune` (the card as JSON).
    """
    side = card.preprocessing.image_size
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                network,
                (torch.zeros((2, side, side, 3), dtype=torch.uint8),),
                input_names=["images"],
                output_names=["probabilities"],
                dynamic_shapes=({0: torch.export.Dim("N")},),
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # whatever torch makes of a network that it cannot trace
        raise UsageError(
            f"{card.record.backbone} cannot be written as ONNX: {' '.join(str(error).split())[:200]}"
        ) from error
    assert program is not None
    told = {"classes": list(card.classes), "images": card.preprocessing.words, "fttune": card.told()}
    program.model.metadata_props.update({n: v if isinstance(v, str) else json.dumps(v) for n, v in told.items()})
    program.save(path)
