"""A report is made from records alone: every number with its n and its runs, nothing fetched."""

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import replace
from html import escape
from html.parser import HTMLParser
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from plotly.offline import get_plotlyjs

from constructed import make_distance, make_pairs_of_runs, make_run
from fttune.analysis.figures import FIGURES
from fttune.analysis.page import render_page
from fttune.analysis.report import Report, analyse, notes, summary, write_report
from fttune.analysis.sheet import Sheet
from fttune.analysis.tables import TABLES
from fttune.record import DistanceRecord, RunRecord
from fttune.tracking.table import read_parquet

FILES = {f"fig{n}.{form}" for n in (1, 2, 3) for form in ("png", "svg", "json")}
FILES |= {f"table{n}.{form}" for n in (1, 2, 3) for form in ("md", "json")}
FILES |= {f"{table}.{form}" for table in ("regret", "trend", "modes", "scores", "costs") for form in ("md", "json")}
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
    assert "24 runs, 4 pairs, 0 flagged (near chance or 0) and left out." in document["notes"]
    took = "tuned 4 trials, 80 steps, 4 s; frozen 4 trials, 80 steps, 4 s"
    assert f"Given to these pairs, searches included: {took}." in document["notes"]
    assert {pair[side]["trials"] for pair in pairs for side in ("numerator_given", "denominator_given")} == {1}
    page = (tmp_path / "report.html").read_text()
    assert "tuned: given" in page
    assert "1 trial, 20 steps, 1 s" in page


def test_what_was_asked_for_and_is_not_there_is_listed(tmp_path: Path) -> None:
    runs = grid()
    wanted = [(r.dataset, r.images_per_class, r.backbone, r.spec, r.seed) for r in runs]
    lost, failed = runs[0], replace(runs[1], status="failed", error="out of memory")
    report = analyse(
        [failed, *runs[2:]], DISTANCES, name="small", image_edges=(21, 100), distance_edges=(0.2, 0.4),
        confidence=0.95, wanted=wanted,
    )  # fmt: skip
    assert sorted(report.missing) == sorted(
        [f"a/5 net {lost.spec} s0: no run", f"a/5 net {failed.spec} s0: failed: out of memory"]
    )
    write_report(report, tmp_path)
    assert "Asked for and not there: 2 cells and seeds." in (tmp_path / "table.md").read_text()
    for table in ("table1.md", "table3.md"):
        assert "22 runs; 2 of the grid missing, named in table.json." in (tmp_path / table).read_text()
    for figure in ("fig1", "fig2", "fig3"):
        facts = json.loads((tmp_path / f"{figure}.json").read_text())
        assert (facts["runs"], facts["missing"]) == (22, list(report.missing))
        assert facts["failed"] == [f"a/5 net {failed.spec} s0: out of memory"]
    page = (tmp_path / "report.html").read_text()
    assert "22 results, 2 of the grid missing, failed: 1" in page
    assert f"a/5 net {lost.spec} s0: no run" in page
    assert make_report(runs, DISTANCES).missing == ()


def averages(figure: Any) -> list[tuple[float, float]]:
    """Every corner of the lines through averages."""
    lines = [line for axis in figure.axes for line in axis.lines]
    joined = [line for line in lines if line.get_label().startswith(("average", "tune, ", "freeze, "))]
    return sorted((x, y) for line in joined for x, y in line.get_xydata())


def points(figure: Any) -> list[list[tuple[float, float]]]:
    """Every marker that a figure shows, panel by panel."""
    return [
        sorted((x, y) for line in axis.lines if line.get_linestyle() == "None" for x, y in line.get_xydata())
        for axis in figure.axes
    ]


def test_the_numbers_of_a_figure_are_those_that_are_drawn(tmp_path: Path) -> None:
    report = make_report(grid(), DISTANCES)
    write_report(report, tmp_path)
    for name, row in FIGURES.items():
        panels = json.loads((tmp_path / f"{name}.json").read_text())["panels"]
        told = [sorted(zip(panel["x"], panel["y"], strict=True)) for panel in panels]
        figure = row.drawn(report.evidence)
        drawn = points(figure)
        lines = [line for panel in panels for line in panel.get("averages", [panel.get("average")])]
        corners = [zip(line["x"], line["y"], strict=True) for line in lines]
        assert averages(figure) == sorted(chain(*corners)) != []
        if name == "fig3":  # several curves in each panel
            told, drawn = [sorted(chain(*told))], [sorted(chain(*drawn))]
        assert drawn == told


