"""Tests by dataset: exact where they can be, blind to how many seeds a dataset has, adjusted for how many there are."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fttune.analysis.significance import EXACT_UP_TO, dataset_sums, flip_test, holm, sign_test, significance

SUMS = st.lists(st.floats(-1, 1), min_size=2, max_size=7)
P_VALUES = st.lists(st.floats(0, 1), max_size=9)


@given(SUMS)
def test_every_way_to_flip_the_datasets_is_counted(sums: list[float]) -> None:
    """Against the definition, one way after the other."""
    reached = abs(sum(sums)) - 1e-9 * sum(map(abs, sums))
    ways = [abs(float(np.dot(signs, sums))) for signs in product((1, -1), repeat=len(sums))]
    assert flip_test(np.array(sums)) == pytest.approx(np.mean([way >= reached for way in ways]))


@given(SUMS, st.floats(0.1, 10))
def test_direction_and_scale_do_not_change_a_p_value(sums: list[float], scale: float) -> None:
    here = flip_test(np.array(sums))
    assert flip_test(-np.array(sums)) == here
    assert flip_test(scale * np.array(sums)) == pytest.approx(here)
    assert 2 / 2 ** len(sums) <= here <= 1


def test_flips_of_many_datasets_are_drawn_and_agree_with_all_of_them() -> None:
    sums = np.random.default_rng(3).normal(0.3, 0.5, EXACT_UP_TO + 1)
    every = (np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums))) & 1
    exact = np.mean(np.abs((1 - 2 * every) @ sums) >= abs(sums.sum()) - 1e-9)
    drawn = flip_test(sums)
    assert 0.02 < exact < 0.5
    assert drawn == pytest.approx(exact, abs=0.015)  # 20,000 draws: 0.0035 is one standard deviation at most
    assert drawn == flip_test(sums[::-1])
    assert flip_test(np.ones(40)) == pytest.approx(1 / 20_001)  # never 0


@given(st.integers(0, 30), st.integers(0, 30))
def test_the_sign_test_is_the_binomial_one(above: int, below: int) -> None:
    expected = stats.binomtest(above, above + below).pvalue if above + below else 1.0
    assert sign_test(above, below) == pytest.approx(expected)


def test_more_seeds_of_the_same_datasets_prove_no_more() -> None:
    rng = np.random.default_rng(0)
    rows = [(name, float(rng.normal(0.5, 0.1))) for name in "abcd" for _ in range(100)]
    found = significance([value for _, value in rows], [name for name, _ in rows])
    assert found is not None
    assert (found.datasets, found.above, found.below, found.exact) == (4, 4, 0, True)
    assert found.sign_p == found.flip_p == found.least_p == 2 / 16


def test_one_dataset_alone_is_not_tested() -> None:
    assert significance([0.1] * 9, ["a"] * 9) is None
    assert significance([], []) is None


def test_sums_are_by_dataset_in_the_order_of_names() -> None:
    assert dataset_sums([1.0, 2.0, 4.0], ["b", "a", "b"]).tolist() == [2.0, 5.0]


def test_holm_by_hand() -> None:
    # Sorted 0.01, 0.03, 0.04 times 3, 2, 1; the last is raised to the one before it.
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.6, 0.9]) == [1, 1]
    assert holm([]) == []


@given(P_VALUES)
def test_holm_lies_between_the_raw_value_and_bonferronis_and_keeps_the_order(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(raw <= one <= min(1, len(p_values) * raw) + 1e-12 for raw, one in zip(p_values, adjusted, strict=True))
    ranked = [one for _, one in sorted(zip(p_values, adjusted, strict=True))]
    assert ranked == sorted(ranked)


@pytest.mark.parametrize("datasets", [6, 9])
def test_without_a_difference_a_test_rejects_no_more_often_than_it_says(datasets: int) -> None:
    """Three seeds of each dataset share its deviation: taken for independent data they would reject far too often."""
    rng = np.random.default_rng(2)
    names = [f"d{number}" for number in range(datasets) for _ in range(3)]
    rejected = naive = 0
    for _ in range(400):
        values = np.repeat(rng.normal(0, 0.1, datasets), 3) + rng.normal(0, 0.02, 3 * datasets)
        found = significance(values.tolist(), names)
        assert found is not None
        rejected += found.flip_p <= 0.05
        naive += bool(2 * stats.t.sf(abs(values.mean()) / stats.sem(values), len(values) - 1) <= 0.05)
    assert 0.01 <= rejected / 400 <= 0.08
    assert naive / 400 > 0.15
