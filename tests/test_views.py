"""Views are cut on tensors, drawn from one generator, and the same for both members of a pair."""

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fttune.data.views import centre, cut, drawn_fixed, drawn_places, fixed_places, normalise, view_codes
from fttune.errors import ConfigError
from fttune.trial import Views, fixed_views, stored_size

IMAGES = torch.arange(6 * 10 * 10 * 3).remainder(251).to(torch.uint8).reshape(6, 10, 10, 3)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_caffes_crop_is_cut_from_caffes_warp() -> None:
    assert stored_size(227) == stored_size(224) == 256


@given(st.integers(min_value=8, max_value=512).filter(lambda size: size != 227))
def test_the_centre_crop_covers_seven_eighths(size: int) -> None:
    stored = stored_size(size)
    assert size <= 0.875 * stored < size + 0.875
    assert stored_size(224) == 256


def fixed(views: Views, rows: np.ndarray, room: int) -> Tensor:
    """Places of every fixed view, int64 [N, K, 3]."""
    codes = view_codes(views)
    return fixed_places(np.repeat(rows, len(codes)), np.tile(codes, len(rows)), room).view(len(rows), -1, 3)


def windows(image: Tensor) -> list[Tensor]:
    """Every crop of 6 of an image of 10, and its mirror."""
    crops = [image[y : y + 6, x : x + 6].permute(2, 0, 1) for y, x in product(range(5), range(5))]
    return [*crops, *(crop.flip(2) for crop in crops)]


def test_the_centre_view_is_the_centre_and_its_mirror_the_mirror() -> None:
    assert torch.equal(centre(IMAGES, 6), IMAGES[:, 2:8, 2:8].permute(0, 3, 1, 2))
    places = fixed("flip", np.arange(6), 4)
    assert torch.equal(cut(IMAGES, places[:, 0], 6), centre(IMAGES, 6))
    assert torch.equal(cut(IMAGES, places[:, 1], 6), centre(IMAGES, 6).flip(3))


@pytest.mark.parametrize("views", ["center", "flip", "fixed-2", "fixed-9"])
def test_the_first_fixed_view_is_the_centre_and_every_view_is_a_window(views: Views) -> None:
    places = fixed(views, np.arange(6), 4)
    assert places.shape == (6, fixed_views(views), 3)
    assert torch.equal(cut(IMAGES, places[:, 0], 6), centre(IMAGES, 6))
    for view in range(places.shape[1]):
        for image, seen in zip(IMAGES, cut(IMAGES, places[:, view], 6), strict=True):
            assert any(torch.equal(seen, window) for window in windows(image))


def test_a_fixed_view_follows_from_image_and_view_alone() -> None:
    every, some = fixed("fixed-5", np.arange(50), 9), fixed("fixed-3", np.array([7, 30, 7]), 9)
    assert torch.equal(some, every[[7, 30, 7], :3])


def test_drawn_views_differ_and_reach_everywhere() -> None:
    places = fixed("fixed-5", np.arange(400), 4)[:, 1:].reshape(-1, 3)
    assert {tuple(place) for place in places.tolist()} == set(product(range(5), range(5), range(2)))
    assert len(fixed("fixed-5", np.arange(1), 200)[0].unique(dim=0)) == 5


@pytest.mark.parametrize("views", ["center", "flip", "fixed-4"])
def test_a_step_shows_each_fixed_view_as_often_as_another(views: Views) -> None:
    counts = torch.bincount(drawn_fixed(views, 4000, generator()), minlength=fixed_views(views))
    assert len(counts) == fixed_views(views)
    assert counts.min() > 0.9 * 4000 / fixed_views(views)


def test_every_crop_is_a_window_of_its_own_image_mirrored_or_not() -> None:
    drawn = cut(IMAGES, drawn_places(6, 4, generator(1)), 6)
    for image, seen in zip(IMAGES, drawn, strict=True):
        assert any(torch.equal(seen, window) for window in windows(image))


def test_crops_reach_every_corner_and_both_mirrors() -> None:
    places = drawn_places(400, 4, generator())
    assert {tuple(place) for place in places.tolist()} == set(product(range(5), range(5), range(2)))


def test_draws_follow_the_generator_alone() -> None:
    first, again, other = (drawn_places(6, 4, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4), st.integers(0, 4), st.integers(0, 1)), min_size=1))
def test_a_cut_is_the_window_at_its_place_of_the_image_it_names(drawn: list[tuple[int, int, int, int]]) -> None:
    rows, places = torch.tensor(drawn)[:, 0], torch.tensor(drawn)[:, 1:]
    seen = cut(IMAGES, places, 6, rows=rows)
    assert torch.equal(seen, cut(IMAGES[rows], places, 6))
    for view, (row, top, left, mirrored) in zip(seen, drawn, strict=True):
        window = IMAGES[row, top : top + 6, left : left + 6].permute(2, 0, 1)
        assert torch.equal(view, window.flip(2) if mirrored else window)


@pytest.mark.parametrize("views", ["fixed-1", "fixed-999", "fixed-", "fixed--3", "fixed-2.5", "flop", ""])
def test_a_kind_of_views_that_there_is_not_is_refused(views: str) -> None:
    with pytest.raises(ConfigError, match="views"):
        fixed_views(views)


def test_views_that_cannot_be_cached_are_marked() -> None:
    assert [fixed_views(views) for views in ("center", "flip", "fixed-7", "crop")] == [1, 2, 7, 0]


def test_normalise_is_mean_and_deviation_of_images_in_0_to_1() -> None:
    pixels = torch.tensor([[0, 255]], dtype=torch.uint8).reshape(1, 1, 1, 2).expand(1, 3, 1, 2)
    shown = normalise(pixels, (0.5, 0.25, 0.0), (0.5, 0.25, 1.0))
    assert torch.allclose(shown[0, :, 0], torch.tensor([[-1.0, 1.0], [-1.0, 3.0], [0.0, 1.0]]))


@given(
    st.lists(st.floats(0, 1), min_size=3, max_size=3),
    st.lists(st.floats(1 / 255, 1), min_size=3, max_size=3),
    st.booleans(),
)
def test_normalise_is_as_exact_as_subtracting_and_dividing(mean: list[float], std: list[float], last: bool) -> None:
    images = IMAGES.permute(0, 3, 1, 2)
    exact = (images.double() / 255 - torch.tensor(mean).double()[:, None, None]) / torch.tensor(std).double()[
        :, None, None
    ]
    shown = normalise(images if last else images.contiguous(), mean, std)
    # Of the largest magnitude that the sum passes through, a pixel of white.
    assert ((shown - exact).abs() * torch.tensor(std)[:, None, None]).max() < 1e-6


def test_what_an_evaluation_normalised_first_a_training_can_use() -> None:
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    with torch.inference_mode():
        seen = normalise(IMAGES.permute(0, 3, 1, 2), mean, std)
    shown = normalise(IMAGES.permute(0, 3, 1, 2), mean, std)
    weight = torch.ones(3, 3, 1, 1, requires_grad=True)
    torch.nn.functional.conv2d(shown, weight).sum().backward()
    assert torch.equal(seen, shown)
    assert weight.grad is not None
