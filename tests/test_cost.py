"""Costs in seconds: from measured stages, held against what ran, packed on slots."""

import json
from dataclasses import asdict, replace
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fttune.backbones import catalog
from fttune.bundle import Bundle, bundle
from fttune.cost import CostModel, Images, StageTimes, jobs, longest_first, looks, makespan, price
from fttune.record import RunRecord
from fttune.runtime import Runtime
from fttune.training.probe import measure_once, stage_times
from fttune.trial import Trial
from values import HPARAMS, make_trial

TIMES = StageTimes(
    backbone="tiny",
    image_size=32,
    threads=1,
    device="cpu",
    forward=(1e-3, 2e-3, 3e-3, 1e-4),
    training=(3e-3, 6e-3, 9e-3, 3e-4),
    lowest=(2e-3, 4e-3, 6e-3, 2e-4),
    update=(1e-4, 1e-4, 1e-4, 1e-4),
    bytes=(400, 300, 200, 40),
)
MODEL = CostModel(times={("tiny", 32): TIMES}, images={"digits": Images(classes=10, test=50)})
SPECS = ("T(1-3)R(4)", "F(1)R(2-4)", "F(1-2)R(3-4)", "F(1-3)R(4)")


def seconds(trial: Trial, model: CostModel = MODEL) -> float:
    value = model.seconds(trial)
    assert value is not None
    return value


def record_of(trial: Trial, took: float) -> RunRecord:
    return replace(RunRecord.of(trial, status="done"), seconds=took + 1, feature_seconds=1.0, device="cpu")


def test_a_tuned_trial_by_hand() -> None:
    trial = make_trial("T(1-3)R(4)")  # 20 steps of 8, 4 reports; 50 train, 20 val and 50 test images
    training, looks = 20 * (8 * 17.3e-3 + 4e-4), (4 * 20 + 50 + 50) * 6.1e-3
    assert seconds(trial) == pytest.approx(0.1 + training + looks)


def test_a_frozen_trial_pays_for_what_it_trains_alone() -> None:
    assert seconds(make_trial("F(1-3)R(4)")) == pytest.approx(0.1 + 20 * (8 * 2e-4 + 1e-4) + 180 * 1e-4)
    crops = make_trial("F(1-3)R(4)", hparams=replace(HPARAMS, views="crop"))
    assert seconds(crops) == pytest.approx(0.1 + 20 * (8 * 6.2e-3 + 1e-4) + 180 * 6.1e-3)


def test_the_more_is_trained_the_more_it_costs() -> None:
    costs = [seconds(make_trial(spec)) for spec in SPECS]
    assert costs == sorted(costs, reverse=True)
    assert seconds(make_trial(hparams=replace(HPARAMS, steps=40))) > seconds(make_trial())


@pytest.mark.parametrize("unknown", [{"backbone": "other"}, {"dataset": "other"}])
def test_what_was_not_measured_has_no_cost(unknown: dict[str, Any]) -> None:
    trial = make_trial(**unknown)
    assert MODEL.seconds(trial) is None
    assert price(MODEL, [make_trial(), trial]) is None
    assert jobs(MODEL, [Bundle.alone(trial)]) is None
    ordered = price(MODEL, [make_trial()])
    assert ordered is not None
    assert ordered(make_trial()) == seconds(make_trial())


@given(st.floats(0.1, 10), st.floats(0.1, 10))
def test_finished_trials_correct_the_model_for_their_mode_and_else_for_their_network(fast: float, slow: float) -> None:
    trials = [make_trial("F(1-3)R(4)", seed=seed) for seed in range(3)] + [make_trial(seed=seed) for seed in range(3)]
    factors = [fast] * 3 + [slow] * 3
    records = [record_of(trial, factor * seconds(trial)) for trial, factor in zip(trials, factors, strict=True)]
    model = MODEL.corrected(records, trials)
    for trial, factor in zip(trials, factors, strict=True):
        assert seconds(trial, model) == pytest.approx(factor * seconds(trial))
    mixed = make_trial("F(1)T(2-3)R(4)")
    assert min(fast, slow) * 0.99 < seconds(mixed, model) / seconds(mixed) < max(fast, slow) * 1.01


