"""Halves of a dataset's classes: those that were published, apart, and with the images they had."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fttune.config import DatasetGrid
from fttune.data import catalog
from fttune.data.classes import HalfSource, half_of, halved
from fttune.data.embedded import Glyphs, Photos
from fttune.sweep.ground import dataset_row


def test_half_a_of_imagenet_is_the_published_one() -> None:
    # Yosinski et al. 2014, seed [0]: the first classes of half0A.
    assert half_of(1000, "a")[:12] == [0, 1, 2, 5, 9, 10, 15, 16, 17, 19, 20, 22]
    assert len(half_of(1000, "a")) == len(half_of(1000, "b")) == 500


@given(count=st.integers(2, 60), seed=st.integers(0, 5))
def test_two_halves_are_the_whole_and_share_nothing(count: int, seed: int) -> None:
    a, b = half_of(count, "a", seed), half_of(count, "b", seed)
    assert sorted(a + b) == list(range(count))
    assert a == sorted(a)
    assert b == sorted(b)
    assert len(b) - len(a) in (0, 1)


def test_a_half_labels_its_classes_anew_and_keeps_their_images() -> None:
    whole = Photos()
    named = {ref.key: whole.classes[ref.label] for ref in whole.images}
    halves = [HalfSource(whole, "a"), HalfSource(whole, "b")]
    assert sorted(ref.key for half in halves for ref in half.images) == sorted(named)
    for half in halves:
        assert {ref.label for ref in half.images} == set(range(len(half.classes)))
        assert all(half.classes[ref.label] == named[ref.key] for ref in half.images)
        assert [ref.key for ref in half.images] == [ref.key for ref in whole.images if named[ref.key] in half.classes]
        last = half.images[-1]
        assert half.read(last) == whole.read(next(ref for ref in whole.images if ref.key == last.key))


def test_the_halves_and_the_whole_are_three_datasets() -> None:
    sources = [Glyphs(), HalfSource(Glyphs(), "a"), HalfSource(Glyphs(), "b"), HalfSource(Glyphs(), "a", seed=1)]
    assert len({source.fingerprint() for source in sources}) == 4
    assert HalfSource(Glyphs(), "a").fingerprint() == sources[1].fingerprint()


@pytest.mark.parametrize(("side", "classes"), [("a", 5), ("b", 5)])
def test_a_sweep_names_half_of_a_dataset(side: str, classes: int) -> None:
    entry = DatasetGrid.model_validate({"of": "digits", "half": side, "images_per_class": 3})
    row = dataset_row("mine", entry)
    assert (row.name, row.classes, len(row.source().classes)) == ("mine", classes, classes)
    assert (row.val, row.test) == (catalog.find("digits").val, catalog.find("digits").test)


def test_an_odd_class_goes_to_half_b() -> None:
    row = catalog.find("photos")
    assert [halved(row, side, "x").classes for side in ("a", "b")] == [6, 6]
    assert [len(half_of(7, side)) for side in ("a", "b")] == [3, 4]
