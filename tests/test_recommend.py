"""The table: the paper's own from runs that have the paper's effects, and honest words where runs are few."""

import pytest

from constructed import make_distance, make_pairs_of_runs, make_run
from fttune.analysis.published import published_verdict, tables
from fttune.analysis.ratios import distances_of, tune_to_freeze
from fttune.analysis.recommend import BANDS, Box, Table, Verdict, band, markdown, recommend, verdict
from fttune.analysis.select import select
from fttune.errors import ConfigError
from fttune.record import DistanceRecord, RunRecord

MIDDLE = {"L": 0.1, "M": 0.3, "H": 0.6}
IMAGES = {"L": (1, 10), "M": (25, 50), "H": (120, 300)}
EFFECT = {Verdict.FREEZE: (0.85, 0.9, 0.92), Verdict.TUNE: (1.1, 1.15, 1.2), Verdict.BOTH: (0.9, 1.0, 1.1)}


def table_of(runs: list[RunRecord], distances: list[DistanceRecord]) -> Table:
    return recommend(tune_to_freeze(select(runs), distances_of(distances)).pairs, distances)


def test_runs_with_the_papers_effects_give_the_papers_table_3() -> None:
    runs, distances = [], []
    for row in BANDS:
        names = [f"{row}{number}" for number in range(3)]
        distances += [make_distance(name, MIDDLE[row] + 0.01 * number) for number, name in enumerate(names)]
        for column in BANDS:
            for name, effect in zip(names, EFFECT[published_verdict(row, column)], strict=True):
                for images in IMAGES[column]:
                    runs += make_pairs_of_runs(name, images, effect)
    table = table_of(runs, distances)
    regenerated = {row: [table.box(row, column).verdict.value for column in BANDS] for row in BANDS}
    assert regenerated == {row: tables()["table3"][row] for row in BANDS}
    assert all((box.counted, len(box.datasets), box.thin) == (18, 3, False) for box in table.boxes)


def test_the_papers_own_splits_leave_one_box_without_evidence() -> None:
    distances = [make_distance(row["dataset"], row["cosine"]) for row in tables()["table2"]]
    splits = {row["dataset"]: row["train"] for row in tables()["table1"]}
    assert len(splits) == len(distances)
    runs = [
        run
        for row in distances
        for images in splits[row.dataset]
        for run in make_pairs_of_runs(row.dataset, images, 1.0, seeds=1)
    ]
    assert len(runs) == 2 * (23 + 5)
    table = table_of(runs, distances)
    counts = [[table.box(row, column).counted for column in BANDS] for row in BANDS]
    assert counts == [[6, 6, 1], [4, 3, 0], [3, 1, 4]]
    assert table.box("M", "H").verdict is Verdict.NONE
    assert [box.thin for box in table.boxes] == [False, False, True, False, False, False, False, True, False]


@pytest.mark.parametrize(
    ("value", "edges", "name"),
    [(0.0, (0.2, 0.4), "L"), (0.2, (0.2, 0.4), "M"), (0.4, (0.2, 0.4), "H"), (1.0, (0.2, 0.4), "H"),
     (1, (21, 100), "L"), (20, (21, 100), "L"), (21, (21, 100), "M"), (99, (21, 100), "M"), (100, (21, 100), "H")],
)  # fmt: skip
def test_bands_are_half_open(value: float, edges: tuple[float, float], name: str) -> None:
    assert band(value, edges) == name


@pytest.mark.parametrize(
    ("ratio", "low", "high", "word"),
    [(1.1, 1.01, 1.2, Verdict.TUNE), (0.9, 0.8, 0.99, Verdict.FREEZE), (1.1, 0.99, 1.2, Verdict.BOTH),
     (1.1, 1.0, 1.2, Verdict.BOTH), (5.0, None, None, Verdict.BOTH), (None, None, None, Verdict.NONE)],
)  # fmt: skip
def test_a_verdict_needs_the_whole_interval_on_one_side(
    ratio: float | None, low: float | None, high: float | None, word: Verdict
) -> None:
    assert verdict(ratio, low, high) is word


def one_box(runs: list[RunRecord], distance: DistanceRecord) -> Box:
    (box,) = [box for box in table_of(runs, [distance]).boxes if box.pairs]
    return box


