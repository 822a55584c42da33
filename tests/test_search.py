"""The list of settings is drawn once, the sweep's own first, and is the same for every cell."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fttune.config import Sweep
from fttune.errors import ConfigError
from fttune.space import OF_TUNED, Space
from fttune.sweep.search import draw_settings
from fttune.trial import SEARCHED


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


def test_whole_numbers_and_choices_are_drawn_as_such_and_what_follows_from_steps_follows() -> None:
    space = {"batch_size": [4, 6], "steps": [10, 1000], "bn": ["source", "batch"], "momentum": {"choices": [0, 0.9]}}
    drawn = draw_settings(make_sweep(sampler="shared", settings=65, space=space))[1:]
    for name, values in {"batch_size": {4, 5, 6}, "bn": {"source", "batch"}, "momentum": {0, 0.9}}.items():
        assert {getattr(hparams, name) for hparams in drawn} == values
    assert all(isinstance(hparams.steps, int) and 10 <= hparams.steps <= 1000 for hparams in drawn)
    assert all(hparams.lr_drop_steps == (max(1, int(hparams.steps * 2 / 3)),) for hparams in drawn)


def test_where_no_copied_layer_is_tuned_no_setting_is_spent_on_them() -> None:
    sweep = make_sweep(sampler="shared", settings=9, space={"lr": [0.001, 1], "copied_lr_scale": [0.01, 1]})
    frozen, tuned = (draw_settings(sweep, tuned=tuned) for tuned in (False, True))
    assert [hparams.lr for hparams in frozen] == [hparams.lr for hparams in tuned]
    assert len(set(frozen)) == len(set(tuned)) == 9, "as many that differ"
    assert {hparams.copied_lr_scale for hparams in frozen} == {sweep.train.copied_lr_scale}


@pytest.mark.parametrize(("space", "count"), [({"copied_lr_scale": [0.01, 1]}, "0|1"), ({"lr": [0.1, 0.2, 0.3]}, "3")])
def test_a_space_of_too_few_settings_is_one_line(space: dict[str, object], count: str) -> None:
    with pytest.raises(ConfigError, match=rf"8 settings are asked for, but the space has ({count}) that differ"):
        draw_settings(make_sweep(sampler="shared", space=space), tuned=False)


def test_what_can_be_searched_is_what_the_analysis_takes_for_searched() -> None:
    assert set(Space.model_fields) == set(SEARCHED) > set(OF_TUNED)
