"""Shares of a GPU: as many trainings as fit, no more, measured once for each kind and each model."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fttune import footprint
from fttune.bundle import Bundle
from fttune.distance.job import DistanceJob
from fttune.distance.sample import Sample
from fttune.footprint import Footprint
from fttune.sweep.fraction import shares
from fttune.training.device import keep_to
from fttune.trial import Trial
from values import make_trial

GB = 10**9
TUNED, FROZEN = make_trial("T(1-3)R(4)"), make_trial("F(1-3)R(4)")


def taking(peak: float, total: float = 80.0, device: str = "H100") -> Footprint:
    return Footprint(device=device, peak=int(peak * GB), total=int(total * GB))


@given(st.floats(0.3, 200), st.floats(1, 200))
def test_trainings_side_by_side_fit_and_one_more_would_not(peak: float, total: float) -> None:
    one = taking(peak, total)
    beside = int(1 / one.share)
    assert 0 < one.share <= 1
    assert beside * one.share <= 1
    assert beside == 1 or beside * one.peak <= one.total
    assert (beside + 1) * one.peak > 0.94 * one.total or one.share == 1 / 10_000


class Probe:
    """What was asked of it, and an answer for each model."""

    def __init__(self, **peaks: float | None) -> None:
        self.peaks = peaks
        self.asked: list[tuple[str, int]] = []

    def __call__(self, model: str, bundles: Sequence[Bundle]) -> list[Footprint | None]:
        self.asked.append((model, len(bundles)))
        peak = self.peaks[model]
        return [None if peak is None else taking(peak, device=model)] * len(bundles)


def test_each_kind_is_measured_once_on_each_model_and_the_largest_share_holds(tmp_path: Path) -> None:
    jobs = [Bundle.alone(replace(trial, seed=seed)) for trial in (TUNED, FROZEN) for seed in range(3)]
    probe = Probe(small=39.0, large=9.0)
    assert shares(jobs, "auto", ["large", "small"], tmp_path, probe) == [1.0] * 6
    assert probe.asked == [("large", 2), ("small", 2)]
    assert shares(jobs, "auto", ["large"], tmp_path, probe) == [0.125] * 6
    assert len(probe.asked) == 2, "what was measured in an earlier run is read"


def test_trainings_that_differ_in_their_number_of_images_are_measured_once_on_the_most(tmp_path: Path) -> None:
    cells = [replace(TUNED.cell, images_per_class=count) for count in (5, 20, 10)]
    jobs = [Bundle.alone(replace(TUNED, cell=cell)) for cell in cells]
    asked: list[Bundle] = []

    def probe(model: str, bundles: Sequence[Bundle]) -> list[Footprint | None]:
        asked.extend(bundles)
        return [taking(9.0)] * len(bundles)

    assert shares(jobs, "auto", ["x"], tmp_path, probe) == [0.125] * 3
    assert asked == [jobs[1]]
    shares(
        [*jobs, Bundle.alone(replace(TUNED, cell=replace(TUNED.cell, images_per_class=40)))],
        "auto",
        ["x"],
        tmp_path,
        probe,
    )
    assert [job.trials[0].cell.images_per_class for job in asked] == [20, 40], "more of them are measured anew"


def test_a_gpu_that_nobody_could_measure_is_shared_by_four(tmp_path: Path) -> None:
    jobs = [Bundle.alone(TUNED)]
    assert shares(jobs, "auto", ["fake"], tmp_path, Probe(fake=None)) == [footprint.UNKNOWN]
    assert not list(tmp_path.iterdir()), "a guess is not kept as a measurement"


def test_where_one_model_was_not_measured_what_another_takes_still_counts(tmp_path: Path) -> None:
    probe = Probe(large=60.0, small=None)
    (share,) = shares([Bundle.alone(TUNED)], "auto", ["large", "small"], tmp_path, probe)
    assert share == taking(60.0).share > footprint.UNKNOWN


@pytest.mark.parametrize(("wanted", "models", "share"), [(0.5, ["x"], 0.5), (2, ["x"], 2.0), ("auto", [], 0.0)])
def test_a_share_that_is_given_is_taken_and_nothing_is_measured(
    wanted: float | str, models: list[str], share: float
) -> None:
    probe = Probe()
    assert shares([Bundle.alone(TUNED)], wanted, models, None, probe) == [share]
    assert not probe.asked


@pytest.mark.parametrize(
    ("wanted", "models", "share"), [(0.5, ["x"], 0.5), ("auto", ["x"], footprint.UNKNOWN), ("auto", [], 0.0)]
)
def test_a_distance_has_a_share_of_a_gpu_where_its_network_has_a_use_for_one(
    wanted: float | str, models: list[str], share: float
) -> None:
    sample = Sample(
        dataset="d", data_digest="d" * 64, test_per_class=0, backbone="tiny", weights_digest="w" * 64,
        image_size=32, resize="crop",
    )  # fmt: skip
    jobs = [DistanceJob(sample=sample, source=sample, metric=metric) for metric in ("cosine", "svm", "cnn")]
    assert shares(jobs, wanted, models, None, Probe()) == [share, share, 0.0]


def test_trials_of_one_kind_differ_in_nothing_that_takes_memory() -> None:
    def kind(*trials: Trial) -> str:
        return footprint.kind(Bundle(trials=trials))

    hparams = TUNED.hparams
    other_rate = replace(TUNED, hparams=replace(hparams, lr=9.0))
    assert kind(replace(other_rate, seed=5)) == kind(TUNED)
    for other in (
        replace(TUNED, hparams=replace(hparams, batch_size=99)),
        replace(TUNED, hparams=replace(hparams, image_size=64)),
        replace(TUNED, hparams=replace(hparams, bn="batch")),
        replace(TUNED, cell=replace(TUNED.cell, images_per_class=9)),
        replace(TUNED, val_per_class=9),
        replace(TUNED, test_per_class=9),
        FROZEN,
    ):
        assert kind(other) != kind(TUNED)
    assert footprint.kind(Bundle.alone(FROZEN)) != kind(FROZEN), "computed at each step, it keeps no features"
    assert len({kind(TUNED), kind(TUNED, other_rate), kind(TUNED, replace(TUNED, seed=5))}) == 3, "a seed's own images"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_process_is_held_to_its_share_of_a_gpu() -> None:
    total = torch.cuda.mem_get_info()[1]
    keep_to(0.1, 0)
    try:
        with pytest.raises(torch.OutOfMemoryError):
            torch.empty(total // 5, dtype=torch.uint8, device="cuda")
        torch.empty(total // 20, dtype=torch.uint8, device="cuda")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
