"""Pairs differ in one thing alone; what cannot be paired fairly is said, not dropped."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from constructed import make_distance, make_run
from fttune.analysis.bootstrap import interval, mean_ratio, small_sample, standard_error
from fttune.analysis.ratios import compare_depths, distances_of, top_to_deeper, tune_to_freeze
from fttune.analysis.select import select
from fttune.record import RunRecord

accuracies = st.floats(0.25, 1.0)


def ratio_of(tuned: RunRecord, frozen: RunRecord) -> float:
    (pair,) = tune_to_freeze(select([tuned, frozen]), {}).pairs
    return pair.ratio


@given(accuracies, accuracies)
def test_a_ratio_turned_round_is_its_inverse(first: float, second: float) -> None:
    there = ratio_of(make_run("tune", first), make_run("freeze", second))
    back = ratio_of(make_run("tune", second), make_run("freeze", first))
    assert there * back == pytest.approx(1)


def test_pairs_hold_everything_fixed_but_the_mode() -> None:
    runs = [
        make_run(mode, 0.5 if mode == "freeze" else 0.6, images_per_class=images, seed=seed, random_top=top)
        for mode in ("freeze", "tune")
        for images in (5, 20)
        for seed in (0, 1)
        for top in (1, 3)
    ]
    pairing = tune_to_freeze(select(runs), distances_of([make_distance("a", 0.3)]))
    assert [(p.images_per_class, p.seed) for p in pairing.pairs] == [(5, 0), (5, 1), (20, 0), (20, 1)]
    assert all(p.ratio == pytest.approx(1.2) and p.distance == 0.3 and p.label == "R 1" for p in pairing.pairs)
    ids = {run.trial_id: run for run in runs}
    for pair in pairing.pairs:
        above, below = ids[pair.numerator_id], ids[pair.denominator_id]
        assert (above.mode, below.mode, above.random_top, below.random_top) == ("tune", "freeze", 1, 1)


def test_copying_more_is_compared_within_a_mode() -> None:
    runs = [make_run(mode, 0.9 / top, random_top=top) for mode in ("freeze", "tune") for top in (1, 3, 5)]
    for mode in ("freeze", "tune"):
        for top in (3, 5):
            (pair,) = top_to_deeper(select(runs), {}, random_top=top, mode=mode).pairs
            assert pair.ratio == pytest.approx(top)
            assert pair.label == mode


def test_a_missing_half_is_listed() -> None:
    pairing = tune_to_freeze(select([make_run("tune", 0.5), make_run("freeze", 0.5, seed=1)]), {})
    assert pairing.pairs == ()
    assert sorted(pairing.unpaired) == [
        "a/5 F(1-7)R(8) s1: no finished run with tune under the same conditions",
        "a/5 T(1-7)R(8) s0: no finished run with freeze under the same conditions",
    ]


@pytest.mark.parametrize("change", [{"steps": 40}, {"views": "crop"}, {"batch_size": 4}, {"image_size": 64}])
def test_unequal_conditions_are_never_paired(change: dict[str, Any]) -> None:
    pairing = tune_to_freeze(select([make_run("tune", 0.5), make_run("freeze", 0.5, **change)]), {})
    assert pairing.pairs == ()
    assert len(pairing.unpaired) == 2


def test_without_a_search_unequal_settings_are_never_paired() -> None:
    pairing = tune_to_freeze(select([make_run("tune", 0.5, lr=0.1), make_run("freeze", 0.5, lr=0.2)]), {})
    assert pairing.pairs == ()
    assert pairing.unpaired == ("a/5 T(1-7)R(8) s0: unequal settings, lr 0.1 and 0.2",)


def test_a_search_may_choose_each_member_its_own_setting() -> None:
    runs = [
        make_run(mode, 0.5, lr=lr, val=0.9 if (mode, lr) in {("tune", 0.1), ("freeze", 0.2)} else 0.5)
        for mode in ("tune", "freeze")
        for lr in (0.1, 0.2)
    ]
    (pair,) = tune_to_freeze(select(runs), {}).pairs
    assert pair.ratio == 1


def test_the_fewest_new_layers_are_held_against_each_larger_number() -> None:
    runs = [make_run(mode, 0.9 / top, random_top=top) for mode in ("freeze", "tune") for top in (2, 4, 6)]
    found = compare_depths(select(runs), {})
    assert [(d.top, d.random_top, d.mode) for d in found] == [
        (2, 4, "tune"),
        (2, 4, "freeze"),
        (2, 6, "tune"),
        (2, 6, "freeze"),
    ]
    assert [d.pairing.pairs[0].ratio for d in found] == pytest.approx([2, 2, 3, 3])


def test_a_mode_that_was_never_run_at_a_depth_is_no_missing_half() -> None:
    runs = [make_run("tune", 0.5), make_run("freeze", 0.5), make_run("tune", 0.5, random_top=3)]
    assert [(d.random_top, d.mode, d.pairing.unpaired) for d in compare_depths(select(runs), {})] == [(3, "tune", ())]


@pytest.mark.parametrize(
    "change", [{"image_size": 64}, {"resize": "warp"}, {"data_digest": "other"}, {"weights_digest": "other"}]
)
def test_a_distance_measured_elsewhere_is_no_distance_of_these_images(change: dict[str, Any]) -> None:
    elsewhere = replace(make_distance("a", 0.3), **change)
    (pair,) = tune_to_freeze(select([make_run("tune", 0.5), make_run("freeze", 0.5)]), distances_of([elsewhere])).pairs
    assert pair.distance is None


def test_only_the_cosine_is_a_distance_and_the_larger_source_speaks() -> None:
    cosine = make_distance("a", 0.3)
    others = [
        replace(cosine, metric="mmd", value=23.9),
        replace(cosine, value=math.nan, source_images=9000),
        replace(cosine, value=0.5, source="few", source_images=10),
    ]
    assert list(distances_of([*others, cosine]).values()) == list(distances_of([cosine, *others]).values()) == [0.3]


def test_a_distance_does_not_depend_on_the_order_of_the_log() -> None:
    """The same place measured on all images and on 2,000 of them: all images count."""
    every = replace(make_distance("a", 0.45), images=5000)
    some = replace(every, images=2000, maximum=2000, value=0.1)
    assert list(distances_of([every, some]).values()) == list(distances_of([some, every]).values()) == [0.45]


def test_unequal_budgets_are_never_paired() -> None:
    runs = [make_run("tune", 0.5, lr=0.1), make_run("tune", 0.5, lr=0.2), make_run("freeze", 0.5, lr=0.1)]
    pairing = tune_to_freeze(select(runs), {})
    assert pairing.pairs == ()
    assert pairing.unpaired == ("a/5 T(1-7)R(8) s0: unequal budgets, 2 and 1 settings tried",)


@pytest.mark.parametrize(
    ("tuned", "frozen", "flag"),
    [
        (0.5, 0.2, "within 2 times chance"),
        (0.0, 0.5, "numerator is 0"),
        (0.5, 0.0, "within"),
        (0.0, 0.0, "within"),
    ],
)
def test_ratios_of_noise_are_flagged_and_not_counted(tuned: float, frozen: float, flag: str) -> None:
    pairing = tune_to_freeze(select([make_run("tune", tuned), make_run("freeze", frozen)]), {})
    assert flag in pairing.pairs[0].flagged
    assert pairing.counted == ()


ROWS = st.lists(st.tuples(st.floats(-1, 1), st.sampled_from("abc"), st.integers(0, 2)), min_size=1, max_size=20)


def columns(rows: list[tuple[float, str, int]]) -> tuple[list[float], list[str], list[int]]:
    return [row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows]


@given(ROWS)
def test_the_mean_is_geometric_and_lies_in_its_interval(rows: list[tuple[float, str, int]]) -> None:
    logs, datasets, seeds = columns(rows)
    mean = mean_ratio(logs, datasets, seeds, confidence=0.95)
    assert mean.ratio == pytest.approx(math.exp(np.mean(logs)))
    if len(set(zip(datasets, seeds, strict=True))) < 2:
        assert mean.low is None
    else:
        assert mean.low is not None
        assert mean.high is not None
        assert 0 < mean.low <= mean.ratio * (1 + 1e-9)
        assert mean.ratio * (1 - 1e-9) <= mean.high < math.inf


@given(ROWS, st.floats(-2, 2))
def test_an_interval_moves_with_its_values_and_turns_round_with_their_signs(
    rows: list[tuple[float, str, int]], shift: float
) -> None:
    """Tuned / frozen and frozen / tuned say the same; so does a ratio that is twice as large everywhere."""
    logs, datasets, seeds = columns(rows)
    here = interval(logs, datasets, seeds, confidence=0.9)
    moved = interval([log + shift for log in logs], datasets, seeds, confidence=0.9)
    turned = interval([-log for log in logs], datasets, seeds, confidence=0.9)
    if here[0] is None or here[1] is None:
        assert moved == turned == (None, None)
    else:
        # Each is drawn anew: a bootstrap of 4,000 draws tells its standard error to about one percent.
        width = here[1] - here[0]
        assert moved == pytest.approx((here[0] + shift, here[1] + shift), abs=0.1 * width + 1e-9)
        assert turned == pytest.approx((-here[1], -here[0]), abs=0.1 * width + 1e-9)


@given(st.lists(st.floats(0.01, 1), min_size=2, max_size=8))
def test_the_small_sample_correction_is_that_of_the_quadratic_form(heaviness: list[float]) -> None:
    """Against the matrices of the definition: Q = sum w^2 (y - mean)^2 for independent y of one variance."""
    weights = np.array(heaviness) / sum(heaviness)
    apart = np.eye(len(weights)) - weights  # row: y_i less the mean
    form = apart.T @ np.diag(weights**2) @ apart
    expected = np.trace(form), np.trace(form @ form)
    inflation, freedom = small_sample(weights)
    assert inflation == pytest.approx((weights**2).sum() / expected[0])
    assert freedom == pytest.approx(expected[0] ** 2 / expected[1])
    assert 1 - 1e-9 <= freedom <= len(weights) - 1 + 1e-9


def test_an_interval_of_balanced_datasets_is_students_t() -> None:
    """The bootstrap's standard error, corrected, is the textbook's: the t-interval of the datasets' means."""
    means = np.random.default_rng(0).normal(0.1, 0.1, 5)
    rows = [(float(mean), f"d{number}", seed) for number, mean in enumerate(means) for seed in (0, 1)]
    low, high = interval(*columns(rows), confidence=0.95)
    expected = stats.t.interval(0.95, 4, loc=means.mean(), scale=means.std(ddof=1) / math.sqrt(5))
    assert (low, high) == pytest.approx(expected, abs=0.05 * (expected[1] - expected[0]))


