"""Val selects, test is reported, and seeds are averaged before anything is chosen."""

from collections.abc import Callable
from dataclasses import replace
from statistics import fmean
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constructed import make_run
from fttune.analysis.compare import compare
from fttune.analysis.ratios import spent, tune_to_freeze
from fttune.analysis.select import choices, select, select_default, setting_of
from fttune.analysis.selection import illusion_sheet, search_sheet
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


def tried(mode: str, *values: tuple[float, float, float], draws: int = 1) -> list[RunRecord]:
    """The runs of a search, on draws of their own: (lr, val, test) of each setting."""
    return [make_run(mode, test, val=val, lr=lr, seed=-1 - draw) for lr, val, test in values for draw in range(draws)]


def repeated(mode: str, lr: float, test: float) -> list[RunRecord]:
    return [make_run(mode, test, val=0.1, lr=lr, seed=seed) for seed in (0, 1)]


def test_a_search_chooses_by_its_own_draws_and_reports_seeds_that_chose_nothing() -> None:
    runs = [*tried("tune", (0.1, 0.9, 0.2), (0.2, 0.5, 0.9)), *repeated("tune", 0.1, 0.6), *repeated("tune", 0.2, 0.9)]
    chosen = select(runs)
    assert [(r.setting[0], r.test, r.seed, r.tried) for r in chosen] == [(0.1, 0.6, 0, 2), (0.1, 0.6, 1, 2)]
    assert (chosen[0].given.trials, chosen[0].given.steps) == (2, 2 * 20)
    own = [r.setting for r in select_default(runs, {setting_of(run) for run in runs if run.lr == 0.2})]
    assert [setting[0] for setting in own] == [0.2, 0.2]
    assert select(tried("tune", (0.1, 0.9, 0.2))) == [], "what was tried is no result"


def test_every_run_of_a_searched_cell_says_whether_it_has_what_was_chosen() -> None:
    tuned = [*tried("tune", (0.1, 0.9, 0.2), (0.2, 0.5, 0.9)), *repeated("tune", 0.1, 0.6), *repeated("tune", 0.2, 0.9)]
    late = replace(tuned[1], trial_id="late", status="failed", val_accuracy=None)
    runs = [*tuned, late, *repeated("freeze", 0.1, 0.6)]
    assert choices(runs) == [True, False, True, True, False, False, False, None, None]


@pytest.mark.parametrize(
    ("tuned", "why"),
    [
        (tried("tune", (0.1, 0.9, 0.2)), "unequal budgets, 1 and 2 settings tried"),
        (tried("tune", (0.1, 0.9, 0.2), (0.2, 0.8, 0.2), draws=2), "unequal budgets, 4 and 2 trials of search"),
    ],
)
def test_searches_of_unequal_budgets_are_no_pair_unless_that_is_asked_for(tuned: list[RunRecord], why: str) -> None:
    frozen = [*tried("freeze", (0.1, 0.5, 0.2), (0.2, 0.6, 0.2)), *repeated("freeze", 0.2, 0.4)]
    runs = [*tuned, *repeated("tune", 0.1, 0.6), *frozen]
    pairing = tune_to_freeze(select(runs), {})
    assert pairing.pairs == ()
    assert {line.partition(": ")[2] for line in pairing.unpaired} == {why}
    for unequal, pairs in ((False, 0), (True, 2)):
        found = compare(runs, by="mode", confidence=0.95, unequal=unequal)
        assert [level.pairs for level in found.levels] == [0, pairs]
        assert bool([note for note in found.notes if "--unequal" in note]) is not unequal


