"""Views are cut on tensors, drawn from one generator, and the same for both members of a pair."""

from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fttune.data.views import FIXED_VIEWS, drawn_fixed, drawn_view, fixed_view, normalise
from fttune.trial import stored_size

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


def test_the_centre_view_is_the_centre_and_its_mirror_the_mirror() -> None:
    centre = fixed_view(IMAGES, 0, 6)
    assert torch.equal(centre, IMAGES[:, 2:8, 2:8].permute(0, 3, 1, 2))
    assert torch.equal(fixed_view(IMAGES, 1, 6), centre.flip(3))


def test_center_draws_nothing_but_the_centre() -> None:
    assert torch.equal(drawn_view(IMAGES, "center", 6, generator()), fixed_view(IMAGES, 0, 6))


def test_flip_draws_one_of_its_fixed_views_and_says_which() -> None:
    which = drawn_fixed("flip", 6, generator(3))
    drawn = drawn_view(IMAGES, "flip", 6, generator(3))
    assert set(which.tolist()) == {0, 1}
    for row, view in enumerate(which.tolist()):
        assert torch.equal(drawn[row], fixed_view(IMAGES, view, 6)[row])


def test_every_crop_is_a_window_of_its_own_image_mirrored_or_not() -> None:
    drawn = drawn_view(IMAGES, "crop", 6, generator(1))
    for row in range(6):
        image = IMAGES[row].permute(2, 0, 1)
        windows = [image[:, y : y + 6, x : x + 6] for y, x in product(range(5), range(5))]
        assert any(torch.equal(drawn[row], w) or torch.equal(drawn[row], w.flip(2)) for w in windows)


def test_crops_reach_every_corner_and_both_mirrors() -> None:
    same = IMAGES[:1].expand(400, -1, -1, -1)
    corners = {tuple(view[:, 0, 0].tolist()) for view in drawn_view(same, "crop", 6, generator())}
    assert len(corners) == len(
        {*(tuple(IMAGES[0, y, x].tolist()) for y in range(5) for x in (*range(5), *range(5, 10)))}
    )


@pytest.mark.parametrize("views", ["flip", "crop"])
def test_draws_follow_the_generator_alone(views: str) -> None:
    first, again, other = (drawn_view(IMAGES, views, 6, generator(seed)) for seed in (1, 1, 2))  # pyright: ignore
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_views_that_cannot_be_cached_are_marked() -> None:
    assert FIXED_VIEWS == {"center": 1, "flip": 2, "crop": 0}


def test_normalise_is_mean_and_deviation_of_images_in_0_to_1() -> None:
    pixels = torch.tensor([[0, 255]], dtype=torch.uint8).reshape(1, 1, 1, 2).expand(1, 3, 1, 2)
    shown = normalise(pixels, (0.5, 0.25, 0.0), (0.5, 0.25, 1.0))
    assert torch.allclose(shown[0, :, 0], torch.tensor([[-1.0, 1.0], [-1.0, 3.0], [0.0, 1.0]]))