def test_the_drawn_standard_error_is_the_one_that_endless_draws_would_give() -> None:
    sums, counts = np.array([3.0, 1.0, 0.5, -2.0]), np.array([6, 2, 2, 1])
    above = sums - counts * (sums.sum() / counts.sum())
    exact = math.sqrt((above**2).sum()) / counts.sum()
    assert standard_error(sums, counts, np.random.default_rng(0)) == pytest.approx(exact, rel=0.04)


def test_datasets_that_agree_by_chance_are_no_surer_than_their_seeds() -> None:
    rows = [(deviation, name, seed) for name in "ab" for seed, deviation in enumerate((-0.1, 0.0, 0.1))]
    low, high = interval(*columns(rows), confidence=0.95)
    assert low is not None
    assert high is not None
    assert low < -0.05 < 0.05 < high


def test_limits_of_two_unlike_datasets_stay_numbers() -> None:
    mean = mean_ratio([-3.0, 3.0], ["a", "b"], [0, 0], confidence=0.999)
    assert (mean.low, mean.high) == pytest.approx((1e-6, 1e6))


def test_equal_pairs_give_equal_intervals_in_any_order() -> None:
    rng = np.random.default_rng(0)
    rows = [(float(rng.normal()), name, seed) for name in "abcd" for seed in range(3)]
    first, second = (mean_ratio(*columns(these), confidence=0.9) for these in (rows, rows[::-1]))
    assert first == second