def test_with_unequal_budgets_the_defaults_of_two_sweeps_stay_apart() -> None:
    tuned, frozen = (
        tried("tune", (0.1, 0.9, 0.2), (0.2, 0.5, 0.9), (0.3, 0.5, 0.9)),
        tried("freeze", (0.1, 0.5, 0.2), (0.2, 0.4, 0.2)),
    )
    runs = [*tuned, *repeated("tune", 0.1, 0.6), *repeated("tune", 0.2, 0.9)]
    runs += [*frozen, *repeated("freeze", 0.1, 0.4), *repeated("freeze", 0.2, 0.5)]
    own = {setting_of(run) for run in frozen}
    found = compare(runs, by="mode", confidence=0.95, defaults=own, unequal=True).levels
    assert [(one.held["setting"], one.level, one.runs, one.pairs) for one in found] == [
        ("chosen", "freeze", 2, 0), ("chosen", "tune", 2, 2), ("default", "freeze", 4, 0), ("default", "tune", 4, 4)
    ]  # fmt: skip
    assert found[-1].difference == pytest.approx((2 * 0.2 + 2 * 0.4) / 4), "each with the same rate"


def test_equal_searches_may_choose_what_they_like_and_the_pair_says_what_each_was_given() -> None:
    runs = [*tried("tune", (0.1, 0.9, 0.2), (0.2, 0.8, 0.2)), *repeated("tune", 0.1, 0.6)]
    runs += [*tried("freeze", (0.1, 0.5, 0.2), (0.2, 0.6, 0.2)), *repeated("freeze", 0.2, 0.4)]
    pairs = tune_to_freeze(select(runs), {}).pairs
    assert [pair.ratio for pair in pairs] == pytest.approx([1.5, 1.5])
    assert {str(pair.numerator_given) for pair in pairs} == {"3 trials, 60 steps, 3 s"}, "its search and its own run"
    assert [str(side) for side in spent(pairs)] == ["4 trials, 80 steps, 4 s"] * 2, "the search of a cell counts once"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"batch_size": 4}, "unequal budgets, 320 and 160 images of search"),
        ({"seed": -2}, "searched by other rules, 1 draw and 2 draws"),
        ({"fold": 1, "folds": 2}, "searched by other rules, 1 draw and 1 draw in 2 folds"),
    ],
)
def test_searches_that_showed_other_images_or_judged_otherwise_are_no_pair(change: dict[str, Any], why: str) -> None:
    tuned = [*tried("tune", (0.1, 0.9, 0.2), (0.2, 0.8, 0.2)), *repeated("tune", 0.1, 0.6)]
    frozen = tried("freeze", (0.1, 0.5, 0.2), (0.2, 0.6, 0.2))
    first = 1 if "seed" in change else 2
    frozen = [*(replace(run, **change) for run in frozen[:first]), *frozen[first:]]
    own = [replace(run, batch_size=change.get("batch_size", run.batch_size)) for run in repeated("freeze", 0.2, 0.4)]
    runs = [*tuned, *frozen, *own]
    assert why in tune_to_freeze(select(runs), {}).unpaired[0]
    assert [level.pairs for level in compare(runs, by="mode", confidence=0.95).levels] == [0, 0]
    assert [level.pairs for level in compare(runs, by="mode", confidence=0.95, unequal=True).levels] == [0, 2]


def test_what_was_taken_of_gpus_is_told_with_the_rest() -> None:
    tuned = [*tried("tune", (0.1, 0.9, 0.2), (0.2, 0.8, 0.2)), *repeated("tune", 0.1, 0.6)]
    tuned = [replace(run, seconds=8.0, gpu_seconds=2.0) for run in tuned]
    frozen = [*tried("freeze", (0.1, 0.5, 0.2), (0.2, 0.6, 0.2)), *repeated("freeze", 0.2, 0.4)]
    levels = compare([*tuned, *frozen], by="mode", confidence=0.95).levels
    assert [str(level.given) for level in levels] == ["4 trials, 80 steps, 4 s", "4 trials, 80 steps, 32 s, 8 GPU-s"]
    assert [level.row["given_gpu_seconds"] for level in levels] == [0.0, 8.0]
    (first, _) = tune_to_freeze(select([*tuned, *frozen]), {}).pairs
    assert str(first.numerator_given) == "3 trials, 60 steps, 24 s, 6 GPU-s"


