"""The cache of frozen features is exact, shared and repaired."""

from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fttune.features import FeatureKey, Norm, cached, features_at

KEY = FeatureKey(weights="w", data="d", images="i", backbone="tiny", resize="crop", image_size=8, view=0, layer=2)


def values() -> Iterator[Tensor]:
    yield torch.arange(24.0).reshape(2, 3, 4)
    yield torch.arange(12.0).reshape(1, 3, 4)


def never() -> Iterator[Tensor]:
    raise AssertionError("computed twice")
    yield


def test_what_was_computed_once_is_read_back_bit_for_bit(tmp_path: Path) -> None:
    first = cached(tmp_path, KEY, values)
    assert torch.equal(first, torch.cat(list(values())))
    assert torch.equal(cached(tmp_path, KEY, never), first)


def test_a_truncated_entry_is_computed_again(tmp_path: Path) -> None:
    cached(tmp_path, KEY, values)
    entry = tmp_path / KEY.file
    entry.write_bytes(entry.read_bytes()[: entry.stat().st_size // 2])
    assert torch.equal(cached(tmp_path, KEY, values), torch.cat(list(values())))


def test_an_error_in_computing_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        cached(tmp_path, KEY, never)
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".lock"]


@pytest.mark.parametrize("name", [field.name for field in fields(FeatureKey)])
def test_every_part_of_a_key_leads_to_another_entry(name: str) -> None:
    value = getattr(KEY, name)
    assert replace(KEY, **{name: value + 1 if isinstance(value, int) else value + "x"}).file != KEY.file


def test_features_are_the_input_of_the_stage() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.ReLU(), nn.Flatten()), nn.Linear(4 * 36, 2)).eval()
    images = torch.randint(256, (5, 10, 10, 3), dtype=torch.uint8)
    norm = Norm(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    features = torch.cat(list(features_at(net, 2, images, view=1, size=8, norm=norm)))
    shown = (images[:, 1:9, 1:9].flip(2).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5
    with torch.inference_mode():
        assert torch.allclose(features, net[:2](shown), atol=1e-5)
