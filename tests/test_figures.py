"""Figures are data first: what is drawn, what is left out, and where the labels stand."""

import warnings
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constructed import make_distance, make_run
from fttune.analysis.figure_data import Evidence, accuracy_data, copying_data, tuning_data
from fttune.analysis.figures import FIGURES, draw_ratios, ratio_ticks, rendered, spaced_ticks
from fttune.analysis.ratios import distances_of
from fttune.analysis.select import select
from fttune.record import RunRecord

DISTANCES = [make_distance("a", 0.1), make_distance("b", 0.5)]


def grid(*names: str, images: tuple[int, ...] = (5, 25)) -> list[RunRecord]:
    return [
        make_run(mode, 0.3 + 0.1 * top + 0.05 * (mode == "tune"), random_top=top, dataset=name, images_per_class=count)
        for name in names or ("a", "b")
        for count in images
        for top in (1, 3, 5)
        for mode in ("freeze", "tune")
    ]


def evidence(runs: list[RunRecord]) -> Evidence:
    return Evidence(results=select(runs), distances=distances_of(DISTANCES), image_edges=(21, 100))


EMPTY = Evidence(results=[], distances={}, image_edges=(21, 100))
ONE = evidence([make_run("tune", 0.5), make_run("freeze", 0.5)])
SMALL = evidence(grid())
LARGE = evidence(grid(*"abcdefghi", images=(1, 5, 10, 20, 25, 35, 50, 53, 70, 75, 120, 550)))


def test_figure_1_compares_one_new_layer_with_three_and_five() -> None:
    panels = copying_data(SMALL)
    assert [(p.title, p.y_label) for p in panels] == [
        ("Fine-tuned (T)", "top 1 new / top 3 new"),
        ("Frozen (F)", "top 1 new / top 3 new"),
        ("Fine-tuned (T)", "top 1 new / top 5 new"),
        ("Frozen (F)", "top 1 new / top 5 new"),
    ]
    assert panels[0].y == pytest.approx((0.45 / 0.65,) * 4)
    assert panels[3].y == pytest.approx((0.4 / 0.8,) * 4)


def test_a_trend_is_the_geometric_mean_at_each_place() -> None:
    panel = replace(copying_data(SMALL)[0], names=("a", "b", "a"), x=(5.0, 5.0, 25.0), y=(0.5, 2.0, 3.0))
    (places, means) = panel.trends()[""]
    assert places == [5, 25]
    assert means == pytest.approx([1, 3])
    assert panel.document["averages"] == [{"band": "", "x": places, "y": means}]


def test_the_panel_by_distance_keeps_the_amount_of_data() -> None:
    """Section 5.1 of the paper reads low and medium data off it; one average over all amounts would hide them."""
    pairs = {("a", 5): 0.5, ("a", 25): 2.0, ("a", 30): 8.0, ("b", 5): 0.25, ("b", 120): 3.0}
    runs = [
        make_run(mode, 0.25 * ratio if mode == "tune" else 0.25, dataset=name, images_per_class=count)
        for (name, count), ratio in pairs.items()
        for mode in ("tune", "freeze")
    ]
    _, right = tuning_data(evidence(runs))
    found = {band: (x, pytest.approx(y)) for band, (x, y) in right.trends().items()}
    assert found == {"H >=100": ([0.5], [3]), "L 1-20": ([0.1, 0.5], [0.5, 0.25]), "M 21-99": ([0.1], [4])}
    labels = [line.get_label() for line in draw_ratios(tuning_data(evidence(runs))).axes[1].lines]
    assert [label for label in labels if str(label).startswith("average")] == ["average L 1-20"]


def test_figure_2_is_tuned_over_frozen_against_images_and_distance() -> None:
    left, right = tuning_data(SMALL)
    assert left.y == right.y == pytest.approx((0.45 / 0.4,) * 4)
    assert sorted(left.x) == [5, 5, 25, 25]
    assert sorted(right.x) == [0.1, 0.1, 0.5, 0.5]
    assert (left.edge, right.edge) == (100, None)


def test_what_a_panel_leaves_out_is_said_on_it() -> None:
    near = [make_run("tune", 0.5, dataset="c"), make_run("freeze", 0.1, dataset="c")]
    far = [make_run("tune", 0.5, dataset="d"), make_run("freeze", 0.4, dataset="d")]
    alone = make_run("tune", 0.5, dataset="e")
    panels = tuning_data(evidence([*grid(), *near, *far, alone]))
    assert [(len(p.x), p.left_out) for p in panels] == [
        (5, "1 flagged, 1 unpaired"),
        (4, "1 flagged, 1 unpaired, 1 without a distance"),
    ]
    assert panels[1].flagged == ("c/5 net s0: denominator 0.100 is within 2 times chance (0.100)",)
    assert panels[1].unpaired == ("e/5 T(1-7)R(8) s0: no finished run with freeze under the same conditions",)
    assert panels[1].unplaced == ("d/5 net s0",)
    titles = [axis.get_title() for axis in draw_ratios(panels).axes]
    assert titles[1] == "By distance, n = 4\nleft out: 1 flagged, 1 unpaired, 1 without a distance"