def test_repeats_on_unequal_numbers_of_val_images_are_no_pair() -> None:
    runs = [*tried("tune", (0.1, 0.9, 0.2), (0.2, 0.8, 0.2)), *tried("freeze", (0.1, 0.9, 0.2), (0.2, 0.6, 0.2))]
    tuned, frozen = repeated("tune", 0.1, 0.6), repeated("freeze", 0.1, 0.4)
    assert len(tune_to_freeze(select([*runs, *tuned, *frozen]), {}).pairs) == 2
    more = [replace(run, val_images=50) for run in frozen]
    assert tune_to_freeze(select([*runs, *tuned, *more]), {}).pairs == ()


def test_a_search_that_has_grown_past_its_repeats_is_judged_by_its_own_draws_still() -> None:
    first = [*tried("tune", (0.1, 0.9, 0.2), (0.2, 0.5, 0.9)), *repeated("tune", 0.1, 0.6)]
    lucky = [replace(run, val_accuracy=1.0) for run in repeated("tune", 0.2, 0.9)]  # the default, on seeds that judge
    grown = [*first, *lucky, *tried("tune", (0.3, 0.95, 0.3))]
    for runs in (grown, [replace(run, status="failed") if run.seed == -1 and run.lr == 0.2 else run for run in grown]):
        found = select(runs)
        assert [(r.setting[0], r.tried, r.given.trials) for r in found] == [(0.1, 3, 3)] * 2
        assert {mark for run, mark in zip(runs, choices(runs), strict=True) if run.lr == 0.3} == {True}
    assert [r.setting[0] for r in select([*grown, *repeated("tune", 0.3, 0.7)])] == [0.3, 0.3]


def test_a_search_that_has_grown_past_the_default_keeps_its_budget_and_its_pair() -> None:
    runs = [*tried("tune", (0.1, 0.9, 0.2), (0.2, 0.5, 0.9), (0.3, 0.95, 0.3)), *repeated("tune", 0.1, 0.6)]
    runs += [*tried("freeze", (0.1, 0.9, 0.2), (0.2, 0.5, 0.9), (0.3, 0.8, 0.3)), *repeated("freeze", 0.1, 0.5)]
    assert {(r.mode, r.setting[0], r.tried, r.given.trials) for r in select(runs)} == {
        ("tune", 0.1, 3, 3), ("freeze", 0.1, 3, 3)
    }  # fmt: skip
    assert len(tune_to_freeze(select(runs), {}).pairs) == 2
    notes = compare(runs, by="mode", confidence=0.95).notes
    assert notes == ("cells whose search is not at its end: its choice is not repeated yet: 1",)


def test_seeds_of_more_settings_than_a_search_tried_stay_a_grid() -> None:
    grid = [run for mode in ("tune", "freeze") for lr in (0.1, 0.2) for run in repeated(mode, lr, 0.5 + lr)]
    grid = [replace(run, val_accuracy=run.test_accuracy) for run in grid]
    begun = [*grid, *tried("tune", (0.1, 0.5, 0.2)), *tried("freeze", (0.1, 0.5, 0.2))]
    assert select(begun) == select(grid)
    assert choices(begun) == [None] * len(begun)
    by_rate = compare(begun, by="lr", confidence=0.95)
    assert by_rate.levels == compare(grid, by="lr", confidence=0.95).levels


def test_a_setting_that_failed_was_given_like_any_other() -> None:
    runs = [*tried("tune", (0.1, 0.9, 0.2), (0.2, 0.8, 0.2)), *repeated("tune", 0.1, 0.6)]
    frozen = tried("freeze", (0.1, 0.5, 0.2), (0.2, 0.6, 0.2))
    frozen[0] = replace(frozen[0], status="failed", val_accuracy=None, test_accuracy=None)
    pairs = tune_to_freeze(select([*runs, *frozen, *repeated("freeze", 0.2, 0.4)]), {}).pairs
    assert [str(pair.denominator_given) for pair in pairs] == ["3 trials, 60 steps, 3 s"] * 2