def test_seeds_of_one_dataset_are_not_taken_for_independent_data() -> None:
    spread = [(0.5 if name in "ab" else -0.5, name, seed) for name in "abcd" for seed in range(50)]
    mean = mean_ratio(*columns(spread), confidence=0.95)
    # Two hundred pairs would be sure of their mean if each were a draw of its own; four datasets are not.
    assert mean.low is not None
    assert mean.high is not None
    assert mean.low < 0.45
    assert mean.high > 2.2


@pytest.mark.parametrize(("datasets", "seeds"), [(2, 1), (3, 1), (3, 3), (6, 3), (12, 3)])
def test_an_interval_covers_a_known_truth_as_often_as_it_says(datasets: int, seeds: int) -> None:
    """Also with few datasets, where a plain percentile bootstrap covers half of the time (docs/science.md)."""
    rng = np.random.default_rng(1)
    covered, boxes, truth = 0, 300, 0.1
    for _ in range(boxes):
        rows = [
            (float(truth + shift + rng.normal(0, 0.05)), f"d{number:02}", seed)
            for number, shift in enumerate(rng.normal(0, 0.1, datasets))
            for seed in range(seeds)
        ]
        low, high = interval(*columns(rows), confidence=0.9)
        assert low is not None
        assert high is not None
        covered += low <= truth <= high
    # 90 % asked for; chance alone moves the rate of 300 boxes by 1.7 points, one standard deviation.
    assert 0.85 <= covered / boxes <= 0.97


def test_a_numerator_at_chance_counts_and_says_so() -> None:
    pairing = tune_to_freeze(select([make_run("tune", 0.15), make_run("freeze", 0.5)]), {})
    assert len(pairing.counted) == 1
    assert pairing.pairs[0].remark == "numerator 0.150 is within 2 times chance (0.100), and counts"
    assert tune_to_freeze(select([make_run("tune", 0.5), make_run("freeze", 0.5)]), {}).pairs[0].remark == ""
    assert tune_to_freeze(select([make_run("tune", 0.15), make_run("freeze", 0.15)]), {}).pairs[0].remark == ""
