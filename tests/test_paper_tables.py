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
from fttune.analysis.tables import METRICS, PAPER, datasets_sheet, distances_sheet, published_agreements, verdicts_sheet
from fttune.record import DistanceRecord, RunRecord

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
        ("coral", "H", "band as published"),
        ("plankton", "L", "band differs"),
        ("mine", "M", "not in the paper"),
    ]
    assert str(sheet.rows[0]["svm"]) == "0.973 [0.960, 0.980], n = 100"
    assert sheet.document["rows"][0]["svm"] == {
        "value": 0.973, "low": 0.96, "high": 0.98, "spread": "range", "images": 100, "source_images": 1000,
        "repeats": 1, "chance": 0.5,
    }  # fmt: skip
    assert (sheet.rows[0]["mmd"], sheet.rows[0]["paper: mmd"]) == (None, 38.7)
    assert [row["paper: cosine"] for row in sheet.rows] == [0.455, 0.534, None]


def test_table_2_tells_where_metrics_disagree() -> None:
    names = ("caltech256", "sun397", "mit67")
    cosine = [make_distance(name, value) for name, value in zip(names, (0.1, 0.2, 0.3), strict=True)]
    mmd = [replace(r, metric="mmd", value=v) for r, v in zip(cosine, (1.0, 3.0, 2.0), strict=True)]
    sheet = distances_sheet([*cosine, *mmd], EDGES)
    told = "Order by cosine and mmd: Spearman 0.500 over 3 datasets; reversed: mit67 against sun397."
    assert sheet.notes[1] == told
    assert sheet.notes[-1] == "6 measurements; a dash was not measured."
    assert sheet.document["agreement"] == [
        {
            "metrics": ("cosine", "mmd"),
            "datasets": 3,
            "spearman": pytest.approx(0.5),
            "reversed": (("mit67", "sun397"),),
        }
    ]
    assert METRICS == ("cosine", "mmd", "svm", "cnn")


def measured(name: str) -> list[DistanceRecord]:
    """The published distances of a dataset as if measured here."""
    row = next(row for row in tables()["table2"] if row["dataset"] == PAPER[name])
    return [replace(make_distance(name, row[metric]), metric=metric) for metric in METRICS]


def test_the_published_values_measured_again_are_as_published_with_the_papers_own_exception() -> None:
    names = [name for name in PAPER if name != "cub200_paper"]
    sheet = distances_sheet([record for name in names for record in measured(name)], EDGES)
    assert [row["compared"] for row in sheet.rows] == ["band as published"] * 7
    assert [one["reversed"] for one in sheet.document["agreement"] if "svm" in one["metrics"]] == [
        (("coral", "plankton"),)
    ] * 3
    assert (
        "The paper's own table. Order by cosine and svm: Spearman 0.964 over 7 datasets; reversed: Coral against"
        " Plankton." in sheet.notes
    )


@given(st.permutations(["every", "some", "near", "old"]))
def test_two_ways_of_measuring_are_two_rows_in_whatever_order_they_were_logged(order: list[str]) -> None:
    every = make_distance("coral", 0.455)
    kinds = {
        "every": every,
        "some": replace(every, maximum=2000, value=0.1),
        "near": replace(every, source="other", value=0.3),
        "old": replace(every, data_digest="old", value=0.2),
    }
    sheet = distances_sheet([kinds[kind] for kind in order], EDGES)
    assert sorted(row["value"] for row in (row["cosine"] for row in sheet.document["rows"])) == [0.1, 0.2, 0.3, 0.455]
    assert sheet == distances_sheet(list(kinds.values()), EDGES)


def test_two_sets_of_images_of_one_name_are_both_ranked() -> None:
    near = make_distance("coral", 0.1)
    far, other = replace(near, data_digest="old", value=0.3), make_distance("mit67", 0.2)
    found = [r for record in (near, far, other) for r in (record, replace(record, metric="mmd"))]
    (agreement,) = distances_sheet(found, EDGES).document["agreement"]
    assert (agreement["datasets"], agreement["spearman"]) == (3, pytest.approx(1))


# What Table 1 says of each dataset, as the sweeps of this project ask for it.
PRINTED = {
    "caltech256": ((256, 0, 2, 25), (1, 10, 25, 53), "as published"),
    "sun397": ((397, 0, 2, 25), (1, 10, 50, 70), "as published"),
    "mit67": ((67, 0, 2, 20), (1, 10, 25, 75), "as published but test, not compared"),
    "cub200": ((200, 0, 2, 29), (5, 20, 27), "differs: train"),
    "cub200_paper": ((200, 0, 2, 4), (5, 20, 35), "differs: test"),
    "coral": ((8, 1, 50, 300), (10, 50, 200, 450), "as published"),
    "plankton": ((34, 69, 50, 85), (1, 10, 300, 550), "as published"),
    "imagenet500b": ((500, 0, 20, 50), (1, 10, 25, 53, 120), "as published but test, not compared"),
}


@pytest.mark.parametrize("name", sorted(PRINTED))
def test_each_row_of_table_1_is_held_against_the_printed_one(name: str) -> None:
    (classes, dropped, val, test), sizes, compared = PRINTED[name]
    facts = {"classes": classes, "dropped_classes": dropped, "val_images": val * classes, "test_images": test * classes}
    runs = [replace(make_run("tune", 0.5, dataset=name, images_per_class=size), **facts) for size in sizes]
    (row,) = datasets_sheet(runs).rows
    assert row["compared"] == compared
    (row,) = datasets_sheet([replace(run, dropped_classes=dropped + 2) for run in runs]).rows
    assert "too small" in str(row["compared"])


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