def test_a_single_pair_decides_nothing() -> None:
    box = one_box(make_pairs_of_runs("a", 5, 2.0, seeds=1), make_distance("a", 0.1))
    assert (box.verdict, box.low, box.thin, box.counted) == (Verdict.BOTH, None, True, 1)


def test_two_image_counts_of_one_seed_decide_nothing_either() -> None:
    runs = make_pairs_of_runs("a", 5, 1.5, seeds=1) + make_pairs_of_runs("a", 10, 1.5, seeds=1)
    box = one_box(runs, make_distance("a", 0.1))
    assert (box.verdict, box.low, box.counted) == (Verdict.BOTH, None, 2)


def test_pairs_near_chance_are_shown_but_not_averaged() -> None:
    near = [make_run("tune", 0.9, dataset="b", seed=9), make_run("freeze", 0.15, dataset="b", seed=9)]
    runs = make_pairs_of_runs("b", 5, 1.2) + near
    box = one_box(runs, make_distance("b", 0.1))
    assert (box.counted, box.flagged) == (3, 1)
    assert box.ratio == pytest.approx(1.2, abs=0.05)


def test_a_dataset_without_a_distance_is_in_no_box_and_named() -> None:
    table = table_of(make_pairs_of_runs("a", 5, 1.2), [])
    assert table.unplaced == ("a",)
    assert not any(box.pairs for box in table.boxes)


def test_a_distance_whose_interval_reaches_over_an_edge_is_named() -> None:
    distances = [make_distance("a", 0.195, spread=0.01), make_distance("b", 0.1, spread=0.01)]
    runs = make_pairs_of_runs("a", 5, 1.2) + make_pairs_of_runs("b", 5, 1.2)
    assert table_of(runs, distances).straddling == ("a",)


@pytest.mark.parametrize("edges", [(100, 21), (21, 21), (0, 100)])
def test_bands_that_do_not_rise_are_refused(edges: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match="image_bands: medium must begin above 0 and high above medium"):
        recommend([], [], image_edges=edges)


def test_the_table_fits_a_terminal_and_every_box_states_its_n() -> None:
    distances = [make_distance(name, value) for name, value in (("a", 0.1), ("b", 0.3), ("c", 0.31))]
    near = [make_run("tune", 0.9, dataset="b", seed=99), make_run("freeze", 0.15, dataset="b", seed=99)]
    runs = [
        *near,
        *(run for name in "abc" for images in (5, 25, 120) for run in make_pairs_of_runs(name, images, 20.0, seeds=12)),
    ]
    lines = markdown(table_of(runs, distances)).splitlines()
    assert max(map(len, lines)) <= 100
    assert len({len(line) for line in lines}) == 1
    counts = [[field.strip() for field in line.split("|")[2:5]] for line in lines[4::3]]
    assert counts == [["n=12/1"] * 3, ["n=24/2, 1 flagged", "n=24/2", "n=24/2"], ["n=0/0"] * 3]


def test_a_verdict_flips_once_as_the_true_ratio_moves_through_1() -> None:
    """Six datasets whose own ratios spread by a tenth about the true one."""
    spread = (0.88, 0.95, 0.99, 1.02, 1.06, 1.12)
    distances = [make_distance(f"d{number}", 0.1 + 0.01 * number) for number in range(6)]
    words = []
    for truth in (0.75, 0.85, 0.95, 1.0, 1.05, 1.2, 1.35):
        runs = [
            run
            for number, own in enumerate(spread)
            for run in make_pairs_of_runs(f"d{number}", 5, truth * own, seeds=2)
        ]
        words.append(table_of(runs, distances).box("L", "L").verdict)
    assert words == [Verdict.FREEZE] * 2 + [Verdict.BOTH] * 3 + [Verdict.TUNE] * 2


def test_two_datasets_decide_only_where_they_agree_almost_exactly() -> None:
    distances = [make_distance("a", 0.1), make_distance("b", 0.11)]
    unlike = [*make_pairs_of_runs("a", 5, 1.10, seeds=1), *make_pairs_of_runs("b", 5, 1.25, seeds=1)]
    pairs = [make_pairs_of_runs(name, 5, ratio, seeds=1, noise=0) for name, ratio in (("a", 1.17), ("b", 1.18))]
    alike = [run for pair in pairs for run in pair]
    assert table_of(unlike, distances).box("L", "L").verdict is Verdict.BOTH
    assert table_of(alike, distances).box("L", "L").verdict is Verdict.TUNE