class _Page(HTMLParser):
    """What a page would fetch, and whether each element is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "br", "input"):
            self.open.append(tag)
        self.fetched += [
            v or "" for k, v in attrs if k in ("src", "href", "xlink:href") and not (v or "").startswith("#")
        ]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def drawings(page: str) -> Iterator[str]:
    for part in page.split("<noscript>")[1:]:
        yield part.split("</noscript>")[0]


def without_scripts(page: str) -> str:
    return re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)


def test_the_page_needs_nothing_but_itself(tmp_path: Path) -> None:
    write_report(make_report(grid(), DISTANCES), tmp_path)
    text = (tmp_path / "report.html").read_text()
    page = _Page()
    page.feed(text)
    assert page.fetched == []
    assert page.open == []
    assert page.tags.count("script") == 3  # numbers, Plotly, the page's own
    assert "default-src 'none'" in text
    assert text.count(get_plotlyjs()) == 1
    assert len(text) - len(get_plotlyjs()) < 500_000
    own = without_scripts(text)
    assert "@import" not in own
    assert not [part for part in own.split("url(")[1:] if not part.startswith("#")]
    assert len(list(drawings(text))) == 3
    for drawing in drawings(text):
        ET.fromstring(drawing)


def test_what_the_advice_is_worth_stands_first_its_headline_before_all(tmp_path: Path) -> None:
    report = make_report(grid(), DISTANCES)
    sheets = {name: make(report) for name, make in TABLES.items()}
    sheets["regret"] = Sheet(
        title="Regret", columns=("policy", "regret"), rows=({"policy": "table", "regret": 0.01},),
        notes=("Following the table costs 1.0 point of accuracy.", "n = 4 pairs."),
    )  # fmt: skip
    text = render_page(report, ["a note"], sheets, dict.fromkeys(FIGURES, "<svg></svg>"))
    main = text[text.index("<main") :]
    order = [
        main.index(part) for part in ("What the advice is worth", "costs 1.0", "policy", "n = 4", "Recommendation")
    ]
    assert order == sorted(order)
    assert main.count("costs 1.0 point") == 1


def test_every_table_is_on_the_page_and_every_box_with_its_test(tmp_path: Path) -> None:
    runs = [run for name in "ab" for run in make_pairs_of_runs(name, 5, 1.5)]
    report = make_report(runs, [make_distance(name, 0.1) for name in "ab"])
    write_report(report, tmp_path)
    text = without_scripts((tmp_path / "report.html").read_text())
    for make in TABLES.values():
        assert text.count(f'aria-label="{escape(make(report).title)}"') == 1
    assert text.count("flip p 0.5, with Holm 0.5") == 1


def test_a_pair_that_is_counted_with_a_remark_shows_it(tmp_path: Path) -> None:
    write_report(make_report(make_pairs_of_runs("a", 5, 0.2, seeds=1), DISTANCES), tmp_path)
    text = without_scripts((tmp_path / "report.html").read_text())
    pairs = text[text.index('<details id="box-L-L">') :]
    assert "<th scope=col>remark</th>" in pairs
    assert "within 2 times chance" in pairs.split("</details>")[0]


def test_the_page_counts_what_is_missing_and_what_is_stale(tmp_path: Path) -> None:
    runs = [replace(run, git_commit="new") for run in grid()]
    old = [replace(run, git_commit="old") for run in runs[:2]]
    near = [make_run("tune", 0.5, dataset="c"), make_run("freeze", 0.1, dataset="c")]
    alone = make_run("tune", 0.5, dataset="a", images_per_class=99)
    write_report(make_report([*old, *near, alone, *runs[2:]], DISTANCES), tmp_path)
    text = without_scripts((tmp_path / "report.html").read_text())
    told = text[text.index("What is missing or stale</h2>") :]
    for line in (
        "Asked for, no finished run: 0",
        "Failed trials: 0",
        "Pairs left out of averages: 1",
        "Results without a fair partner: 7",  # in the table and in Fig. 1
        "Pairs without a distance, in no box: 1",
        "Stale runs, of another origin than the newest: 5",
    ):
        assert line in told
    assert old[0].trial_id in told


def test_names_of_users_do_not_become_markup(tmp_path: Path) -> None:
    wicked = "<b>&x"
    runs = make_pairs_of_runs(wicked, 5, 1.1)
    write_report(make_report(runs, [make_distance(wicked, 0.1)]), tmp_path)
    text = (tmp_path / "report.html").read_text()
    assert wicked not in without_scripts(text)
    assert "&lt;b&gt;&amp;x" in text
    numbers = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert numbers
    assert not set("<>&") & set(numbers[1])
    assert f'"{wicked}, 5 per class' in json.dumps(json.loads(numbers[1]))


def test_a_name_that_turns_the_line_around_is_written_out() -> None:
    odd = "abc\u202e\x1b[31m"
    report = make_report(make_pairs_of_runs(odd, 5, 1.1), [make_distance(odd, 0.1)])
    text = render_page(report, [], {}, dict.fromkeys(FIGURES, "<svg></svg>"))
    assert not set("\u202e\x1b") & set(without_scripts(text))
    assert r"abc\u202e\x1b[31m" in text


def test_the_printed_table_states_what_it_rests_on() -> None:
    text = summary(make_report(grid(), DISTANCES))
    rows = [[field.strip() for field in line.split("|")[1:3]] for line in text.splitlines() if line.startswith("|")]
    assert rows[2:5] == [["L 0-0.2", "Try Freeze or Tune*"], ["", "1.125"], ["", "n=1/1"]]
    assert "24 runs, 4 pairs, 0 flagged" in text
    assert "thin" in text


def test_failed_and_lonely_runs_are_counted() -> None:
    runs = [make_run("tune", 0.5), make_run("tune", 0.5, dataset="b")]
    report = make_report([runs[0], replace(runs[1], status="failed", error="no")], DISTANCES)
    assert "Trials failed: 1. Runs without a fair partner: 1." in notes(report)
    assert report.document["failed"] == [{"trial_id": runs[1].trial_id, "error": "no"}]


def test_what_figure_1_lacks_and_leaves_out_is_listed_too() -> None:
    runs = [run for run in grid() if run.random_top < 5]
    lost = next(run for run in runs if run.random_top == 3 and run.mode == "tune" and run.dataset == "a")
    chance = [replace(run, test_accuracy=0.1) if run.random_top == 3 and run.mode == "freeze" else run for run in runs]
    document = make_report([run for run in chance if run is not lost], DISTANCES).document
    (line,) = document["unpaired"]
    assert line == "a/5 T(1-7)R(8) s0: no finished run with 3 new under the same conditions"
    tuned, frozen = document["copying"]
    assert [(d["mode"], d["top"], d["random_top"], len(d["pairs"])) for d in (tuned, frozen)] == [
        ("tune", 1, 3, 3),
        ("freeze", 1, 3, 4),
    ]
    assert all("chance" in pair["flagged"] and pair["ratio"] is None for pair in frozen["pairs"])


def test_pairs_without_a_distance_are_kept_with_their_runs() -> None:
    document = make_report(grid(), DISTANCES[:1]).document
    assert document["unplaced"] == ("b",)
    assert [pair["images_per_class"] for pair in document["unplaced_pairs"]] == [5, 25]


def test_two_datasets_are_said_to_be_few_and_one_interval_is_no_agreement() -> None:
    runs = [run for name in "ab" for run in make_pairs_of_runs(name, 5, 0.5)]
    told = notes(make_report(runs, [make_distance("a", 0.1), make_distance("b", 0.11)]))
    assert "Two datasets leave one degree of freedom: their interval is wide until a third is there." in told
    assert "As in the paper's Table 3 wherever there is an interval (1 of 9 boxes)." in told
    assert "Table 3" not in notes(make_report(grid(), DISTANCES))


def test_tests_by_dataset_are_told_with_how_many_were_made(tmp_path: Path) -> None:
    names = "abcdef"
    runs = [run for name in names for images in (5, 25) for run in make_pairs_of_runs(name, images, 1.3)]
    report = make_report(runs, [make_distance(name, 0.1 + 0.001 * number) for number, name in enumerate(names)])
    told = "Flipping whole datasets, 0 of 2 boxes tested differ from 1 with p <= 0.05 (Holm). Each p is in table3.md."
    assert told in notes(report)
    write_report(report, tmp_path)
    boxes = json.loads((tmp_path / "table.json").read_text())["boxes"]
    assert [box["verdict"] for box in boxes[:2]] == ["Tune", "Tune"]  # the verdict rests on the interval
    # Six datasets that all lie above 1, in 18 pairs each: 2 of 64 ways to flip them, and two boxes were tested.
    assert [(box["tests"]["flip_p"], box["flip_holm"]) for box in boxes[:2]] == [(2 / 64, 4 / 64)] * 2
    assert [box["tests"] for box in boxes[2:]] == [None] * 7
    rows = json.loads((tmp_path / "table3.json").read_text())["rows"]
    assert [row["flip p, Holm"] for row in rows[:3]] == [4 / 64, 4 / 64, None]


def test_what_is_left_out_near_chance_on_one_side_alone_is_told() -> None:
    runs = [
        *make_pairs_of_runs("a", 5, 0.2, seeds=1),  # tuned 0.12 of chance 0.1
        *(make_run(mode, 0.5 if mode == "tune" else 0.15, dataset="b") for mode in ("tune", "freeze")),
    ]
    told = notes(make_report(runs, DISTANCES))
    assert "Near chance the ratios tilt to Freeze: 1 pairs count with the tuned side there, 1 are left out" in told
    assert "tilt" not in notes(make_report(grid(), DISTANCES))


def test_the_smooth_model_stands_beside_each_box_that_has_pairs(tmp_path: Path) -> None:
    places = {"a": 0.1, "b": 0.3, "c": 0.5, "d": 0.55}
    runs = [
        run
        for name, distance in places.items()
        for images in (5, 25)
        for run in make_pairs_of_runs(name, images, 1 + distance, noise=0)
    ]
    write_report(make_report(runs, [make_distance(name, distance) for name, distance in places.items()]), tmp_path)
    found = json.loads((tmp_path / "trend.json").read_text())
    assert found == json.loads((tmp_path / "table.json").read_text())["trend"]
    boxes = [(row["distance"], row["images"], row["at images"]) for row in found["rows"]]
    assert boxes == [(band, size, pytest.approx(n)) for band in "LMH" for size, n in (("L", 5), ("M", 25))]
    for row in found["rows"]:
        assert row["smooth"] == pytest.approx(row["table"], rel=0.02) == pytest.approx(1 + row["at distance"], rel=0.02)
        assert row["new low"] < row["low"] < row["smooth"] < row["high"] < row["new high"]
        assert row["outside"] is None
    assert found["slopes"]["distance"]["value"] == pytest.approx(0.78, abs=0.05)
    assert found["slopes"]["log images per class"]["value"] == pytest.approx(0, abs=1e-9)
    assert "24 pairs of 4 datasets" in found["notes"][0]


def test_the_regret_stands_at_the_top(tmp_path: Path) -> None:
    report = make_report(grid(), DISTANCES)
    assert summary(report).startswith("Regret, points of test accuracy lost on a dataset left out (n = 2 datasets")
    write_report(report, tmp_path)
    page, words = (tmp_path / "report.html").read_text(), (tmp_path / "table.md").read_text().splitlines()
    assert page.index("What the advice is worth") < page.index("Recommendation</h2>")
    assert words[2].startswith("Regret, points of test accuracy lost")
    assert json.loads((tmp_path / "regret.json").read_text())["rows"][0]["policy"] == "table"


def test_a_word_other_than_the_papers_is_told_with_the_papers() -> None:
    told = notes(make_report(make_pairs_of_runs("a", 5, 1.5), [make_distance("a", 0.1)]))
    assert "Other than in the paper's Table 3, whose word is in brackets: distance L images L (Freeze)." in told


def test_backbones_that_share_a_box_are_named() -> None:
    runs = make_pairs_of_runs("a", 5, 1.1)
    others = [replace(run, backbone="wide", trial_id=f"{run.trial_id}w") for run in runs]
    assert "Boxes pool the backbones net, wide." in notes(make_report([*runs, *others], [make_distance("a", 0.1)]))
    assert "pool" not in notes(make_report(runs, [make_distance("a", 0.1)]))


def test_no_runs_at_all_still_make_a_report(tmp_path: Path) -> None:
    write_report(make_report([], []), tmp_path)
    assert "No evidence" in (tmp_path / "table.md").read_text()
    assert "No runs." in (tmp_path / "table1.md").read_text()
    page = without_scripts((tmp_path / "report.html").read_text())
    assert page.count("<figure><svg") == 3  # the printed figures, which say that there is nothing
    assert 'data-figure="' not in page
