"""A fused network computes what the network it was computes, forwards and backwards."""

import copy
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import conv2d

from fttune.backbones import catalog
from fttune.backbones.catalog import BACKBONES, find
from fttune.backbones.convolution import Frame, clamp, convolve
from fttune.backbones.efficientnet import SameConv2d
from fttune.backbones.fused import fuse, placed

CPU = torch.device("cpu")


def shown(count: int, size: int) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def unsettled(net: nn.Sequential) -> nn.Sequential:
    """With statistics, scales and shifts of BatchNorm that are not those of a fresh layer."""
    generator = torch.Generator().manual_seed(2)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for value in (module.running_mean, module.bias):
                assert value is not None
                value.data.normal_(0, 0.1, generator=generator)
            for value in (module.running_var, module.weight):
                assert value is not None
                value.data.uniform_(0.5, 1.5, generator=generator)
    return net


def is_fused(module: nn.Module) -> bool:
    return "forward" in vars(module)


def trained(net: nn.Module, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The output for images, and the gradients by all values."""
    torch.manual_seed(0)  # of dropout
    logits = net(images)
    net.zero_grad()
    logits.square().mean().backward()
    return logits.detach(), {name: value.grad for name, value in net.named_parameters() if value.grad is not None}


def all_in_eval(net: nn.Sequential) -> None:
    net.eval()


def statistics_fixed(net: nn.Sequential) -> None:
    net.train()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def statistics_of_the_batch(net: nn.Sequential) -> None:
    net.train()


@pytest.mark.parametrize("mode", [all_in_eval, statistics_fixed, statistics_of_the_batch])
@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_every_backbone_gives_the_same_outputs_gradients_and_statistics(
    name: str, mode: Callable[[nn.Sequential], None]
) -> None:
    fused = placed(unsettled(catalog.build(name)).double(), CPU)
    if not any(map(is_fused, fused.modules())):
        return  # it computes as it did
    alone = unsettled(catalog.build(name)).double()
    alone.load_state_dict(fused.state_dict())
    images = shown(4, find(name).min_image_size).double()
    for net in (alone, fused):
        mode(net)
    (logits, slopes), (expected, expected_slopes) = trained(fused, images), trained(alone, images)
    torch.testing.assert_close(logits, expected)
    torch.testing.assert_close(slopes, expected_slopes)
    torch.testing.assert_close(fused.state_dict(), alone.state_dict())


def test_where_there_is_batchnorm_it_is_fused_with_the_convolution_before_it() -> None:
    for name in ("efficientnet_lite0", "resnet18"):
        net = fuse(catalog.build(name))
        norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
        assert norms
        assert all(map(is_fused, norms))


def test_a_copy_computes_with_its_own_values() -> None:
    net = unsettled(placed(catalog.build("efficientnet_lite0"), CPU)).eval()
    other = copy.deepcopy(net)
    images = shown(1, 32)
    before = net(images)
    assert torch.equal(other(images), before)
    for value in other.parameters():
        value.data.mul_(1.1)
    assert torch.equal(net(images), before)
    assert not torch.allclose(other(images), before)
    assert net.state_dict().keys() == catalog.build("efficientnet_lite0").state_dict().keys()


class Asks(nn.Module):
    """Its course depends on values."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.conv(images)
        return self.norm(maps) if maps.sum() > 0 else maps


class ReadsTwice(Asks):
    def forward(self, images: Tensor) -> Tensor:
        maps = self.conv(images)
        return self.norm(maps) + maps


class RunsTwice(Asks):
    def forward(self, images: Tensor) -> Tensor:
        return self.norm(self.conv(images)) + self.conv(images)


class NormsTwice(Asks):
    def forward(self, images: Tensor) -> Tensor:
        return self.norm(self.norm(self.conv(images)))


class ClampsOne(Asks):
    """Of two readers of the normalised maps one is ReLU6."""

    def __init__(self) -> None:
        super().__init__()
        self.relu6 = nn.ReLU6()

    def forward(self, images: Tensor) -> Tensor:
        maps = self.norm(self.conv(images))
        return self.relu6(maps) - 2 * maps


@pytest.mark.parametrize("kind", [Asks, ReadsTwice, RunsTwice, NormsTwice, ClampsOne])
def test_a_convolution_that_not_one_batchnorm_alone_reads_is_left_alone(kind: type[Asks]) -> None:
    stage = kind()
    alone = unsettled(nn.Sequential(stage))
    fused = fuse(copy.deepcopy(alone))
    for net in (alone, fused):
        statistics_fixed(net)
    images = 3 * shown(2, 8)
    (logits, slopes), (expected, expected_slopes) = trained(fused, images), trained(alone, images)
    torch.testing.assert_close(logits, expected)
    torch.testing.assert_close(slopes, expected_slopes)
    inner = fused[0]
    assert isinstance(inner, Asks)
    assert is_fused(inner.conv) == is_fused(inner.norm) == (kind is ClampsOne)
    assert not any(is_fused(module) for module in fused.modules() if isinstance(module, nn.ReLU6))


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(3, 4, 3, padding="same"),
        nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(3, 4, 3, bias=True),
    ],
)
def test_padding_of_another_kind_is_left_alone_and_a_bias_is_folded(conv: nn.Conv2d) -> None:
    alone = unsettled(nn.Sequential(nn.Sequential(conv, nn.BatchNorm2d(4), nn.ReLU6())))
    fused = fuse(copy.deepcopy(alone))
    for net in (alone, fused):
        statistics_fixed(net)
    (logits, slopes), (expected, expected_slopes) = trained(fused, shown(2, 8)), trained(alone, shown(2, 8))
    torch.testing.assert_close(logits, expected)
    torch.testing.assert_close(slopes, expected_slopes)
    assert any(map(is_fused, fused.modules())) == (conv.padding == (0, 0))