@given(st.floats(0.1, 10), st.floats(0.1, 10))
def test_bundles_teach_what_bundles_cost_and_trials_alone_what_those_do(alone: float, at_once: float) -> None:
    trials = [make_trial("F(1-3)R(4)", hparams=replace(HPARAMS, lr=0.1 * rate)) for rate in range(1, 5)]
    single = make_trial("F(1-3)R(4)", seed=7)
    bundled, own = MODEL.together(trials[0], 4), alone * seconds(single)
    assert bundled
    shared = [replace(record_of(trial, at_once * bundled / 4), together=4) for trial in trials]
    taught = MODEL.corrected(shared, trials)
    assert taught.together(trials[0], 4) == pytest.approx(at_once * bundled)
    assert seconds(single, taught) == pytest.approx(at_once * seconds(single)), "for want of better"
    both = MODEL.corrected([*shared, record_of(single, own)], [*trials, single])
    assert both.together(trials[0], 4) == pytest.approx(at_once * bundled)
    assert seconds(single, both) == pytest.approx(own)


def test_passes_that_take_longer_than_expected_are_learned_whoever_made_them() -> None:
    trials, new = [make_trial("F(1-3)R(4)", seed=seed) for seed in range(2)], make_trial("F(1-3)R(4)", seed=2)
    expected = sum(MODEL.features(trials).values())
    waited = [
        replace(record_of(t, seconds(t)), seconds=seconds(t) + s, feature_seconds=s)
        for t, s in zip(trials, (0.0, 3.0), strict=True)
    ]
    taught = MODEL.corrected(waited, trials)
    assert taught.features([new])[new] == pytest.approx(MODEL.features([new])[new] * 3.0 / expected / 2)
    assert seconds(new, taught) == pytest.approx(seconds(new))
    found = [replace(record, seconds=seconds(trials[0]), feature_seconds=0.0) for record in waited]
    assert MODEL.corrected(found, trials).features([new]) == MODEL.features([new]), "those of others were there"


@pytest.mark.parametrize("what", [{"status": "failed"}, {"pruned_step": 2}, {"fold": 1, "folds": 3}])
def test_what_failed_was_cut_off_or_saw_other_images_corrects_nothing(what: dict[str, Any]) -> None:
    trial = make_trial()
    assert MODEL.corrected([record_of(trial, 99.0)], [trial]) != MODEL
    assert MODEL.corrected([replace(record_of(trial, 99.0), **what)], [trial]) == MODEL


def test_the_passes_over_images_are_paid_once_to_the_deepest_layer() -> None:
    few, many, other = (make_trial("F(1-3)R(4)", images_per_class=n, seed=seed) for n, seed in ((5, 0), (8, 0), (8, 1)))
    shallow, tuned = make_trial("F(1)R(2-4)"), make_trial()
    paid = MODEL.features([shallow, tuned, few, many, other])
    pixel = 6e-3  # seconds to the deepest layer that is wanted
    assert tuned not in paid
    assert paid[shallow] == pytest.approx((50 + 20 + 50) * pixel)
    assert (paid[few], paid[many], paid[other]) == pytest.approx((0.0, 30 * pixel, 80 * pixel))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=60), st.integers(90, 500))
def test_subsets_overlap_and_together_hold_no_more_than_there_is(counts: list[int], rest: int) -> None:
    images = Images(classes=10, test=50, rest=rest)
    together = images.drawn(counts)
    assert 10 * max(counts) <= together + 1e-9
    assert together <= min(rest, 10 * sum(counts)) + 1e-9
    assert together < images.drawn([*counts, 1]) or together == pytest.approx(rest)
    assert replace(images, rest=None).drawn(counts) == 10 * sum(counts)


