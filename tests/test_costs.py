"""What trials took, and where runs come from: from records alone."""

from dataclasses import replace
from typing import Any

import pytest

from constructed import make_run
from fttune.analysis.costs import costs_sheet
from fttune.analysis.origins import origins
from fttune.analysis.ratios import tune_to_freeze
from fttune.analysis.select import select
from fttune.record import RunRecord

GPU = "NVIDIA H100"


def took(mode: str, seconds: float, *, device: str = "cpu", **changes: Any) -> RunRecord:
    run = make_run(mode, 0.5, **changes)
    return replace(run, seconds=seconds, device=device, images_per_second=12345.6, peak_memory_mb=700.0)


RUNS = [
    *(took("tune", 3600.0 * (1 + seed), device=GPU, seed=seed) for seed in (0, 1, 2)),
    *(took("freeze", 900.0, device=GPU, seed=seed) for seed in (0, 1)),
    took("freeze", 10.0, seed=2),
]


def test_each_spec_on_each_device_is_told_apart() -> None:
    rows = costs_sheet(RUNS, ()).rows
    told = [(row["mode"], row["device"], row["trials"], row["seconds"], row["least"], row["most"]) for row in rows]
    assert told == [
        ("freeze", GPU, 2, 900.0, 900.0, 900.0),
        ("freeze", "cpu", 1, 10.0, 10.0, 10.0),
        ("tune", GPU, 3, 7200.0, 3600.0, 10800.0),
    ]
    assert [row["images/s"] for row in rows] == [12346] * 3


def test_what_a_search_tried_costs_hours_and_moves_no_median() -> None:
    tried = [took("tune", 36.0, device=GPU, seed=-1), replace(took("tune", 3.6, device=GPU, seed=-2), pruned_step=5)]
    sheet = costs_sheet([*RUNS, *tried, took("freeze", 5.0, seed=-1, random_top=3)], ())
    tuned, lone = sheet.rows[2], sheet.rows[3]
    assert (tuned["trials"], tuned["hours"]) == (5, pytest.approx(6.011))
    assert (tuned["seconds"], tuned["least"], tuned["most"]) == (7200.0, 3600.0, 10800.0)
    assert (lone["trials"], lone["seconds"], lone["least"], lone["images/s"]) == (1, None, None, None)
    assert len([note for note in sheet.notes if note.startswith("What a search tried")]) == 1
    assert not [note for note in costs_sheet(RUNS, ()).notes if "search" in note]


def test_gpu_hours_are_of_gpus_alone() -> None:
    sheet = costs_sheet(RUNS, ())
    assert [row["GPU-hours"] for row in sheet.rows] == [0.5, None, 6.0]
    assert [row["hours"] for row in sheet.rows] == [0.5, pytest.approx(10 / 3600), 6.0]
    assert "Trials that shared a GPU are each counted as if they had it alone." in sheet.notes
    assert not [note for note in costs_sheet(RUNS[-1:], ()).notes if "GPU" in note]


def test_a_tuned_trial_is_held_against_its_frozen_partner_on_the_same_device() -> None:
    first = costs_sheet(RUNS, tune_to_freeze(select(RUNS), {}).pairs).notes[0]
    assert first == (
        "net: a tuned trial took 6 times as long as its frozen partner (median of 2 pairs with one new layer, from 4"
        " to 8)."
    )


def test_failed_trials_cost_nothing_that_is_told() -> None:
    assert costs_sheet([replace(RUNS[0], status="failed", error="no")], ()).rows == ()


def test_runs_of_another_origin_than_the_newest_are_stale() -> None:
    old = replace(make_run("tune", 0.5), git_commit="old", fttune_version="0.0.9", torch_version="1")
    middle = replace(make_run("tune", 0.5, seed=1), git_commit="", data_digest="other", torch_version="2")
    new = replace(make_run("tune", 0.5, seed=2), git_commit="new", device=GPU, torch_version="2")
    found = origins([old, middle, new])
    stale = {(one.kind, one.value, one.newest): one.trial_ids for one in found if one.stale}
    assert stale == {
        ("commit", "old", "new"): (old.trial_id,),
        ("commit", "none recorded", "new"): (middle.trial_id,),
        ("fttune", "0.0.9", new.fttune_version): (old.trial_id,),
        ("data of a", "other", new.data_digest): (middle.trial_id,),
    }
    assert [one.kind for one in found] == [
        *("commit", "commit", "commit", "fttune", "fttune", "torch", "torch", "device", "device"),
        *("data of a", "data of a", "weights of net"),
    ]


def test_data_of_one_set_do_not_age_those_of_another() -> None:
    assert not [one for one in origins([make_run("tune", 0.5), make_run("tune", 0.5, dataset="b")]) if one.stale]
    assert origins([replace(make_run("tune", 0.5), status="failed", error="no")]) == []