def test_where_there_are_fewer_images_than_a_batch_holds_equal_searches_are_equal() -> None:
    runs = [*tried("tune", (0.1, 0.9, 0.2), (0.2, 0.8, 0.2)), *repeated("tune", 0.1, 0.6)]
    more = [replace(run, images_per_class=50, train_images=500, trial_id=f"more {n}") for n, run in enumerate(runs)]
    few = [replace(run, train_images=3) for run in runs]
    found = compare([*few, *more], by="images_per_class", confidence=0.95)
    assert [level.pairs for level in found.levels] == [0, 2]
    assert not [note for note in found.notes if "unequal" in note]


def test_a_fold_that_failed_was_given_like_any_other() -> None:
    def searched_in_folds(mode: str) -> list[RunRecord]:
        runs = tried(mode, (0.1, 0.9, 0.2), (0.2, 0.8, 0.2))
        return [replace(run, fold=fold, folds=2, train_images=4 + fold) for run in runs for fold in (1, 2)]

    frozen = searched_in_folds("freeze")
    frozen[2] = replace(frozen[2], status="failed", val_accuracy=None, test_accuracy=None, train_images=None)
    runs = [*searched_in_folds("tune"), *repeated("tune", 0.1, 0.6), *frozen, *repeated("freeze", 0.1, 0.4)]
    assert len(tune_to_freeze(select(runs), {}).pairs) == 2


def test_a_training_that_a_pruner_ended_stands_for_no_rate() -> None:
    runs = tried("tune", (0.1, 0.9, 0.2), (0.2, 0.8, 0.3), (0.3, 0.7, 0.4))
    runs[0] = replace(runs[0], pruned_step=5)
    found = compare(runs, by="lr", confidence=0.95)
    assert [level.level for level in found.levels] == [0.2, 0.3]
    assert "runs that a pruner ended before their last step, left out: 1" in found.notes


@pytest.mark.parametrize("shown", [lambda run: run.seed >= 0, lambda run: run.seed > -2, lambda run: run.lr > 0.15])
def test_a_condition_hides_runs_and_never_what_a_search_chose_among(shown: Callable[[RunRecord], bool]) -> None:
    runs = [*tried("tune", (0.1, 0.9, 0.2), (0.2, 0.5, 0.9), draws=2), *repeated("tune", 0.1, 0.6)]
    runs += [replace(run, val_accuracy=1.0) for run in repeated("tune", 0.2, 0.9)]
    runs[0] = replace(runs[0], val_accuracy=0.3)  # the first draw alone would choose the other
    some = {run.trial_id for run in runs if shown(run)}
    levels = compare(runs, by="mode", shown=some, confidence=0.95).levels
    found = [(one.mean, one.given.trials) for one in levels]
    assert found == ([(pytest.approx(0.6), 6)] if shown(repeated("tune", 0.1, 0.6)[0]) else [])


def test_a_condition_on_a_grid_is_met_before_anything_is_chosen() -> None:
    runs = searched()
    some = {run.trial_id for run in runs if run.lr > 0.15}
    (level,) = compare(runs, by="mode", shown=some, confidence=0.95).levels
    assert (level.mean, level.runs) == (0.9, 2)


def test_two_specs_of_one_mode_both_count_and_each_finds_its_partner() -> None:
    mixed = [
        replace(make_run("tune", accuracy), trial_id=spec, mode="mixed", spec=spec)
        for spec, accuracy in (("F(1-3)T(4-7)R(8)", 0.2), ("F(1-5)T(6-7)R(8)", 0.8))
    ]
    first, second = compare([make_run("freeze", 0.4), *mixed], by="mode", confidence=0.95).levels
    assert (first.level, second.level) == ("freeze", "mixed")
    assert (second.runs, second.mean, second.pairs) == (2, 0.5, 2)
    assert second.difference == pytest.approx(0.1)


