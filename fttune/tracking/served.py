"""A network as MLflow loads and serves it by itself: a traced graph (`pt2`), no pickle and no code of ours."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from fttune.tracking.client import mlflow

_EXAMPLES = ("input_example.json", "serving_input_example.json")


@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """What goes into a logged model."""

    module: Any  # torch.nn.Module: uint8 [B, S, S, 3] to probabilities float32 [B, C]
    side: int  # pixels, S
    classes: int  # C
    step: int  # of the training, at which the weights were taken
    metadata: Mapping[str, Any]  # class names, preprocessing, provenance
    tags: Mapping[str, str]

    def output(self, model_id: str) -> Any:
        """What says that a run gave this model."""
        return mlflow().entities.LoggedModelOutput(model_id, self.step)


def save(served: Served, folder: Path, run_id: str) -> None:
    """Write an MLflow model into a new folder; whatever torch raises when it cannot trace the network."""
    model = mlflow().models.Model(run_id=run_id, metadata=dict(served.metadata))
    # Two images: what a network does to a batch of one alone would hold for batches of one alone.
    example = np.zeros((2, served.side, served.side, 3), np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mlflow().pytorch.save_model(
            served.module,
            str(folder),
            mlflow_model=model,
            signature=_signature(served),
            input_example=example,
            serialization_format="pt2",
            pip_requirements=[f"torch=={version('torch').partition('+')[0]}"],
        )
    for name in _EXAMPLES:  # MLflow traces the network with them; written down as text, they would take megabytes
        (folder / name).unlink(missing_ok=True)


def name(folder: Path, model_id: str) -> None:
    """Write into an MLflow model which logged model it is, and what is in its folder."""
    model = mlflow().models.Model.load(str(folder))
    model.model_id = model.model_uuid = model_id
    model.saved_input_example_info = None
    model.model_size_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    model.save(str(folder / "MLmodel"))


def _signature(served: Served) -> Any:
    types = mlflow().types
    images = types.TensorSpec(np.dtype(np.uint8), (-1, served.side, served.side, 3))
    probabilities = types.TensorSpec(np.dtype(np.float32), (-1, served.classes))
    return mlflow().models.ModelSignature(types.Schema([images]), types.Schema([probabilities]))
