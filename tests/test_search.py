"""The list of settings is drawn once, the sweep's own first, and is the same for every cell."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fttune.config import Sweep
from fttune.plan import BackboneFacts, DatasetFacts, Facts, expand
from fttune.sweep.search import draw_settings


def make_sweep(**search: object) -> Sweep:
    grid = {"datasets": {"digits": [5]}, "backbones": ["tiny"], "random_top": [1, 2], "seeds": [0, 1]}
    return Sweep.model_validate({"name": "small", "grid": grid, "search": search})


def test_without_a_search_there_is_one_setting() -> None:
    sweep = make_sweep()
    assert draw_settings(sweep) == [sweep.train.hparams()]


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6))
def test_a_longer_list_starts_with_the_shorter_and_both_with_the_default(count: int, more: int) -> None:
    short, long = (draw_settings(make_sweep(sampler="shared", settings=n)) for n in (count, count + more))
    assert len(short) == count
    assert long[:count] == short
    assert short[0] == make_sweep().train.hparams()
    assert len(set(long)) == count + more


def test_settings_fill_their_ranges_evenly_in_the_logarithm() -> None:
    space = {"lr": (1e-4, 1e-1), "weight_decay": (1e-6, 1e-2)}
    drawn = draw_settings(make_sweep(sampler="shared", settings=65, space=space))[1:]
    for name, (low, high) in space.items():
        values = [getattr(hparams, name) for hparams in drawn]
        assert all(low <= value <= high for value in values)
        middle = (low * high) ** 0.5
        assert sum(value < middle for value in values) == pytest.approx(32, abs=2)


def test_every_cell_is_given_the_same_list() -> None:
    sweep = make_sweep(sampler="shared", settings=3)
    facts = Facts(
        datasets={"digits": DatasetFacts(digest="d", val=2, test=5)},
        backbones={"tiny": BackboneFacts(depth=4, weights_digest="w")},
    )
    trials = expand(sweep, facts, draw_settings(sweep))
    assert len(trials) == 2 * 2 * 3 * 2
    lists = {(trial.cell, trial.seed): [] for trial in trials}
    for trial in trials:
        lists[trial.cell, trial.seed].append(trial.hparams)
    assert {tuple(given) for given in lists.values()} == {tuple(draw_settings(sweep))}
