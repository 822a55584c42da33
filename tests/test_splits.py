"""Splits are disjoint, exact, nested, and the same whatever was asked before."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fttune.data.splits import Split, make_split, non_test, train_and_val
from fttune.errors import DataError, FttuneError

CLASSES = ("a", "b", "c")


def listing(per_class: int, pools: tuple[str, ...] = ("any",)) -> tuple[np.ndarray, list[str], list[str]]:
    labels = np.repeat(np.arange(3), per_class * len(pools))
    keys = [f"{CLASSES[label]}/{number}" for number, label in enumerate(labels)]
    return labels, keys, [pools[number % len(pools)] for number in range(len(labels))]


def split(
    per_class: int = 30,
    *,
    n: int = 5,
    val: int = 2,
    test: int | None = 4,
    seed: int = 0,
    pools: tuple[str, ...] = ("any",),
    fold: tuple[int, int] | None = None,
) -> tuple[Split, list[str]]:
    labels, keys, pool = listing(per_class, pools)
    return make_split(
        dataset="d",
        classes=CLASSES,
        labels=labels,
        keys=keys,
        pools=pool,
        images_per_class=n,
        val=val,
        test=test,
        seed=seed,
        fold=fold,
    ), keys


@given(st.integers(1, 20), st.integers(1, 5), st.integers(1, 5), st.integers(0, 2**62))
def test_parts_are_disjoint_balanced_and_of_the_right_size(n: int, val: int, test: int, seed: int) -> None:
    parts, _ = split(n=n, val=val, test=test, seed=seed)
    rows = {"train": parts.train, "val": parts.val, "test": parts.test.open()}
    for name, each in (("train", n), ("val", val), ("test", test)):
        assert np.bincount(rows[name] // 30, minlength=3).tolist() == [each] * 3
    together = np.concatenate(list(rows.values()))
    assert len(set(together.tolist())) == len(together)


@given(st.integers(1, 10), st.integers(1, 5), st.integers(2, 6), st.integers(0, 2**62))
def test_folds_are_the_images_of_train_and_val_each_held_out_once_and_evenly_by_class(
    n: int, val: int, folds: int, seed: int
) -> None:
    whole = split(n=n, val=val, seed=seed)[0]
    pool = sorted([*whole.train, *whole.val])
    parts = [split(n=n, val=val, seed=seed, fold=(k, folds))[0] for k in range(1, folds + 1)]
    assert sorted(row for part in parts for row in part.val) == pool
    assert all(sorted([*part.train, *part.val]) == pool for part in parts)
    for part in parts:
        assert set(np.bincount(part.val // 30, minlength=3)) <= {(n + val) // folds, -(-(n + val) // folds)}
        assert part.test.open().tolist() == split(n=n, val=val, seed=seed)[0].test.open().tolist()


@given(st.integers(1, 10), st.integers(1, 10), st.integers(0, 2**62))
def test_fewer_images_lie_inside_more(n: int, more: int, seed: int) -> None:
    few, many = split(n=n, seed=seed)[0], split(n=n + more, seed=seed)[0]
    assert set(few.train) < set(many.train)


@given(st.integers(0, 2**62), st.integers(0, 2**62), st.integers(1, 10))
def test_val_and_test_depend_on_no_seed_and_no_size(first: int, second: int, n: int) -> None:
    one, other = split(seed=first)[0], split(seed=second, n=n)[0]
    assert one.val.tolist() == other.val.tolist()
    assert one.test.open().tolist() == other.test.open().tolist()


@given(st.randoms(use_true_random=False))
def test_the_order_of_the_listing_does_not_matter(random: object) -> None:
    labels, keys, pools = listing(30)
    order = list(range(len(keys)))
    random.shuffle(order)  # pyright: ignore[reportAttributeAccessIssue]
    here, _ = split()
    there = make_split(
        dataset="d",
        classes=CLASSES,
        labels=labels[order],
        keys=[keys[row] for row in order],
        pools=pools,
        images_per_class=5,
        val=2,
        test=4,
        seed=0,
    )
    assert {keys[row] for row in here.train} == {keys[order[row]] for row in there.train}
    assert here.digest == there.digest


def test_seeds_draw_different_subsets() -> None:
    assert len({tuple(split(seed=seed)[0].train) for seed in range(10)}) == 10


def test_test_images_come_from_the_official_test_set_alone() -> None:
    official, keys = split(20, test=None, pools=("train", "test"))
    tested = official.test.open()
    assert sorted(tested) == [row for row in range(len(keys)) if row % 2 == 1]
    assert not {*official.train, *official.val} & set(tested)
    some, _ = split(20, test=4, pools=("train", "test"))
    assert len(some.test) == 12
    assert set(some.test.open()) < set(tested)


def test_a_dataset_without_a_test_set_must_say_how_many() -> None:
    with pytest.raises(DataError, match="test: N"):
        split(test=None)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            {"n": 25},
            "class 'a': has 26 images outside the test set, needs 25 to train on and 2 for val; images_per_class: 24",
        ),
        ({"test": 31}, "class 'a': has 30 images to test on, needs 31"),
        ({"test": 29}, "hold out fewer for val and test"),
    ],
)
def test_too_few_images_name_class_have_and_need(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError) as error:
        split(**settings)
    assert says in str(error.value)


def test_a_test_set_opens_once_and_always_tells_its_size() -> None:
    sealed = split()[0].test
    assert len(sealed) == 12
    sealed.open()
    assert len(sealed) == 12
    with pytest.raises(FttuneError, match="read once"):
        sealed.open()


@pytest.mark.parametrize(("test", "pools"), [(4, ("any",)), (None, ("train", "test")), (4, ("train", "test"))])
def test_a_source_network_sees_every_image_that_no_sweep_tests_on(test: int | None, pools: tuple[str, ...]) -> None:
    labels, keys, pool = listing(30, pools)
    parts = train_and_val(dataset="d", classes=CLASSES, labels=labels, keys=keys, pools=pool, val=2, test=test)
    tested = set(split(test=test, pools=pools)[0].test.open())
    own = {row for row in range(len(keys)) if pool[row] == "test"}
    assert sorted(np.concatenate(parts)) == sorted(set(range(len(keys))) - tested - own)


@given(st.integers(1, 100))
def test_a_distance_is_measured_on_balanced_images_outside_the_test_set(maximum: int) -> None:
    labels, keys, pools = listing(30)
    rows = non_test(dataset="d", classes=CLASSES, labels=labels, keys=keys, pools=pools, test=4, maximum=maximum)
    counts = np.bincount(labels[rows], minlength=3)
    assert len(rows) == min(maximum, 78)
    assert counts.max() - counts.min() <= 1
    assert not set(rows) & set(split()[0].test.open())
