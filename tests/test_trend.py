"""The smooth model: a line through known truths, errors that count datasets, and a word where it knows nothing."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression

from fttune.analysis.least_squares import LeastSquares
from fttune.analysis.ratios import Pair
from fttune.analysis.trend import DISTANCE, IMAGES, Trend

SPLITS = ((0.1, 5), (0.1, 100), (0.3, 5), (0.3, 25), (0.5, 25), (0.5, 100), (0.2, 50))


def truth(distance: float, images: float) -> float:
    return 0.05 + 0.4 * (distance - 0.3) + 0.03 * math.log(images / 20)


def make_pair(distance: float, images: int, log: float, *, seed: int = 0, name: str = "", flagged: str = "") -> Pair:
    return Pair(
        dataset=name or f"d{distance}", images_per_class=images, backbone="net", seed=seed, label="R 1",
        numerator=math.exp(log) / 2, denominator=0.5, numerator_id="t", denominator_id="f", flagged=flagged,
        distance=distance,
    )  # fmt: skip


EXACT = [make_pair(distance, images, truth(distance, images)) for distance, images in SPLITS]


def noisy(datasets: int, rng: np.random.Generator, seeds: int = 2) -> list[Pair]:
    """Datasets that deviate from the truth by 0.1 each, and their seeds by 0.05."""
    found: list[Pair] = []
    for number, distance in enumerate(rng.uniform(0.05, 0.55, datasets)):
        shift = rng.normal(0, 0.1)
        for images in rng.choice((1, 5, 10, 25, 50, 100), 2, replace=False):
            for seed in range(seeds):
                log = truth(distance, images) + shift + rng.normal(0, 0.05)
                found.append(make_pair(float(distance), int(images), float(log), seed=seed, name=f"d{number}"))
    return found


@given(st.floats(0.1, 0.5), st.floats(5, 100))
def test_a_truth_that_is_a_plane_is_found_again(distance: float, images: float) -> None:
    found = Trend.fit(EXACT).at(distance, images)
    assert found.ratio == pytest.approx(math.exp(truth(distance, images)))
    assert found.low == pytest.approx(found.ratio, rel=1e-6)
    assert found.high == pytest.approx(found.ratio, rel=1e-6)


def test_the_coefficients_are_scikit_learns() -> None:
    pairs = noisy(8, np.random.default_rng(0))
    trend = Trend.fit(pairs)
    rows = [(pair.distance, math.log(pair.images_per_class)) for pair in pairs]
    model = LinearRegression().fit(rows, [pair.log_ratio for pair in pairs])
    assert trend.terms == (DISTANCE, IMAGES)
    assert trend.fitted is not None
    assert trend.fitted.coefficients == pytest.approx([model.intercept_, *model.coef_])


def test_errors_of_clusters_of_one_are_the_textbooks_for_uncorrelated_values() -> None:
    """CR2 with one observation a cluster is MacKinnon and White's HC2."""
    rng = np.random.default_rng(1)
    terms = np.column_stack([np.ones(9), rng.normal(size=9)])
    values = rng.normal(size=9)
    fitted = LeastSquares.fit(terms, values, [str(number) for number in range(9)])
    inverse = np.linalg.inv(terms.T @ terms)
    leverage = np.einsum("ij,jk,ik->i", terms, inverse, terms)
    variance = inverse @ (terms.T * (fitted.residuals**2 / (1 - leverage))) @ terms @ inverse
    assert [fitted.at(row).error ** 2 for row in np.eye(2)] == pytest.approx(np.diag(variance))


def test_a_mean_of_balanced_clusters_has_students_error_and_freedom() -> None:
    means = np.array([0.1, 0.3, -0.2, 0.5])
    fitted = LeastSquares.fit(np.ones((12, 1)), np.repeat(means, 3), [name for name in "abcd" for _ in range(3)])
    estimate = fitted.at(np.ones(1))
    assert estimate.value == pytest.approx(means.mean())
    assert estimate.error == pytest.approx(means.std(ddof=1) / 2)
    assert estimate.freedom == pytest.approx(3)


def test_more_seeds_of_the_same_datasets_make_it_no_surer() -> None:
    pairs = noisy(5, np.random.default_rng(0), seeds=1)
    often = [replace(pair, seed=seed) for pair in pairs for seed in range(20)]
    once, many = Trend.fit(pairs).at(0.3, 20), Trend.fit(often).at(0.3, 20)
    assert (many.ratio, many.low, many.high) == pytest.approx((once.ratio, once.low, once.high))


