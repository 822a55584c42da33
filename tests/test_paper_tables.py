"""The paper's tables beside ours: published values as printed, differences marked, nothing taken on trust."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from constructed import make_distance, make_pairs_of_runs, make_run
from fttune.analysis.agreement import agreements, spearman
from fttune.analysis.published import tables
from fttune.analysis.ratios import distances_of, tune_to_freeze
from fttune.analysis.recommend import band, recommend
from fttune.analysis.select import select
from fttune.analysis.tables import METRICS, datasets_sheet, distances_sheet, published_agreements, verdicts_sheet
from fttune.record import RunRecord

EDGES = (0.2, 0.4)


def test_the_published_distances_fall_into_the_papers_bands() -> None:
    found = {row["dataset"]: band(row["cosine"], EDGES) for row in tables()["table2"]}
    assert found == {
        "Yosinski": "L", "Caltech256": "L", "SUN397": "L", "MITIndoor": "M", "CUB-200": "M",
        "Coral": "H", "Plankton": "H",
    }  # fmt: skip


def test_the_published_metrics_agree_on_the_order_but_for_one_pair_under_the_svm() -> None:
    """The paper says that all metrics give the same order; its own SVM puts Coral behind Plankton."""
    found = {agreement.metrics: agreement for agreement in published_agreements()}
    assert len(found) == 6
    for metrics, agreement in found.items():
        assert agreement.datasets == 7
        if "svm" in metrics:
            assert agreement.reversed == (("Coral", "Plankton"),)
            assert agreement.spearman == pytest.approx(1 - 6 * 2 / (7 * 48))
        else:
            assert agreement.reversed == ()
            assert agreement.spearman == pytest.approx(1)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=3, max_size=12))
def test_the_rank_correlation_is_scipys(pairs: list[tuple[int, int]]) -> None:
    x, y = (np.array(side, float) for side in zip(*pairs, strict=True))
    ours = spearman(x, y)
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        assert ours is None
    else:
        assert ours == pytest.approx(spearmanr(x, y)[0], abs=1e-9)


def test_metrics_are_compared_on_the_datasets_that_both_have() -> None:
    (found,) = agreements({"cosine": {"a": 1, "b": 2, "c": 3}, "svm": {"b": 9, "a": 5, "d": 1}})
    assert (found.datasets, found.spearman, found.reversed) == (2, None, ())


def caltech(**changes: Any) -> list[RunRecord]:
    facts = {"classes": 256, "dropped_classes": 0, "dataset_images": 29_780, "smallest_class": 80}
    facts |= {"val_images": 512, "test_images": 6_400} | changes
    runs = [make_run("tune", 0.5, dataset="caltech256", images_per_class=n) for n in (1, 10, 25, 53)]
    return [replace(run, **facts) for run in runs]


def test_table_1_tells_what_was_found_and_what_was_published() -> None:
    (row,) = datasets_sheet(caltech()).rows
    assert (row["classes"], row["images"], row["train"], row["val"], row["test"]) == (
        256,
        29_780,
        "1, 10, 25, 53",
        2,
        25,
    )
    assert (row["paper: classes"], row["paper: train"], row["compared"]) == (256, "1, 10, 25, 53", "as published")
    (row,) = datasets_sheet(caltech(classes=250, val_images=500, test_images=6_250)[:2]).rows
    assert row["compared"] == "differs: classes, train"


def test_table_1_is_in_the_papers_order_and_others_come_last() -> None:
    facts = {"classes": 10, "val_images": 20, "test_images": 33}
    names = ("aaa", "plankton", "mit67", "caltech256")
    runs = [replace(make_run("tune", 0.5, dataset=name), **facts) for name in names]
    rows = datasets_sheet(runs).rows
    assert [row["dataset"] for row in rows] == ["caltech256", "mit67", "plankton", "aaa"]
    assert (rows[-1]["compared"], rows[-1]["paper: classes"]) == ("not in the paper", None)
    assert (rows[1]["test"], rows[1]["paper: test"]) == (3.3, "official")
    failed = replace(make_run("tune", 0.5, dataset="never"), status="failed")
    assert datasets_sheet([failed]).rows == ()


def test_table_2_has_a_row_for_each_dataset_and_a_column_for_each_metric() -> None:
    coral = make_distance("coral", 0.455)
    svm = replace(coral, metric="svm", value=0.973, low=0.96, high=0.98, spread="range", chance=0.5)
    near, own = make_distance("plankton", 0.1), make_distance("mine", 0.3)
    sheet = distances_sheet([own, svm, coral, near], EDGES)
    assert [(row["dataset"], row["band"], row["compared"]) for row in sheet.rows] == [
        ("coral", "H", "as published"),
        ("plankton", "L", "differs"),
        ("mine", "M", "not in the paper"),
    ]
    assert sheet.rows[0]["svm"] == "0.973 [0.960, 0.980], n = 100"
    assert (sheet.rows[0]["mmd"], sheet.rows[0]["paper: mmd"]) == (None, 38.7)
    assert [row["paper: cosine"] for row in sheet.rows] == [0.455, 0.534, None]


def test_table_2_tells_where_metrics_disagree() -> None:
    names = ("caltech256", "sun397", "mit67")
    cosine = [make_distance(name, value) for name, value in zip(names, (0.1, 0.2, 0.3), strict=True)]
    mmd = [replace(r, metric="mmd", value=v) for r, v in zip(cosine, (1.0, 3.0, 2.0), strict=True)]
    notes = distances_sheet([*cosine, *mmd], EDGES).notes
    assert notes[1] == "Order by cosine and mmd: Spearman 0.500 over 3 datasets; reversed: mit67 against sun397."
    assert notes[2:] == ("6 measurements; a dash was not measured.",)
    assert METRICS == ("cosine", "mmd", "svm", "cnn")


def test_table_3_marks_each_box_as_published_other_or_without_evidence() -> None:
    runs = [*make_pairs_of_runs("a", 5, 0.7), *make_pairs_of_runs("a", 50, 0.7)]
    distances = [make_distance("a", 0.1)]
    pairing = tune_to_freeze(select(runs), distances_of(distances))
    rows = {(row["distance"], row["images"]): row for row in verdicts_sheet(recommend(pairing.pairs, distances)).rows}
    assert len(rows) == 9
    assert (rows["L", "L"]["ours"], rows["L", "L"]["paper"], rows["L", "L"]["compared"]) == (
        "Freeze*", "Freeze", "as published",
    )  # fmt: skip
    assert (rows["L", "M"]["ours"], rows["L", "M"]["compared"]) == ("Freeze*", "differs")
    assert (rows["L", "L"]["pairs"], rows["L", "L"]["datasets"], rows["L", "L"]["splits"]) == (3, 1, 1)
    assert {row["compared"] for place, row in rows.items() if place[0] != "L"} == {"no evidence of ours"}


def test_a_sheet_says_the_same_as_markdown_and_as_json() -> None:
    sheet = datasets_sheet(caltech())
    lines = sheet.markdown().splitlines()
    assert lines[0] == "## Table 1: datasets and splits, as found on disk"
    assert [field.strip() for field in lines[4].strip("|").split("|")][:2] == ["caltech256", "256"]
    assert sheet.document["rows"][0]["smallest class"] == 80
    assert "<th scope=col>smallest class</th>" in sheet.html()
