"""Classifiers trained at once come out as each would alone: curve, choice, scores."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fttune.backbones import catalog as backbones
from fttune.backbones.staged import classifier
from fttune.bundle import Bundle, bundle
from fttune.data.store import ImageStore
from fttune.feature_cache import FeatureTable
from fttune.layers import LayerSpec
from fttune.record import CurvePoint, RunRecord
from fttune.runtime import Runtime
from fttune.training.inputs import FeatureInputs, Labelled
from fttune.training.loop import fit
from fttune.training.run import run_bundle
from fttune.training.surgery import Student, apply_spec
from fttune.training.together import Seat, fit_together
from fttune.trial import HParams, Trial
from values import HPARAMS, make_trial

# The order of sums differs; a loss of a few tenths moves by this over some hundred steps.
TOLERANCE = 1e-4
HEAD = "F(1-3)R(4)"


@pytest.fixture(scope="module")
def runtime(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    return Runtime(store=root, cache=tmp_path_factory.mktemp("cache"), device="cpu", threads=1)


def head(store: ImageStore, *, spec: str = HEAD, seed: int = 0, **changes: Any) -> Trial:
    digests = {"data_digest": store.digest, "weights_digest": backbones.weights_digest("tiny")}
    hparams = replace(HPARAMS, **({"steps": 60, "report_every": 20} | changes))
    return make_trial(spec, seed=seed, hparams=hparams, **digests)


def run(trials: list[Trial], runtime: Runtime) -> tuple[list[RunRecord], dict[Trial, list[CurvePoint]]]:
    curves: dict[Trial, list[CurvePoint]] = {trial: [] for trial in trials}
    records = run_bundle(
        Bundle(trials=tuple(trials), depths=(trials[0].cell.spec.frozen,)), runtime, lambda t, p: curves[t].append(p)
    )
    return records, curves


def grid(store: ImageStore, **changes: Any) -> list[Trial]:
    """Two seeds with three rates, decays and momenta."""
    settings = [(0.05, 5e-4, 0.9), (0.01, 0.0, 0.0), (0.2, 0.05, 0.5)]
    return [
        head(store, seed=seed, lr=lr, weight_decay=decay, momentum=momentum, **changes)
        for seed, (lr, decay, momentum) in product((0, 3), settings)
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"views": "flip"},
        {"views": "fixed-3"},
        {"biases": "caffe"},
        {"lr_drop_steps": (10, 40)},
        {"batch_size": 1000},
        {"steps": 50, "report_every": 20},
    ],
)
def test_together_is_alone(store: ImageStore, runtime: Runtime, changes: dict[str, Any]) -> None:
    trials = grid(store, **changes)
    records, curves = run(trials, runtime)
    for trial, record in zip(trials, records, strict=True):
        (alone,), curve = run([trial], runtime)
        assert [point.step for point in curves[trial]] == [point.step for point in curve[trial]]
        for left, right in zip(curves[trial], curve[trial], strict=True):
            assert left.train_loss == pytest.approx(right.train_loss, rel=TOLERANCE)
            assert left.val_loss == pytest.approx(right.val_loss, rel=TOLERANCE)
        assert outcome(record) == outcome(alone)


def outcome(record: RunRecord) -> dict[str, object]:
    told = asdict(record)
    clocks = {"together", "images_per_second", "peak_memory_mb", *(name for name in told if name.endswith("seconds"))}
    return {name: value for name, value in told.items() if name not in clocks}


def test_rates_and_seeds_make_a_difference(store: ImageStore, runtime: Runtime) -> None:
    _, curves = run(grid(store), runtime)
    assert len({curve[-1].train_loss for curve in curves.values()}) == len(curves)


def test_a_classifier_that_diverges_stops_alone_and_harms_no_other(store: ImageStore, runtime: Runtime) -> None:
    trials = [head(store, lr=0.05, momentum=0.0), head(store, lr=1e30, weight_decay=1e30, momentum=0.0)]
    (calm, wild), curves = run(trials, runtime)
    (alone,), _ = run(trials[:1], runtime)
    assert outcome(calm) == outcome(alone)
    assert len(curves[trials[1]]) < len(curves[trials[0]]) == 3
    assert wild.status == "done"


def test_only_the_combinations_asked_for_are_told_of(store: ImageStore, runtime: Runtime) -> None:
    trials = grid(store)[:4]
    records, curves = run(trials, runtime)
    assert [record.trial_id for record in records] == [trial.id for trial in trials]
    assert [record.together for record in records] == [4] * 4
    assert all(len(curve) == 3 for curve in curves.values())


def test_trials_that_train_more_than_a_classifier_do_not_train_at_once(store: ImageStore, runtime: Runtime) -> None:
    trials = [head(store, spec="F(1-2)R(3-4)", lr=lr, steps=4, report_every=2) for lr in (0.1, 0.2)]
    records, curves = run(trials, runtime)
    assert not records
    assert not any(curves.values())


def test_torchs_own_generator_is_left_alone(store: ImageStore, runtime: Runtime) -> None:
    before = torch.get_rng_state()
    run(grid(store), runtime)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_cached_computed_and_bundled_trainings_agree(store: ImageStore, runtime: Runtime) -> None:
    """But for what TF32 and the draws of dropout leave: another kernel draws for a bundle."""
    there, trials = replace(runtime, device="cuda", threads=None), grid(store)
    together, curves = run(trials, there)
    (cached,), own = run(trials[:1], there)
    computed: list[CurvePoint] = []
    (other,) = run_bundle(Bundle(trials=(trials[0],)), there, lambda _, point: computed.append(point))
    for left, right in zip(own[trials[0]], computed, strict=True):
        assert (left.train_loss, left.val_loss) == pytest.approx((right.train_loss, right.val_loss), rel=1e-2)
    for left, right in zip(own[trials[0]], curves[trials[0]], strict=True):
        assert (left.train_loss, left.val_loss) == pytest.approx((right.train_loss, right.val_loss), rel=0.1)
    assert {record.device for record in (*together, cached, other)} == {torch.cuda.get_device_name()}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("views", ["crop", "center"])
def test_on_a_gpu_a_tuned_trial_comes_to_its_end(store: ImageStore, runtime: Runtime, views: str) -> None:
    (record,), curves = run([head(store, spec="T(1-3)R(4)", views=views)], replace(runtime, device="cuda"))
    assert (record.status, record.device) == ("done", torch.cuda.get_device_name())
    assert all(len(curve) == 3 for curve in curves.values())


def settings(**changes: Any) -> HParams:
    return replace(HPARAMS, **changes)


def test_what_may_train_together_is_bundled_and_nothing_else() -> None:
    alike = [
        make_trial(HEAD, seed=seed, hparams=settings(lr=lr, momentum=m, weight_decay=d))
        for seed, lr, m, d in product((0, 1), (0.1, 0.2), (0.0, 0.9), (0.0, 0.1))
    ]
    assert [job.trials for job in bundle(alike)] == [tuple(alike)]
    others = [
        make_trial(HEAD),
        make_trial(HEAD, images_per_class=7),
        make_trial(HEAD, hparams=settings(steps=7)),
        make_trial(HEAD, hparams=settings(views="flip")),
        make_trial(HEAD, data_digest="other"),
    ]
    assert [job.trials for job in bundle(others)] == [(trial,) for trial in others]
    apart = [
        make_trial(spec, seed=seed, hparams=settings(views=views))
        for spec, views in (("T(1-3)R(4)", "center"), ("F(1-2)R(3-4)", "center"), (HEAD, "crop"))
        for seed in (0, 1)
    ]
    assert [job.trials for job in bundle(apart)] == [(trial,) for trial in apart]


def test_a_bundle_knows_every_depth_of_its_images_and_no_other() -> None:
    trials = [
        make_trial(HEAD),
        make_trial("F(1-2)R(3-4)", seed=4),
        make_trial("F(1)T(2)R(3-4)", hparams=settings(views="crop")),
        make_trial("F(1)R(2-4)", data_digest="other"),
        make_trial("T(1-3)R(4)"),
    ]
    assert [job.depths for job in bundle(trials)] == [(2, 3), (2, 3), (2, 3), (1,), (2, 3)]


@given(st.sets(st.tuples(st.integers(0, 7), st.sampled_from([0.1, 0.2, 0.3, 0.4, 0.5])), min_size=1))
def test_little_is_trained_that_nobody_asked_for(asked: set[tuple[int, float]]) -> None:
    trials = [make_trial(HEAD, seed=seed, hparams=settings(lr=lr)) for seed, lr in asked]
    jobs = bundle(trials)
    assert sorted(trial.id for job in jobs for trial in job.trials) == sorted(trial.id for trial in trials)
    for job in jobs:
        combinations = len({trial.seed for trial in job.trials}) * len({trial.hparams for trial in job.trials})
        assert combinations <= 1.5 * len(job.trials)


def test_trials_with_nothing_in_common_do_not_multiply() -> None:
    trials = [make_trial(HEAD, seed=seed, hparams=settings(lr=0.01 + seed / 1000)) for seed in range(64)]
    assert bundle(trials) == [Bundle.alone(trial) for trial in trials]


def wide(seed: int, scale: float = 1.0) -> tuple[Student, Labelled, Labelled]:
    """A classifier of 21 classes on 1,280 features, as many as EfficientNet-Lite0 gives, and what it is given.

    Its initial values are multiplied by `scale`.
    """
    generator = torch.Generator().manual_seed(seed)
    hparams, net = settings(), nn.Sequential(nn.Identity(), nn.Linear(1280, 21))
    student = apply_spec(net, LayerSpec(frozen=1, tuned=0, random=1), classes=21, bn="source", seed=seed)
    with torch.no_grad():
        classifier(student.trained).weight.mul_(scale)
    centres = torch.rand(21, 1280, generator=generator) * 2

    def data(each: int) -> Labelled:
        labels = torch.arange(21).repeat(each)
        values = (centres[labels] + torch.randn(len(labels), 1280, generator=generator)).relu()
        inputs = FeatureInputs(
            table=FeatureTable.of(values), images=len(labels), hparams=hparams, device=torch.device("cpu")
        )
        return Labelled(inputs=inputs, labels=labels, logits=student.trained)

    return student, data(5), data(2)


def test_at_rates_that_make_losses_leap_they_part_no_more_than_from_a_start_a_digit_off() -> None:
    rates, seeds = [replace(settings(steps=200, report_every=20), lr=lr) for lr in (0.05, 0.1, 0.2)], range(4)
    parts, together = [wide(seed) for seed in seeds], dict[tuple[int, int], list[CurvePoint]]()
    seats = [
        Seat(student=student, train=train, val=val, seed=seed, dropout=torch.get_rng_state())
        for seed, (student, train, val) in zip(seeds, parts, strict=True)
    ]
    fit_together(seats, rates, lambda s, r, point: together.setdefault((s, r), []).append(point))
    at_once, digit_off = [], []
    for s, (r, hparams) in product(seeds, enumerate(rates)):
        alone, other = losses(wide(s), hparams, s), losses(wide(s, scale=1 + 2e-7), hparams, s)
        at_once.append(apart([point.train_loss for point in together[s, r]], alone))
        digit_off.append(apart(other, alone))
        assert alone[0] > 20, "they leap"
        assert together[s, r][0].train_loss == pytest.approx(alone[0], rel=1e-3)
    assert median(digit_off) > TOLERANCE
    assert median(at_once) < 2 * median(digit_off)


def losses(parts: tuple[Student, Labelled, Labelled], hparams: HParams, seed: int) -> list[float]:
    """Of a training alone, at each report."""
    told: list[CurvePoint] = []
    fit(*parts, hparams, seed=seed, report=told.append)
    return [point.train_loss for point in told]


def apart(left: Sequence[float], right: Sequence[float]) -> float:
    """The largest difference of two curves, as a share of the value."""
    return max(abs(a - b) / max(abs(b), 1e-3) for a, b in zip(left, right, strict=True))


def test_a_bundle_has_an_end() -> None:
    trials = [make_trial(HEAD, seed=seed) for seed in range(150)]
    assert [len(job.trials) for job in bundle(trials)] == [64, 64, 22]
