"""Val selects, test is reported, and seeds are averaged before anything is chosen."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constructed import make_run
from fttune.analysis.ratios import tune_to_freeze
from fttune.analysis.select import select
from fttune.errors import StoreError
from fttune.record import RunRecord


def searched() -> list[RunRecord]:
    """Two settings, two seeds: lr 0.1 is better on val, lr 0.2 on test."""
    return [
        make_run("tune", test, val=val, lr=lr, seed=seed)
        for lr, seed, val, test in [(0.1, 0, 0.9, 0.5), (0.1, 1, 0.7, 0.5), (0.2, 0, 0.6, 0.9), (0.2, 1, 0.8, 0.9)]
    ]


def test_the_setting_with_the_better_mean_val_is_reported_on_test() -> None:
    chosen = select(searched())
    assert [(r.setting[0], r.test, r.seed, r.tried) for r in chosen] == [(0.1, 0.5, 0, 2), (0.1, 0.5, 1, 2)]


@given(st.permutations([0.0, 0.2, 0.5, 1.0]))
def test_no_test_accuracy_ever_changes_what_is_chosen(tests: list[float]) -> None:
    runs = [replace(run, test_accuracy=test) for run, test in zip(searched(), tests, strict=True)]
    assert [r.trial_id for r in select(runs)] == [r.trial_id for r in select(searched())]


@given(st.permutations(range(4)))
def test_the_order_of_the_records_does_not_matter(order: list[int]) -> None:
    runs = searched()
    assert select([runs[place] for place in order]) == select(runs)


def test_a_setting_with_fewer_seeds_is_not_compared() -> None:
    lucky = make_run("tune", 0.1, val=1.0, lr=0.3, seed=0)
    assert {r.setting[0] for r in select([*searched(), lucky])} == {0.1}


def test_failed_trials_do_not_count() -> None:
    runs = [replace(run, status="failed") for run in searched()]
    assert select(runs) == []


@pytest.mark.parametrize("lost", ["val_accuracy", "test_accuracy", "classes"])
def test_a_finished_run_without_a_number_is_an_error_and_not_a_zero(lost: str) -> None:
    broken = replace(make_run("tune", 0.5), **{lost: None})
    with pytest.raises(StoreError, match=f"{lost}, but run {broken.trial_id} of a has none"):
        select([broken])


def test_equal_settings_on_val_go_to_the_lowest_and_not_to_the_better_on_test() -> None:
    runs = [make_run("tune", test, val=0.5, lr=lr) for lr, test in [(0.2, 0.9), (0.1, 0.1), (0.3, 0.8)]]
    assert [r.setting[0] for r in select(runs)] == [0.1]


def test_other_conditions_are_other_cells() -> None:
    runs = [make_run("tune", 0.5), make_run("tune", 0.6, steps=99), make_run("tune", 0.7, views="crop")]
    assert len(select(runs)) == 3
    assert {r.tried for r in select(runs)} == {1}


@pytest.mark.parametrize("change", [{"biases": "caffe"}, {"dropout": "all"}, {"bn": "batch"}, {"steps": 7}])
def test_runs_of_other_rules_are_no_pair(change: dict[str, Any]) -> None:
    runs = [make_run("tune", 0.5), replace(make_run("freeze", 0.4), **change)]
    assert tune_to_freeze(select(runs), {}).pairs == ()
    assert len(tune_to_freeze(select([replace(run, **change) for run in runs]), {}).pairs) == 1
