"""A report is made from records alone: data before drawing, every number with its n, nothing fetched."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from constructed import make_distance, make_pairs_of_runs, make_run
from fttune.analysis.figures import FIGURES, Evidence, accuracy_data, copying_data, rendered, tuning_data
from fttune.analysis.report import Report, analyse, markdown, summary, write_report
from fttune.analysis.select import select
from fttune.record import DistanceRecord, RunRecord
from fttune.tracking.table import read_parquet

FILES = {f"fig{n}.{form}" for n in (1, 2, 3) for form in ("png", "svg")}
FILES |= {"table.md", "table.json", "runs.parquet", "distances.parquet", "report.html"}


def grid() -> list[RunRecord]:
    return [
        make_run(mode, 0.3 + 0.1 * top + 0.05 * (mode == "tune"), random_top=top, dataset=name, images_per_class=images)
        for name in ("a", "b")
        for images in (5, 25)
        for top in (1, 3, 5)
        for mode in ("freeze", "tune")
    ]


def make_report(runs: list[RunRecord], distances: list[DistanceRecord]) -> Report:
    return analyse(runs, distances, name="small", image_edges=(21, 100), distance_edges=(0.2, 0.4), confidence=0.95)


DISTANCES = [make_distance("a", 0.1), make_distance("b", 0.5)]


def evidence() -> Evidence:
    distances = {(record.dataset, record.backbone): record.value for record in DISTANCES}
    return Evidence(results=select(grid()), distances=distances, large=100)


def test_figure_1_compares_one_new_layer_with_three_and_five() -> None:
    panels = copying_data(evidence())
    assert [(p.title, p.y_label) for p in panels] == [
        ("Fine-tuned (T)", "top 1 new / top 3 new"),
        ("Frozen (F)", "top 1 new / top 3 new"),
        ("Fine-tuned (T)", "top 1 new / top 5 new"),
        ("Frozen (F)", "top 1 new / top 5 new"),
    ]
    assert panels[0].y == pytest.approx((0.45 / 0.65,) * 4)
    assert panels[3].y == pytest.approx((0.4 / 0.8,) * 4)
    places, means = panels[0].trend()
    assert places.tolist() == [5, 25]
    assert means == pytest.approx([0.45 / 0.65] * 2)


def test_figure_2_is_tuned_over_frozen_against_images_and_distance() -> None:
    left, right = tuning_data(evidence())
    assert left.y == right.y == pytest.approx((0.45 / 0.4,) * 4)
    assert sorted(left.x) == [5, 5, 25, 25]
    assert sorted(right.x) == [0.1, 0.1, 0.5, 0.5]


def test_figure_3_has_every_result() -> None:
    curves = accuracy_data(evidence())
    assert len(curves) == 2 * 3 * 2
    assert sum(len(curve.x) for curve in curves) == len(grid())


@pytest.mark.parametrize("name", sorted(FIGURES))
def test_a_figure_without_runs_says_so(name: str) -> None:
    drawn = rendered(FIGURES[name][1](Evidence(results=[], distances={}, large=100)), "svg").decode()
    assert "no pairs" in drawn or "no results" in drawn


@pytest.mark.parametrize("name", sorted(FIGURES))
def test_equal_runs_give_equal_figures(name: str) -> None:
    draw = FIGURES[name][1]
    assert rendered(draw(evidence()), "svg") == rendered(draw(evidence()), "svg")


def test_a_report_is_a_folder_of_these_files(tmp_path: Path) -> None:
    write_report(make_report(grid(), DISTANCES), tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
    assert read_parquet(tmp_path / "out" / "runs.parquet", RunRecord) == grid()
    assert read_parquet(tmp_path / "out" / "distances.parquet", DistanceRecord) == DISTANCES
    assert (tmp_path / "out" / "fig1.png").read_bytes().startswith(b"\x89PNG")


def test_every_number_of_the_table_leads_to_its_runs(tmp_path: Path) -> None:
    write_report(make_report(grid(), DISTANCES), tmp_path)
    document = json.loads((tmp_path / "table.json").read_text())
    ids = {run.trial_id for run in grid()}
    pairs = [pair for box in document["boxes"] for pair in box["pairs"]]
    assert len(pairs) == document["counts"]["pairs"] == 4
    assert {pair[side] for pair in pairs for side in ("numerator_id", "denominator_id")} < ids
    assert document["seconds"]["tune"]["trials"] == 12


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.fetched += [
            v or "" for k, v in attrs if k in ("src", "href", "xlink:href") and not (v or "").startswith("#")
        ]


def test_the_page_needs_nothing_but_itself(tmp_path: Path) -> None:
    write_report(make_report(grid(), DISTANCES), tmp_path)
    page = _Page()
    page.feed((tmp_path / "report.html").read_text())
    assert page.fetched == []
    assert page.tags.count("svg") == 3
    assert "script" not in page.tags
    assert "@import" not in (tmp_path / "report.html").read_text()


def test_names_of_users_do_not_become_markup(tmp_path: Path) -> None:
    wicked = "<b>&x"
    runs = make_pairs_of_runs(wicked, 5, 1.1)
    write_report(make_report(runs, [make_distance(wicked, 0.1)]), tmp_path)
    text = (tmp_path / "report.html").read_text()
    assert wicked not in text
    assert "&lt;b&gt;&amp;x" in text


def test_the_printed_table_states_what_it_rests_on() -> None:
    text = summary(make_report(grid(), DISTANCES))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 5
    assert len({len(row) for row in rows}) == 1
    assert re.search(r"L 0-0.2 .*Try Freeze or Tune\* 1\.12 n=1/1", text)
    assert "24 runs, 4 pairs, 0 flagged" in text
    assert "thin" in text


def test_failed_and_lonely_runs_are_counted() -> None:
    runs = [make_run("tune", 0.5), make_run("tune", 0.5, dataset="b")]
    broken = replace(runs[1], status="failed", error="no")
    text = markdown(make_report([runs[0], broken], DISTANCES))
    assert "1 trials failed, 1 runs have no partner" in text


def test_no_runs_at_all_still_make_a_report(tmp_path: Path) -> None:
    write_report(make_report([], []), tmp_path)
    assert "No evidence" in (tmp_path / "table.md").read_text()