@pytest.mark.parametrize("counts", [(5,), (3, 9), (4,) * 10, (1, 2, 3, 4, 5) * 6])
def test_subsets_overlap_as_much_as_they_do_when_they_are_drawn(counts: tuple[int, ...]) -> None:
    images, draw = Images(classes=10, test=50, rest=200), np.random.default_rng(0)
    drawn = [len(set[int]().union(*(draw.permutation(200)[: 10 * count] for count in counts))) for _ in range(400)]
    assert images.drawn(counts) == pytest.approx(np.mean(drawn), rel=0.01)


def test_forty_seeds_pay_for_each_image_once() -> None:
    crowded = replace(MODEL, images={"digits": Images(classes=10, test=50, rest=100)})
    trials = [make_trial("F(1-3)R(4)", seed=seed) for seed in range(40)]
    assert sum(crowded.features(trials).values()) == pytest.approx((50 + 20 + 100) * 6e-3)
    assert sum(MODEL.features(trials).values()) == pytest.approx((50 + 20 + 40 * 50) * 6e-3)


def test_a_bundle_costs_little_more_than_one_of_its_trials() -> None:
    trials = [make_trial("F(1-3)R(4)", hparams=replace(HPARAMS, lr=rate)) for rate in (0.1, 0.2, 0.3)]
    (together,), (alone,) = jobs(MODEL, bundle(trials)) or [], jobs(MODEL, bundle(trials[:1])) or []
    assert alone < together < 3 * alone


def test_the_longest_job_goes_first_with_the_pass_that_it_pays_for() -> None:
    frozen, tuned, many = make_trial("F(1)R(2-4)"), make_trial(), make_trial("F(1-2)R(3-4)", images_per_class=500)
    ordered = longest_first(MODEL, bundle([frozen, tuned, many]))
    assert [job.trials[0] for job in ordered] == [many, tuned, frozen]
    strange = bundle([make_trial(backbone="other"), tuned])
    assert longest_first(MODEL, strange) == strange


def test_what_costs_nearly_the_same_stays_with_its_images_and_ends_no_later() -> None:
    sets = ("one", "two", "three")
    trials = [
        make_trial(spec, dataset="digits", data_digest=name, seed=seed, hparams=replace(HPARAMS, steps=20 + seed))
        for seed in range(3)
        for name in sets
        for spec in ("T(1-3)R(4)", "F(1)T(2-3)R(4)", "F(1)R(2-4)")
    ]
    bundles = bundle(trials)
    spent = dict(zip(bundles, jobs(MODEL, bundles) or [], strict=True))
    ordered, falling = longest_first(MODEL, bundles), sorted(bundles, key=spent.__getitem__, reverse=True)
    assert {*ordered} == {*falling}
    assert changes(ordered) < changes(falling) / 2
    for slots in (1, 2, 4, 8):
        ends = makespan(map(spent.__getitem__, ordered), slots)
        assert ends <= 1.02 * makespan(map(spent.__getitem__, falling), slots)


def changes(bundles: list[Bundle]) -> int:
    """How often the images change from one to the next."""
    names = [job.trials[0].data_digest for job in bundles]
    return sum(one != other for one, other in pairwise(names))


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 400)), min_size=1, max_size=25))
def test_nobody_waits_for_one_that_costs_much_less(asked: list[tuple[int, int]]) -> None:
    trials = [make_trial(data_digest=str(n), hparams=replace(HPARAMS, steps=s, report_every=s)) for n, s in asked]
    spent = [seconds(job.trials[0]) for job in longest_first(MODEL, bundle(list(dict.fromkeys(trials))))]
    assert all(before >= 0.9 * after * (1 - 1e-9) for before, after in combinations(spent, 2))


@given(st.lists(st.floats(0, 100), max_size=30), st.integers(1, 8))
def test_a_makespan_lies_between_its_bounds(costs: list[float], slots: int) -> None:
    least = max(sum(costs) / slots, max(costs, default=0.0))
    assert least <= makespan(sorted(costs, reverse=True), slots) * (1 + 1e-9)
    assert makespan(sorted(costs, reverse=True), slots) <= 4 / 3 * least + max(costs, default=0.0)
    assert makespan(costs, 1) == pytest.approx(sum(costs))


