"""The page's figures before they are drawn: what a reader is told of a point, and how it is told apart."""

import re
from dataclasses import replace
from importlib.resources import files

from constructed import make_distance, make_run
from fttune.analysis.facets import Facets
from fttune.analysis.figure_data import Evidence
from fttune.analysis.legend import legend
from fttune.analysis.panels import panels, style_of
from fttune.analysis.ratios import distances_of
from fttune.analysis.select import select
from fttune.record import RunRecord

EDGES = (21.0, 100.0)


def grid(*names: str) -> list[RunRecord]:
    return [
        make_run(mode, 0.3 + 0.1 * top + 0.05 * (mode == "tune"), random_top=top, dataset=name, images_per_class=count)
        for name in names
        for count in (5, 120)
        for top in (1, 3, 5)
        for mode in ("freeze", "tune")
    ]


RUNS = grid("a", "b")
FACETS = Facets.of(RUNS, EDGES)
MADE = panels(Evidence(results=select(RUNS), distances=distances_of([make_distance("a", 0.1)]), large=EDGES[1]), FACETS)


def test_a_point_tells_dataset_split_seed_both_accuracies_and_runs() -> None:
    tuned, frozen = (next(r for r in RUNS if r.mode == mode and r.random_top == 1) for mode in ("tune", "freeze"))
    assert MADE["fig2"][0]["series"][0]["points"][0]["told"] == [
        "a, 5 per class, seed 0",
        "net, distance 0.100",
        f"tuned 0.450, run {tuned.trial_id}",
        f"frozen 0.400, run {frozen.trial_id}",
        "ratio 1.125",
    ]
    assert MADE["fig1"][0]["series"][0]["points"][0]["told"][2].startswith("top 1 new 0.450, run ")
    assert MADE["fig2"][0]["series"][1]["points"][0]["told"][1] == "net, distance not measured"


def test_a_point_is_found_by_every_value_it_has() -> None:
    assert list(FACETS.values) == ["Dataset", "Backbone", "Images per class", "New layers", "Seed"]
    assert FACETS.values["Images per class"] == ["L 1-20", "M 21-99", "H >=100"]
    codes = {point["code"] for panel in MADE["fig1"][:2] for series in panel["series"] for point in series["points"]}
    assert codes == {f"{dataset} 0 {band} 0,1 0" for dataset in (0, 1) for band in (0, 2)}
    assert MADE["fig3"][1]["series"][-1]["points"][0]["code"] == "1 0 0 2 0"


def test_only_the_panel_by_images_marks_where_large_data_begin() -> None:
    left, right = MADE["fig2"]
    assert left["marks"] == [{"y": 1, "dash": "solid"}, {"x": 100, "dash": "dot"}]
    assert right["marks"] == [{"y": 1, "dash": "solid"}]
    assert (left["x"]["log"], right["x"]["log"]) == (True, False)


def test_panels_of_a_row_share_their_ratios_axis() -> None:
    top_left, top_right, low_left, low_right = (panel["y"] for panel in MADE["fig1"])
    assert top_left == top_right != low_left == low_right
    assert all(1 in axis["ticks"] for axis in (top_left, low_left))


def test_no_two_series_look_alike_without_colour() -> None:
    for panel in MADE["fig3"]:
        looks = [(series["symbol"], series["dash"]) for series in panel["series"]]
        assert len(set(looks)) == len(looks) == 6
    ways = [replace(run, mode=way, trial_id=f"{run.trial_id}{way}") for run in grid("a") for way in ("lora", "head")]
    several = [*grid("a"), *(run for run in ways if run.spec == "T(1-7)R(8)")]
    (panel,) = panels(Evidence(results=select(several), distances={}, large=100), Facets.of(several, EDGES))["fig3"]
    looks = [(series["symbol"], series["dash"]) for series in panel["series"]]
    assert len(set(looks)) == len(looks) == 8
    names = [f"set {number:02}" for number in range(49)]
    many = Facets.of([make_run("tune", 0.5, dataset=name) for name in names], EDGES)
    styles = [style_of(name, many) for name in names]
    assert len(set(styles)) == 49
    assert len({symbol for _, symbol in styles[:7]}) == 7


def test_a_legend_names_every_series_once_as_it_is_drawn() -> None:
    of_ratios, of_curves = legend(MADE["fig1"], FACETS), legend(MADE["fig3"], FACETS)
    assert of_ratios.count("<li>") == 3
    assert of_ratios.endswith("average</li></ul>")
    assert of_curves.count("<li>") == 6
    assert of_curves.count('stroke-dasharray="6 4"') == of_curves.count("class=open") == 3
    assert legend([], FACETS) == ""


def luminance(colour: str) -> float:
    """Relative, as WCAG 2 defines it."""
    digits = colour.removeprefix("#")
    whole = digits if len(digits) == 6 else "".join(digit * 2 for digit in digits)
    parts = [int(whole[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


def test_text_and_markers_stand_out_in_light_and_in_dark() -> None:
    style = files("fttune.analysis").joinpath("page.css").read_text()
    light, dark = (dict(re.findall(r"--(\w+): (#\w+)", part)) for part in style.split("@media")[:2])
    for scheme in (light, dark):
        assert all(contrast(scheme[name], scheme["paper"]) >= 4.5 for name in ("ink", "faint", "link"))
        assert all(contrast(scheme[name], scheme["mark"]) >= 4.5 for name in ("ink",))
        assert all(contrast(scheme[f"c{number}"], scheme["paper"]) >= 3 for number in range(7))
