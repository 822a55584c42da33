"""The only file that imports mlflow, and only when an experiment is first asked: the import takes two seconds."""

import logging
import os
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

from fttune.errors import ConfigError
from fttune.garbage import uncollected
from fttune.secrets import masked
from fttune.tracking.uri import in_full, reason

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as Run

# Retries are the writer's: a POST that MLflow repeats by itself could create a second run.
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",  # seconds
}


def mlflow() -> ModuleType:
    """The library, as a sweep wants it: quiet, without telemetry, given up on after seconds."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import mlflow

    # Somebody else may have imported it before, with its own levels.
    logging.getLogger("mlflow").setLevel(os.environ["MLFLOW_LOGGING_LEVEL"].upper())
    return mlflow


def connect(uri: str) -> "MlflowClient":
    """A client of the tracker at `uri`, which is not asked anything yet; ConfigError where MLflow knows no such URI."""
    try:
        with warnings.catch_warnings(), uncollected():
            # Importing its store, MLflow uses an option that SQLAlchemy is about to drop.
            warnings.simplefilter("ignore", DeprecationWarning)
            return mlflow().MlflowClient(in_full(uri))
    except mlflow().MlflowException as error:
        if error.error_code != "INVALID_PARAMETER_VALUE":
            raise
        raise ConfigError(f"tracking.uri {masked(uri)}: {reason(error)}") from None


def search(client: "MlflowClient", experiment: str, condition: str, page: int) -> Iterator["Run"]:
    """The runs of an experiment that meet a condition, oldest first, asked for in pages; none where there is none."""
    found, token = client.get_experiment_by_name(experiment), ""
    while found and token is not None:
        with uncollected():  # a hundred objects for each run: searching took two thirds of the time of 10,000
            runs = client.search_runs(
                [found.experiment_id],
                condition,
                max_results=page,
                order_by=["attributes.start_time ASC"],
                page_token=token or None,
            )
        yield from runs
        token = runs.token or None


def tag_run(client: "MlflowClient", run_id: str, key: str, value: str) -> None:
    """Set a tag of a run that others may be tagging: MLflow tries a batch again where two collide, but not a tag."""
    client.log_batch(run_id, tags=[mlflow().entities.RunTag(key, value)])


def tag_experiment(client: "MlflowClient", experiment_id: str, key: str, value: str) -> None:
    """Add a tag to an experiment; of two who add it at once MLflow refuses one, for whom it is there by then."""
    try:
        client.set_experiment_tag(experiment_id, key, value)
    except mlflow().MlflowException:
        if key not in client.get_experiment(experiment_id).tags:
            raise


def artifacts(location: str, uri: str) -> Any:
    """The files of a run or of a logged model, which MLflow's client can add to and read, but not remove."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    return get_artifact_repository(location, tracking_uri=uri)