def test_stage_times_come_back_from_their_file(tmp_path: Path) -> None:
    assert StageTimes.read(tmp_path, "tiny", 32, 1) is None
    TIMES.save(tmp_path)
    assert StageTimes.read(tmp_path, "tiny", 32, 1) == TIMES
    assert StageTimes.read(tmp_path, "tiny", 64, 1) is None
    TIMES.place(tmp_path, "tiny", 32, 1).write_text('{"backbone": "ti')
    assert StageTimes.read(tmp_path, "tiny", 32, 1) is None


def test_times_of_a_gpu_and_of_a_cpu_do_not_take_each_others_place(tmp_path: Path) -> None:
    fast = replace(TIMES, device="NVIDIA L4", forward=(1e-6,) * 4)

    def known(share: Any) -> StageTimes | None:
        return StageTimes.known(tmp_path, "tiny", 32, 1, share)

    TIMES.save(tmp_path)
    assert (known(0), known(0.5), known("auto")) == (TIMES, None, TIMES)
    fast.save(tmp_path)
    assert (known(0), known(0.5), known("auto")) == (TIMES, fast, fast)
    TIMES.place(tmp_path, "tiny", 32, 1).write_text(json.dumps(asdict(fast)))
    assert known(0) is None, "a file of before, measured on a GPU"


def test_every_stage_is_measured_and_once(tmp_path: Path) -> None:
    net, runtime = catalog.load("tiny"), Runtime(store=tmp_path, cache=tmp_path, state=tmp_path / "state")
    before = {name: value.clone() for name, value in net.state_dict().items()}
    times = stage_times(net, "tiny", 32, torch.device("cpu"))
    assert len(times.forward) == len(times.training) == len(times.update) == 4
    assert min(*times.forward, *times.training, *times.update) > 0
    assert times.bytes == (8 * 16 * 16 * 4, 16 * 8 * 8 * 4, 32 * 4, 10 * 4)
    measure_once(net, "tiny", 32, torch.device("cpu"), runtime)
    (file,) = (tmp_path / "state").glob("*.json")
    first = file.read_text()
    measure_once(net, "tiny", 32, torch.device("cpu"), runtime)
    assert file.read_text() == first
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_a_way_in_phases_costs_what_its_phases_do() -> None:
    trial = make_trial(way="lpft")  # 10 steps and 2 reports each; the best is tested as the last phase would be
    head, all_layers = 10 * (8 * 2e-4 + 1e-4) + 2 * 20 * 1e-4, 10 * (8 * 17.3e-3 + 4e-4) + 2 * 20 * 6.1e-3
    assert seconds(trial) == pytest.approx(0.1 + head + all_layers + (50 + 50) * 6.1e-3)
    assert seconds(make_trial("F(1-3)R(4)")) < seconds(trial) < seconds(make_trial())
    assert MODEL.features([trial]) == {trial: pytest.approx((50 + 20 + 50) * 6e-3)}


@pytest.mark.parametrize(("steps", "report_every"), [(20, 5), (7, 3), (10, 10), (3, 100)])
def test_val_is_looked_at_as_often_in_phases_as_at_once(steps: int, report_every: int) -> None:
    hparams = replace(HPARAMS, steps=steps, report_every=report_every)
    for way in ("plain", "lpft", "gradual"):
        told = list(looks(make_trial(hparams=hparams, way=way)))
        assert sum(reports for _, _, reports in told) == -(-steps // report_every)
        assert sum(taken for _, taken, _ in told) == steps


def test_a_probe_costs_by_its_images_and_classes_and_not_by_steps() -> None:
    few, many = (make_trial("F(1-3)R(4)", way="probe", images_per_class=n) for n in (5, 50))
    assert seconds(few) < seconds(many)
    assert seconds(few) == seconds(replace(few, hparams=replace(HPARAMS, steps=9999)))
