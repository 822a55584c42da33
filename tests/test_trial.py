"""A trial's id and seeds follow from what it is, on every machine and in every process."""

import subprocess
import sys
from dataclasses import fields, replace
from typing import Any

import pytest

from fttune.errors import ConfigError
from fttune.trial import HParams, seed_from
from values import HPARAMS, make_trial


def test_an_id_is_the_same_in_another_process() -> None:
    code = "from values import make_trial; t = make_trial(); print(t.id, t.seed_for('init'))"
    trial = make_trial()
    for hash_seed in ("0", "1"):
        told = subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        assert told == [trial.id, str(trial.seed_for("init"))]


def test_a_held_out_fold_and_a_bar_are_part_of_what_a_trial_is_and_their_absence_is_not() -> None:
    trial = make_trial()
    assert trial.id == "c846999f0bf45d34", "as before there were any"
    others = [{"fold": (1, 3)}, {"fold": (2, 3)}, {"bar": ((5, 0.5),)}, {"bar": ((5, 0.6),)}, {"seed": -1}]
    assert len({trial.id, *(replace(trial, **change).id for change in others)}) == 6
    assert replace(trial, seed=-1, fold=(2, 3)).name == "digits/5 T(1-3)R(4) s-1 2/3"


CHANGED = {
    "lr": 0.5,
    "copied_lr_scale": 0.5,
    "momentum": 0.5,
    "weight_decay": 0.5,
    "batch_size": 3,
    "steps": 3,
    "lr_drop_steps": (7,),
    "report_every": 3,
    "views": "crop",
    "image_size": 48,
    "resize": "warp",
    "bn": "batch",
    "biases": "caffe",
    "dropout": "all",
}


@pytest.mark.parametrize("name", [field.name for field in fields(HParams)])
def test_every_setting_changes_the_id(name: str) -> None:
    before = replace(HPARAMS, views="crop") if name == "dropout" else HPARAMS
    after = replace(before, **{name: CHANGED[name]})
    assert make_trial(hparams=after).id != make_trial(hparams=before).id


@pytest.mark.parametrize(
    "change",
    [
        {"dataset": "glyphs"},
        {"images_per_class": 6},
        {"backbone": "alexnet"},
        {"seed": 1},
        {"val_per_class": 3},
        {"test_per_class": None},
        {"data_digest": "e"},
        {"weights_digest": "v"},
    ],
)
def test_everything_a_result_depends_on_changes_the_id(change: dict[str, Any]) -> None:
    assert make_trial(**change).id != make_trial().id


def test_a_pair_shares_subset_initial_values_and_order() -> None:
    frozen, tuned = make_trial("F(1-3)R(4)"), make_trial("T(1-3)R(4)")
    assert frozen.id != tuned.id
    for purpose in ("subset", "init", "order"):
        assert frozen.seed_for(purpose) == tuned.seed_for(purpose)


def test_settings_do_not_move_the_subset() -> None:
    other = make_trial(hparams=replace(HPARAMS, lr=1.0), images_per_class=9)
    assert other.seed_for("subset") == make_trial().seed_for("subset")


def test_each_purpose_has_a_stream_of_its_own() -> None:
    trial = make_trial()
    seeds = {trial.seed_for("subset"), trial.seed_for("init"), trial.seed_for("order")}
    assert len(seeds) == 3
    assert trial.seed_for("subset") != make_trial(seed=1).seed_for("subset")
    assert seed_from("a", 1) != seed_from("a", 2)


@pytest.mark.parametrize(
    "change", [{"lr": 0.0}, {"steps": 0}, {"momentum": 1.0}, {"weight_decay": -1.0}, {"lr": float("nan")}]
)
def test_a_setting_without_meaning_names_its_key(change: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"train.{next(iter(change))} must be"):
        replace(HPARAMS, **change)
