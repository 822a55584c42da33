"""Descriptions of runs and experiments, in Markdown, with links that work within MLflow's pages."""

import time
from typing import TYPE_CHECKING, Any

from fttune.secrets import masked
from fttune.tracking.client import tag_experiment, tag_run
from fttune.tracking.views import VIEWS, unsaved, view_of

if TYPE_CHECKING:
    from fttune.tracking.client import MlflowClient

NOTE = "mlflow.note.content"
_PAGES = "http://127.0.0.1:5000"  # where `mlflow ui` serves them unless told otherwise
_KIND = "workflowType=machine_learning"  # without it MLflow opens the pages that it has for language models


def describe(client: "MlflowClient", experiment_id: str, run: Any, sweep: str) -> None:
    """Give a sweep's run and its experiment the descriptions and saved views that they lack; what is there stays."""
    tags = client.get_experiment(experiment_id).tags
    for key, value in unsaved(sweep, tags, time.time_ns() // 1_000_000):
        tag_experiment(client, experiment_id, key, value)
    if NOTE not in tags:
        tag_experiment(client, experiment_id, NOTE, experiment_note(experiment_id))
    if NOTE not in run.data.tags:
        tag_run(client, run.info.run_id, NOTE, sweep_note(experiment_id, run.info.run_id, sweep))


def experiment_note(experiment_id: str) -> str:
    """What the experiment is, with its views."""
    links = ", ".join(f"[{view.name}]({_view(experiment_id, view.key)})" for view in VIEWS)
    return (
        "How many layers of a pre-trained network to copy, and whether to freeze or to fine-tune them, by fttune. "
        f"Views: {links}. The run of a sweep holds its report."
    )


def sweep_note(experiment_id: str, run_id: str, sweep: str) -> str:
    """What a sweep's own run is for."""
    return (
        f"Sweep {sweep}: [its trials]({_view(experiment_id, view_of(sweep).key)}), and its "
        f"[report]({_report(experiment_id, run_id)}) once `fttune run` or `fttune report` has written one."
    )


def run_note(experiment_id: str, parent_id: str, sweep: str) -> str:
    """Where the run of a trial or a measurement belongs."""
    return (
        f"First asked for by the sweep [{sweep}]({_run(experiment_id, parent_id)}): "
        f"[its trials]({_view(experiment_id, view_of(sweep).key)}), its [report]({_report(experiment_id, parent_id)})."
    )


def page(uri: str, experiment_id: str, sweep: str) -> str:
    """The address of a sweep's trials: on the tracker where that is a server, else where `mlflow ui` would be."""
    place = masked(uri).rstrip("/") if uri.startswith(("http:", "https:")) else _PAGES
    return f"{place}/{_view(experiment_id, view_of(sweep).key)}"


def _view(experiment_id: str, key: str) -> str:
    return f"#/experiments/{experiment_id}/runs?{_KIND}&viewStateShareKey={key}"


def _run(experiment_id: str, run_id: str) -> str:
    return f"#/experiments/{experiment_id}/runs/{run_id}?{_KIND}"


def _report(experiment_id: str, run_id: str) -> str:
    return f"#/experiments/{experiment_id}/runs/{run_id}/artifacts/report/report.html?{_KIND}"