def test_under_autocast_a_network_computes_as_torch_has_it() -> None:
    alone = catalog.build("resnet18")
    fused = fuse(copy.deepcopy(alone))
    for net in (alone, fused):
        statistics_fixed(net)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (logits, slopes), (expected, expected_slopes) = trained(fused, shown(2, 32)), trained(alone, shown(2, 32))
    assert torch.equal(logits, expected)
    assert all(torch.equal(slopes[name], expected_slopes[name]) for name in expected_slopes)


@given(
    kernel=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    padding=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    size=st.tuples(st.integers(17, 24), st.integers(17, 24)),
    channels=st.sampled_from([(6, 6), (6, 3), (6, 1)]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_gradients_of_a_convolution_are_those_of_torch(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    padding: tuple[int, int],
    size: tuple[int, int],
    channels: tuple[int, int],
    dtype: torch.dtype,
) -> None:
    width, groups = channels
    conv = nn.Conv2d(width, width, kernel, stride, padding, dilation, groups)
    assert_as_torch(conv, torch.randn(2, width, *size), dtype)


@given(kernel=st.integers(1, 9), stride=st.integers(1, 3), size=st.tuples(st.integers(9, 20), st.integers(9, 20)))
def test_gradients_with_padding_as_tensorflow_has_it_are_those_of_torch(
    kernel: int, stride: int, size: tuple[int, int]
) -> None:
    assert_as_torch(SameConv2d(4, 4, kernel, stride, groups=4), torch.randn(2, 4, *size), torch.float32)


def assert_as_torch(conv: nn.Conv2d, images: Tensor, dtype: torch.dtype) -> None:
    """Outputs and all gradients."""
    conv, images = conv.to(dtype), images.to(dtype)
    conv.to(memory_format=torch.channels_last)
    results = []
    for run in (conv, lambda shown: convolve(shown, conv.weight, conv.bias, Frame.of(conv, shown))):
        leaf = images.clone(memory_format=torch.channels_last).requires_grad_()
        conv.zero_grad()
        made = run(leaf)
        made.backward(torch.arange(made.numel()).sin().to(dtype).view_as(made))
        assert conv.bias is not None
        results.append((made.detach(), leaf.grad, conv.weight.grad, conv.bias.grad))
    torch.testing.assert_close(*results, **({"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {}))


def test_the_gradient_of_a_clamp_is_that_of_relu6_at_its_ends_too() -> None:
    values = torch.tensor([-1.0, 0.0, 1e-30, 3.0, 6.0, 6.1, float("inf"), float("nan")])
    slopes = []
    for run in (nn.ReLU6(), lambda shown: clamp(shown * 1)):
        leaf = values.clone().requires_grad_()
        made = run(leaf)
        made.backward(torch.arange(1.0, 9.0))
        slopes.append((made.detach(), leaf.grad))
    for ours, theirs in zip(*slopes, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)


def test_images_without_a_gradient_get_none_and_stay_as_they_are() -> None:
    conv, images = nn.Conv2d(4, 4, 5, groups=4), torch.randn(1, 4, 9, 9)
    kept = images.clone()
    made = convolve(images, conv.weight, conv.bias, Frame.of(conv, images))
    made.sum().backward()
    assert torch.equal(images, kept)
    torch.testing.assert_close(made, conv2d(images, conv.weight, conv.bias, groups=4))