def test_figure_3_has_every_result_of_every_backbone_once() -> None:
    curves = accuracy_data(SMALL)
    assert len(curves) == 2 * 3 * 2
    assert sum(len(curve.x) for curve in curves) == len(grid())
    assert {(c.panel, c.chance) for c in curves} == {("a", 0.1), ("b", 0.1)}
    both = accuracy_data(evidence([*grid("a"), *(replace(run, backbone="wide") for run in grid("a"))]))
    assert {curve.panel for curve in both} == {"a, net", "a, wide"}
    assert {len(curve.x) for curve in both} == {2}


@pytest.mark.parametrize("name", sorted(FIGURES))
def test_a_figure_without_runs_says_so(name: str) -> None:
    texts = [text.get_text() for axis in FIGURES[name].drawn(EMPTY).axes for text in [*axis.texts, axis.title]]
    assert "no pairs" in texts or "no results" in texts


@pytest.mark.parametrize("name", sorted(FIGURES))
@pytest.mark.parametrize("found", [EMPTY, ONE, SMALL, LARGE], ids=["empty", "one", "small", "large"])
def test_no_label_touches_another_or_leaves_the_figure(name: str, found: Evidence) -> None:
    figure = FIGURES[name].drawn(found)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rendered(figure, "png")
    whole = figure.bbox.padded(1)
    for legend in figure.legends:
        box = legend.get_window_extent()
        assert (box.x0 >= whole.x0, box.x1 <= whole.x1, box.y0 >= whole.y0) == (True, True, True)
    for axis in figure.axes:
        for labels, side in ((axis.get_xticklabels(), "x"), (axis.get_yticklabels(), "y")):
            shown = sorted(
                (getattr(b, f"{side}0"), getattr(b, f"{side}1"))
                for b in (label.get_window_extent() for label in labels if label.get_visible() and label.get_text())
            )
            assert all(end <= start for (_, end), (start, _) in pairwise(shown))


def test_the_line_at_100_images_is_explained_by_the_legend() -> None:
    figure = draw_ratios(tuning_data(LARGE))
    (line,) = [line for line in figure.axes[0].lines if line.get_linestyle() == ":"]
    assert line.get_xdata() == [100, 100]
    (legend,) = figure.legends
    assert "100 images: large" in [text.get_text() for text in legend.get_texts()]


def test_the_papers_sizes_are_all_labelled_where_they_fit() -> None:
    assert spaced_ticks([1, 10, 300, 550], 1 / 1.4, 550 * 1.4) == [1, 10, 550]
    assert spaced_ticks([10, 50, 200, 450], 10 / 1.4, 450 * 1.4) == [10, 50, 200, 450]


@pytest.mark.parametrize("name", sorted(FIGURES))
def test_equal_runs_give_equal_figures(name: str) -> None:
    draw = FIGURES[name].drawn
    assert rendered(draw(SMALL), "svg") == rendered(draw(SMALL), "svg")


def test_nine_datasets_have_nine_looks() -> None:
    (axis, *_) = draw_ratios(tuning_data(LARGE)).axes
    looks = {(line.get_color(), line.get_marker()) for line in axis.lines if line.get_linestyle() == "None"}
    assert len(looks) == 9


@given(st.floats(0.001, 0.99), st.floats(1.01, 1000))
def test_one_is_always_on_the_axis_and_labels_keep_their_distance(low: float, high: float) -> None:
    ticks = ratio_ticks(low, high)
    assert 1 in ticks
    assert len(ticks) <= 8
    assert all(low <= tick <= high for tick in ticks)
    assert spaced_ticks(ticks, low, high, upright=True) == ticks


@pytest.mark.parametrize("low", [0.01, 0.094, 0.2, 0.31])
def test_the_low_end_of_an_axis_of_ratios_has_a_label(low: float) -> None:
    assert ratio_ticks(low, 1.17)[0] < 3 * low


@given(st.lists(st.integers(1, 2000), min_size=1, max_size=30))
def test_the_fewest_and_where_there_is_room_the_most_images_are_labelled(places: list[int]) -> None:
    kept = spaced_ticks([float(place) for place in places], min(places) / 1.4, max(places) * 1.4)
    assert kept[0] == min(places)
    assert len(kept) == 1 or kept[-1] == max(places)
    assert set(kept) <= set(places)
    assert kept == sorted(set(kept))