@given(st.permutations(EXACT[:5]))
def test_the_order_of_the_pairs_does_not_matter(pairs: list[Pair]) -> None:
    here, there = Trend.fit(pairs).at(0.25, 10), Trend.fit(EXACT[:5]).at(0.25, 10)
    assert here.ratio == pytest.approx(there.ratio)
    assert here.low == pytest.approx(there.low)


def test_outside_of_what_was_measured_it_says_so() -> None:
    trend = Trend.fit(noisy(7, np.random.default_rng(0)))
    assert trend.at(0.3, 20).supported
    assert trend.at(0.3, 20).why == ""
    near, far, many = trend.at(0.3, 20), trend.at(0.9, 20), trend.at(0.3, 5000)
    assert (far.supported, many.supported) == (False, False)
    assert far.why.startswith("distance 0.900 is outside the measured 0.")
    assert many.why == "5000 images per class are outside the measured 1 to 100"
    assert near.low is not None
    assert near.high is not None
    assert far.low is not None
    assert far.high is not None
    assert near.high / near.low < far.high / far.low


def test_a_corner_between_measured_places_is_outside_too() -> None:
    """Near sets with few images and far ones with many: within both ranges, yet nothing was seen near and with many."""
    diagonal = [(0.1, 5), (0.15, 5), (0.2, 10), (0.3, 25), (0.35, 25), (0.45, 100), (0.5, 100)]
    trend = Trend.fit([make_pair(distance, images, truth(distance, images)) for distance, images in diagonal])
    assert trend.at(0.3, 25).supported
    assert trend.at(0.1, 100).why == "no dataset was measured at such a distance with so many images per class"


def test_flagged_pairs_and_pairs_without_a_distance_are_left_out() -> None:
    others = [replace(EXACT[0], flagged="near chance", numerator=0.01), replace(EXACT[0], distance=None, numerator=0.9)]
    assert Trend.fit([*EXACT, *others]).at(0.3, 20).ratio == Trend.fit(EXACT).at(0.3, 20).ratio
    assert (Trend.fit([*EXACT, *others]).pairs, Trend.fit(EXACT).datasets) == (7, 4)


def test_no_pair_no_number() -> None:
    found = Trend.fit([]).at(0.3, 20)
    assert (found.ratio, found.low, found.supported) == (None, None, False)
    assert found.why == "no counted pair with a distance"


def test_one_dataset_has_no_interval_and_two_have_no_slope_over_distance() -> None:
    one, two = Trend.fit(EXACT[:2]), Trend.fit(EXACT[:4])
    assert (one.terms, one.at(0.1, 5).low, one.at(0.1, 5).new_low) == ((), None, None)
    assert two.terms == (IMAGES,)
    assert two.at(0.2, 20).low is not None
    assert two.at(0.2, 20).why == "no slope over distance: it takes three datasets at different distances, not 2"
    alike = Trend.fit([make_pair(0.2, images, 0.1 * images, name=name) for name in "abc" for images in (1, 5)])
    assert alike.terms == (IMAGES,)


def test_a_slope_that_one_dataset_alone_would_determine_is_not_fitted() -> None:
    pairs = [make_pair(0.1, 5, 0.1), make_pair(0.2, 5, 0.2), make_pair(0.3, 5, 0.0), make_pair(0.3, 100, 0.9)]
    assert Trend.fit(pairs).terms == (DISTANCE,)


@pytest.mark.parametrize("datasets", [3, 6, 12])
def test_its_intervals_cover_a_known_truth_as_often_as_they_say(datasets: int) -> None:
    rng = np.random.default_rng(5)
    place, boxes = (0.3, 20.0), 200
    mean = new = 0
    for _ in range(boxes):
        found = Trend.fit(noisy(datasets, rng), confidence=0.9).at(*place)
        assert found.low is not None
        assert found.high is not None
        assert found.new_low is not None
        assert found.new_high is not None
        another = math.exp(truth(*place) + rng.normal(0, 0.1) + rng.normal(0, 0.025))
        mean += found.low <= math.exp(truth(*place)) <= found.high
        new += found.new_low <= another <= found.new_high
    # 90 % asked for; chance alone moves the rate of 200 by 2.1 points, one standard deviation.
    assert 0.84 <= mean / boxes <= 0.98
    assert 0.84 <= new / boxes <= 0.99
