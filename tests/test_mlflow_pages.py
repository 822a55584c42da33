"""MLflow's own pages show sweeps well: saved views with columns in order, descriptions with links that open."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from playwright.sync_api import Page, sync_playwright

from fttune.record import RunRecord
from fttune.tracking.fields import ERROR, record_metrics, record_name, record_params, record_tags
from fttune.tracking.notes import NOTE, page
from fttune.tracking.runs import Tracker
from fttune.tracking.views import VIEWS, view_of
from stores import free_port, make_database, make_distance, record_of, serving
from values import make_trial

CHROMIUM = shutil.which("chromium")
SPECS = ("T(1-3)R(4)", "F(1-3)R(4)", "R(1-4)")


def everything(record: RunRecord) -> RunRecord:
    """The record with whatever was not measured measured."""
    absent = {name: 1 for name in RunRecord.__slots__ if getattr(record, name) is None}
    return replace(record, **absent, device="cpu")


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Tracker:
    """Two finished trials, a failed one, a distance and a report."""
    folder = tmp_path_factory.mktemp("logged")
    tracker = Tracker(make_database(folder), "fttune")
    parent = tracker.open_sweep("small")
    records = [record_of(make_trial(spec), test_accuracy=0.5, seconds=2.0) for spec in SPECS]
    records[2] = replace(records[2], status="failed", error="boom")
    for at, record in enumerate(records, start=1):
        run = tracker.open_trial(parent, record.trial_id, name=record_name(record), at=at)
        tracker.start_trial(run, params=record_params(record), tags={})
        tracker.finish_trial(run, record, "", at)
    tracker.write_distance(parent, make_distance(), 9)
    (folder / "report").mkdir()
    (folder / "report" / "report.html").write_text("<h1>What was found</h1>")
    tracker.log_report("small", folder / "report")
    return tracker


def empty(folder: Path) -> Path:
    """A report without a file."""
    (folder / "report").mkdir()
    return folder / "report"


def tags_of(tracker: Tracker) -> dict[str, str]:
    found = MlflowClient(tracker.uri).get_experiment_by_name("fttune")
    assert found
    return dict(found.tags)


def test_every_column_is_something_that_is_logged() -> None:
    record = everything(record_of(make_trial()))
    written = {
        kind: {f"params.{name}" for name in record_params(row)}
        | {f"metrics.{name}" for name in record_metrics(row)}
        | {f"tags.{name}" for name in (*record_tags(row), ERROR)}
        for kind, row in (("distance", make_distance()), ("trial", record))
    }
    for view in (*VIEWS, view_of("small")):
        columns = written["distance" if view.key == "distances" else "trial"]
        assert set(view.columns) <= columns, view.name


@pytest.mark.parametrize(("key", "runs"), [("trials", 3), ("failed", 1), ("cost", 2), ("distances", 1), ("", 3)])
def test_a_view_asks_for_what_it_is_called(logged: Tracker, key: str, runs: int) -> None:
    view = next((view for view in VIEWS if view.key == key), view_of("small"))
    state = json.loads(json.loads(tags_of(logged)[view.tag])["state"])
    client = MlflowClient(logged.uri)
    experiment = client.get_experiment_by_name("fttune")
    assert experiment
    order = f"{state['orderByKey']} {'ASC' if state['orderByAsc'] else 'DESC'}"
    assert len(client.search_runs([experiment.experiment_id], state["searchFilter"], order_by=[order])) == runs


def test_what_a_user_wrote_stays(tmp_path: Path) -> None:
    tracker = Tracker(make_database(tmp_path), "fttune")
    run_id = tracker.open_sweep("small").run_id
    client, view = MlflowClient(tracker.uri), VIEWS[0].tag
    experiment = client.get_experiment_by_name("fttune")
    assert experiment
    client.set_experiment_tag(experiment.experiment_id, view, "mine")
    client.set_experiment_tag(experiment.experiment_id, NOTE, "about it")
    client.set_tag(run_id, NOTE, "about the sweep")
    tracker.open_sweep("small")
    tracker.log_report("small", empty(tmp_path))
    assert (tags_of(tracker)[view], tags_of(tracker)[NOTE]) == ("mine", "about it")
    assert client.get_run(run_id).data.tags[NOTE] == "about the sweep"


def test_an_older_sweep_gets_its_description_with_its_next_report(tmp_path: Path) -> None:
    tracker = Tracker(make_database(tmp_path), "fttune")
    run_id = tracker.open_sweep("small").run_id
    MlflowClient(tracker.uri).delete_tag(run_id, NOTE)
    tracker.log_report("small", empty(tmp_path))
    assert "report/report.html" in MlflowClient(tracker.uri).get_run(run_id).data.tags[NOTE]


@pytest.mark.parametrize(
    ("uri", "place"),
    [
        ("sqlite:///mlflow.db", "http://127.0.0.1:5000/"),
        ("http://me:secret@host:80/", "http://***@host:80/"),
    ],
)
def test_the_address_of_a_sweep_is_where_its_pages_are(uri: str, place: str) -> None:
    assert page(uri, "7", "s") == f"{place}#/experiments/7/runs?workflowType=machine_learning&viewStateShareKey=sweep-s"


@pytest.fixture(scope="module")
def pages(logged: Tracker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Tracker, Page]]:
    """MLflow's own server on the logged runs, and a browser."""
    port = free_port()
    with serving(logged.uri, port, tmp_path_factory.mktemp("server")), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield Tracker(f"http://127.0.0.1:{port}", "fttune"), browser.new_page(viewport={"width": 2400, "height": 900})
        browser.close()


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_a_browser_shows_a_saved_view_and_follows_the_links(pages: tuple[Tracker, Page]) -> None:
    tracker, shown = pages
    shown.goto(tracker.page("small"))
    shown.wait_for_selector("text=digits/5 T(1-3)R(4) s0")
    columns = [column.removeprefix("params.").removeprefix("metrics.") for column in view_of("small").columns]
    assert headers(shown) == ["Run Name", "Created", *columns]
    shown.get_by_text("digits/5 T(1-3)R(4) s0").click()
    shown.wait_for_selector("text=First asked for by the sweep")
    with shown.context.expect_page() as opened:
        shown.get_by_role("link", name="report", exact=True).click()
    opened.value.frame_locator("iframe").get_by_text("What was found").wait_for()


def headers(shown: Page) -> list[Any]:
    """Of the columns, from left to right."""
    cells = "[...document.querySelectorAll('.ag-header-cell[col-id]')]"
    left = "cell => cell.getBoundingClientRect().left"
    script = f"{cells}.map(cell => [({left})(cell), cell.innerText.trim()]).sort((a, b) => a[0] - b[0])"
    return [text for _, text in shown.evaluate(script) if text]
