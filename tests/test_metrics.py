"""Each metric measures what it says, on images it has not seen, the same for the same seed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fttune.distance.metrics import METRICS, Measured, halved, mmd
from fttune.errors import DataError

RNG = np.random.default_rng(0)


def features(count: int, shift: float = 0.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, count]).normal(shift, 1, (count, 16))


def pixels(count: int, brightness: float, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng([seed, count]).normal(brightness, 0.2, (count, 3, 32, 32))
    return np.clip(noise, 0, 1).astype(np.float32)


def svm(source: np.ndarray, target: np.ndarray, seed: int = 0) -> Measured:
    return METRICS["svm"].measure(source, target, source_images=len(source), seed=seed)


@given(st.lists(st.floats(-9, 9), min_size=3, max_size=3), st.lists(st.floats(-9, 9), min_size=3, max_size=3))
def test_mmd_is_a_distance_and_not_its_square(a: list[float], b: list[float]) -> None:
    one, other = np.array(a), np.array(b)
    assert mmd(one, other) == pytest.approx(np.sqrt(((one - other) ** 2).sum()))
    assert mmd(one, other) == mmd(other, one)
    assert mmd(one, one) == 0


def test_mmd_of_many_means_is_each_one_s() -> None:
    source, targets = RNG.random(5), RNG.random((7, 5))
    np.testing.assert_allclose(mmd(source, targets), [float(mmd(source, target)) for target in targets])


def test_an_svm_tells_far_sets_apart_and_is_at_chance_on_one_set() -> None:
    far, same = svm(features(200), features(200, 3.0, seed=1)), svm(features(400), features(400, seed=1))
    assert far.value > 0.97
    assert abs(same.value - 0.5) < 0.1
    assert far.low <= far.value <= far.high
    assert (far.spread, far.repeats) == ("range", 5)


def test_sides_count_equally_however_many_images_they_have() -> None:
    found = svm(features(1000), features(60, seed=1))
    assert (found.images, found.source_images) == (60, 60)
    assert abs(found.value - 0.5) < 0.2  # naming the larger side always would give 0.94


@pytest.mark.parametrize("name", sorted(name for name, row in METRICS.items() if row.reads in ("means", "features")))
def test_a_measurement_is_repeated_by_its_seed(name: str) -> None:
    metric, source, target = METRICS[name], features(80, 1), features(60, 1.2, seed=1)
    side = source.mean(0) if metric.reads == "means" else source
    first, again, other = (metric.measure(side, target, source_images=80, seed=seed) for seed in (3, 3, 4))
    assert first == again
    assert (first.low, first.high) != (other.low, other.high)


def test_a_small_network_tells_bright_from_dark_by_pixels_alone() -> None:
    from fttune.distance.quick_net import accuracy

    train, test = ((pixels(40, 0.3, seed), pixels(40, 0.7, seed)) for seed in (0, 1))
    assert accuracy(train, test, 0) == 1
    noise = [(pixels(40, 0.5, seed), pixels(40, 0.5, seed + 1)) for seed in (0, 2)]
    assert abs(accuracy(noise[0], noise[1], 0) - 0.5) < 0.25


def test_the_small_network_is_cifar10_quick() -> None:
    from fttune.distance.quick_net import build

    # Caffe's cifar10_quick has 145,578 values with ten outputs of 64 + 1 each.
    assert sum(value.numel() for value in build().parameters()) == 145_578 - 8 * 65


@given(st.integers(4, 40), st.integers(4, 40), st.integers(0, 5))
def test_no_image_is_trained_and_tested_on(source: int, target: int, seed: int) -> None:
    names = np.arange(source)[:, None], np.arange(target)[:, None] + 1000
    train, test = halved(*names, seed=seed)
    assert len(train[0]) == len(train[1]) == min(source, target) // 2
    assert len(train[0]) + len(test[0]) == len(train[1]) + len(test[1]) == min(source, target)
    for side in (0, 1):
        assert not set(train[side].ravel()) & set(test[side].ravel())


def test_a_set_cannot_be_told_from_itself() -> None:
    same = features(60)
    found = svm(same, same.copy())
    assert (found.value, found.low, found.high) == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("name", sorted(name for name, row in METRICS.items() if row.between))
@pytest.mark.parametrize("count", [60, 500])
def test_an_interval_holds_its_value_however_near_the_source(name: str, count: int) -> None:
    """Yosinski's two halves of ImageNet: the source's own distribution, in as many dimensions as fc7 has."""
    source, target = (np.maximum(np.random.default_rng(seed).normal(0, 1, (count, 1024)), 0) for seed in (0, 1))
    found = METRICS[name].measure(source.mean(0), target, source_images=count, seed=0)
    assert 0 <= found.low <= found.value <= found.high


def test_sides_may_change_places() -> None:
    one, other = features(60), features(60, 0.5, seed=1)
    assert svm(one, other).value == pytest.approx(svm(other, one).value)


def test_too_few_images_to_tell_apart_are_refused() -> None:
    with pytest.raises(DataError, match="needs at least 4 images of source and target, but got 3"):
        svm(features(30), features(3))


def test_every_row_says_what_chance_would_be_if_it_is_an_accuracy() -> None:
    for name, metric in METRICS.items():
        assert metric.name == name
        assert (metric.chance == 0.5) == (metric.tell_apart is not None)
        assert sum(way is not None for way in (metric.between, metric.tell_apart, metric.score)) == 1