def test_the_whole_list_names_what_failed() -> None:
    runs = [*tried("tune", (0.1, 0.9, 0.5), (0.2, 0.5, 0.6)), *repeated("tune", 0.1, 0.5)]
    runs[1] = replace(runs[1], status="failed", val_accuracy=None, test_accuracy=None)
    sheet = search_sheet(runs, [])
    assert sheet.rows[0]["settings"] == 2
    tried_list = sheet.facts["tried"]
    assert isinstance(tried_list, list)
    assert [(one["lr"], one["status"], one["chosen"]) for one in tried_list] == [
        (0.1, "done", True), (0.2, "failed", False)
    ]  # fmt: skip


@given(st.permutations([0.0, 0.2, 0.5, 1.0]))
def test_hindsight_shows_what_val_missed_and_changes_nothing(tests: list[float]) -> None:
    runs = tried("tune", *((0.1 * (place + 1), 0.9 - 0.1 * place, test) for place, test in enumerate(tests)))
    (row,) = illusion_sheet(runs).rows
    assert (row["test of chosen"], row["best test in hindsight"], row["gap"]) == (tests[0], 1.0, 1.0 - tests[0])


def test_equal_means_over_the_seeds_are_no_gain() -> None:
    right = {0.1: (20, 20, 22), 0.2: (20, 21, 21)}  # of 44 images
    runs = tried("tune", (0.1, 0.9, 0.5), (0.2, 0.5, 0.6))
    runs += [
        make_run("tune", n / 44, val=0.5, lr=lr, seed=seed) for lr, some in right.items() for seed, n in enumerate(some)
    ]
    assert fmean(one / 44 - other / 44 for one, other in zip(*right.values(), strict=True)) != 0
    (row,) = search_sheet(runs, [setting_of(runs[-1])]).rows
    assert (str(row["chosen"])[:6], row["gain"]) == ("lr 0.1", 0.0)


def test_of_two_defaults_the_same_is_shown_in_whatever_order_they_were_repeated() -> None:
    runs = tried("tune", (0.1, 0.9, 0.5), (0.2, 0.5, 0.6), (0.3, 0.4, 0.6))
    repeats = [*repeated("tune", 0.1, 0.5), *repeated("tune", 0.2, 0.4), *repeated("tune", 0.3, 0.3)]
    defaults = [setting_of(run) for run in repeats[2:]]
    for some in (repeats, repeats[::-1]):
        (row,) = search_sheet([*runs, *some], defaults).rows
        assert row["test of default"] == pytest.approx(0.4)


@pytest.mark.parametrize(("folds", "chosen"), [(1, 0.1), (3, 0.2)], ids=["val has as many", "folds have more"])
def test_what_was_searched_on_val_and_on_folds_is_not_averaged(folds: int, chosen: float) -> None:
    on_val = tried("tune", (0.1, 0.9, 0.5), (0.2, 0.5, 0.6))
    on_folds = [
        replace(run, trial_id=f"{run.trial_id}-{fold}", fold=fold, folds=3)
        for run in tried("tune", (0.1, 0.2, 0.5), (0.2, 0.7, 0.6))
        for fold in range(1, folds + 1)
    ]
    repeats = repeated("tune", 0.1, 0.5) + repeated("tune", 0.2, 0.6)
    found = select([*on_folds, *on_val, *repeats])
    assert {result.setting[0] for result in found} == {chosen}
    assert found[0].given.trials == (2 if folds == 1 else 6)


@pytest.mark.parametrize(
    "stray",
    [
        [make_run("tune", 0.9, lr=0.3, seed=-1)],
        [make_run("tune", 0.9, seed=-1)],
        [make_run("freeze", 0.9, lr=0.3, seed=-1, fold=(0, 2))],
        [make_run("freeze", 0.9, seed=-1, fold=(0, 2))],
    ],
    ids=["another setting", "the same setting", "a fold of another", "a fold of the same"],
)
def test_a_stray_trial_of_a_search_takes_nothing_away_from_runs_without_one(stray: list[RunRecord]) -> None:
    runs = [make_run(mode, 0.5, seed=seed) for mode in ("tune", "freeze") for seed in (0, 1)]
    assert select([*runs, *stray]) == select(runs)
    assert len(tune_to_freeze(select([*runs, *stray]), {}).pairs) == 2
