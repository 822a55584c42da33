"""The notebook of questions runs as it stands on anybody's runs, and what it shows is what it computes."""

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from constructed import make_run
from fttune.tracking.fields import record_name
from fttune.tracking.runs import Tracker
from stores import make_database

NOTEBOOK = Path(__file__).parents[1] / "docs" / "questions.ipynb"

# Tuning is worth 0.1, a third new layer 0.05, and a seed moves every network of it by 0.01.
RUNS = [
    make_run(
        mode,
        0.5 + 0.1 * (mode == "tune") + 0.025 * (top - 1) + 0.01 * seed,
        random_top=top,
        dataset=dataset,
        seed=seed,
    )
    for mode in ("tune", "freeze")
    for top in (1, 3)
    for dataset in ("a", "b")
    for seed in (0, 1)
]
# What is no part of a tuned or frozen cell: another way to train the tuned spec, and a run that tried a setting.
RUNS += [
    make_run("tune", 0.9, val=0.1, way="lpft", dataset="a", seed=0),
    make_run("tune", 0.11, val=0.95, dataset="a", images_per_class=25, seed=-1),
]


def shown(notebook: Any) -> list[str]:
    """The text of each code cell's outputs."""
    texts = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
            texts.append("".join(o.get("text") or o["data"]["text/plain"] for o in outputs))
    return texts


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What the notebook answers for runs with a known truth, whose store lies in a folder above the kernel's."""
    folder = tmp_path_factory.mktemp("asked")
    tracker = Tracker(make_database(folder), "fttune")
    parent = tracker.open_sweep("made")
    for at, record in enumerate(RUNS, start=1):
        run = tracker.open_trial(parent, record.trial_id, name=record_name(record), at=at)
        tracker.finish_trial(run, record, "", at)
    (folder / "docs").mkdir()
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)  # MLflow itself may have set it in a test before
        NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(folder / "docs")}}).execute()
    return shown(notebook)


def test_it_answers_for_runs_whose_truth_is_known(answers: list[str]) -> None:
    start, modes, depths, chosen, cost, noise = answers
    assert start.strip() == "17 finished trials, 0 failed, of 2 datasets"
    assert re.findall(r"tune .* (\S+) +(\S+) +(\S+)$", modes, re.MULTILINE) == [("0.1", "0.1", "0.1")]
    assert re.findall(r" 3 .* (\S+) +(\S+) +(\S+)$", depths, re.MULTILINE) == [("0.05", "0.05", "0.05")] * 2
    assert chosen.count("T(1-5)R(6-8)") == 2
    assert re.findall(r"tune .* (\S+) +(\S+) +(\S+)$", cost, re.MULTILINE) == [("0.0", "0.0", "0.0")] * 2
    assert "8 cells have several seeds; median standard deviation over them: 0.007" in noise
    assert "8 pairs; median difference of tuned and frozen: 0.100" in noise
    assert "within twice chance: 0 of 17; failed: 0" in noise


def test_its_shown_output_is_whole_and_of_no_one_machine() -> None:
    text, notebook = NOTEBOOK.read_text(), nbformat.read(NOTEBOOK, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert all(shown(notebook))
    assert not re.findall(r"/(?:home|root|tmp|Users|work)/", text)
    assert len(text) < 30_000
    assert sum(cell.source.startswith("## ") for cell in notebook.cells if cell.cell_type == "markdown") == 5
