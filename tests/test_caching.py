"""What is kept saves more than it costs, fits, and changes no result."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from test_cost import MODEL, record_of

from fttune.bundle import bundle
from fttune.caching import bundles, choose, settle, told, without
from fttune.cost import CostModel, jobs
from values import HPARAMS, make_trial

LONG = replace(HPARAMS, steps=2000, report_every=200)
TRIALS = [
    make_trial(spec, hparams=LONG, seed=s) for spec in ("F(1)R(2-4)", "F(1-2)R(3-4)", "F(1-3)R(4)") for s in (0, 1)
]
# Two seeds of 50 images, 20 val and 50 test images, 400, 300, 200 bytes each.
BYTES = {1: 170 * 400, 2: 170 * 300, 3: 170 * 200}


def test_long_trainings_keep_every_layer() -> None:
    layers = choose(MODEL, [*TRIALS, make_trial()], 1e9)
    assert {layer.depth: layer.bytes for layer in layers} == BYTES
    assert all(layer.kept for layer in layers)
    assert [job.depths for job in bundles(settle(MODEL, TRIALS, 1e9), TRIALS)] == [(1, 2, 3)] * 5
    assert told(layers)[0].startswith("outputs of frozen layers take 0.00015 GB and save about ")
    assert len(told(layers)) == 1


@given(st.integers(0, 200_000))
def test_what_is_kept_fits_and_the_most_worthy_come_first(room: int) -> None:
    layers = choose(MODEL, TRIALS, room)
    assert sum(layer.bytes for layer in layers if layer.kept) <= room
    worth = [layer.saves / layer.bytes for layer in layers]
    assert worth == sorted(worth, reverse=True)
    assert all(layer.kept or "cache_gb" in layer.why for layer in layers)
    assert layers[0].kept == (room >= layers[0].bytes)


def test_a_short_training_on_many_views_does_not_pay_for_them() -> None:
    trial = make_trial("F(1-3)R(4)", hparams=replace(HPARAMS, views="fixed-64"))
    (layer,) = choose(MODEL, [trial], 1e9)
    assert (layer.kept, layer.why) == (False, "recomputing is as cheap")
    assert [job.depths for job in without(bundle([trial]), [layer.output])] == [()]
    assert told([layer]) == [
        "not kept, but computed at each step: tiny on digits, 3 frozen layers (0.00065 GB): recomputing is as cheap"
    ]


def test_a_layer_that_a_pass_for_a_deeper_one_reaches_anyway_costs_no_pass() -> None:
    many = replace(HPARAMS, views="fixed-16")
    deep = [make_trial("F(1-3)R(4)", hparams=replace(many, lr=0.01 * rate)) for rate in range(1, 25)]
    shallow = make_trial("F(1)R(2-4)", hparams=many)
    (alone,) = choose(MODEL, [shallow], 1e9)
    below, above = sorted(choose(MODEL, [*deep, shallow], 1e9), key=lambda layer: layer.depth)
    assert (alone.kept, below.kept, above.kept) == (False, True, True)
    assert below.saves > 0 > alone.saves
    other = [replace(trial, seed=7) for trial in deep]
    below, above = sorted(choose(MODEL, [*other, shallow], 1e9), key=lambda layer: layer.depth)
    assert (below.kept, above.kept) == (False, True), "of other images"


def test_classifiers_whose_features_are_not_kept_are_jobs_of_their_own() -> None:
    trials = [make_trial("F(1-3)R(4)", hparams=replace(HPARAMS, lr=lr, views="flip")) for lr in (0.1, 0.2, 0.3)]
    assert [len(job.trials) for job in bundle(trials)] == [3]
    assert [job.trials for job in bundles(settle(MODEL, trials, 0), trials)] == [(trial,) for trial in trials]
    assert bundles(settle(MODEL, trials, 1e9), trials) == bundle(trials)


def test_what_is_not_known_is_kept_where_there_is_any_room() -> None:
    unknown = CostModel(times={}, images={})
    assert choose(unknown, TRIALS, 0) == []
    assert not settle(unknown, TRIALS, 1).computed
    assert all(not job.depths for job in bundles(settle(unknown, TRIALS, 0), TRIALS))


def test_what_is_computed_at_each_step_costs_what_it_costs() -> None:
    kept, computed = settle(MODEL, TRIALS, 1e9), settle(MODEL, TRIALS, 0)
    for trial in TRIALS:
        as_crops = replace(trial, hparams=replace(trial.hparams, views="crop"))
        assert computed.seconds(trial) == MODEL.seconds(as_crops)
        assert (computed.seconds(trial) or 0) > (kept.seconds(trial) or 0)
    assert kept.features(TRIALS)
    assert not computed.features(TRIALS)
    slow = sum(jobs(computed, bundles(computed, TRIALS)) or [])
    assert slow == sum(computed.seconds(trial) or 0 for trial in TRIALS)


def test_what_finished_trials_took_is_held_against_what_they_did() -> None:
    computed, trial = settle(MODEL, TRIALS, 0), TRIALS[-1]
    record = record_of(trial, computed.seconds(trial) or 0)
    assert computed.corrected([record], [trial]).seconds(trial) == computed.seconds(trial)
    assert without(bundle(TRIALS), []) == bundle(TRIALS)


def test_crops_and_tuned_networks_have_nothing_to_keep() -> None:
    assert choose(MODEL, [make_trial(), make_trial("F(1)R(2-4)", hparams=replace(LONG, views="crop"))], 1e9) == []


def test_a_phase_keeps_the_layers_that_it_freezes() -> None:
    long = replace(LONG, steps=4000)
    layers = choose(MODEL, [make_trial(way="gradual", hparams=long)], 1e9)
    assert sorted(layer.depth for layer in layers) == [1, 2, 3]
    (head,) = choose(MODEL, [make_trial(way="lpft", hparams=long)], 1e9)
    (whole,) = choose(MODEL, [make_trial("F(1-3)R(4)", hparams=long)], 1e9)
    assert head.depth == whole.depth == 3
    assert 0.45 * whole.saves < head.saves < 0.55 * whole.saves, "half of the steps are on frozen layers"
    (probe,) = choose(MODEL, [make_trial("F(1-3)R(4)", way="probe", hparams=long)], 1e9)
    assert probe.saves < 0.01 * whole.saves, "it reads each image once or twice"
